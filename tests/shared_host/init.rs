//! `wsgate init` without a web server: what it recognises, writes, keeps and refuses.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt as _, chown, symlink},
    path::Path,
    process::Command,
};

use crate::{
    shared_host::{host_user::HostUser, is_root},
    support::{
        child_process::{ExitedProcess, run},
        install_dir::InstallDir,
    },
};

/// A user without a virtualenv, and wsgate where every user can run it.
pub(super) struct Account {
    pub(super) user: HostUser,
    pub(super) dir: InstallDir,
}

impl Account {
    pub(super) fn new() -> Self {
        let account = Self { user: HostUser::new(), dir: InstallDir::new() };
        account.user.directory(&account.user.path("public_html"));
        account
    }

    pub(super) fn wsgate(&self, arguments: &str) -> ExitedProcess {
        let program = self.dir.wsgate();
        let line = format!("{} {arguments}", program.display());
        self.user.run(&["/bin/sh", "-c", &line])
    }

    /// All files below the home directory, but those of a new account.
    pub(super) fn files(&self) -> Vec<String> {
        let find = "find . -mindepth 1 ! -name '.bash*' ! -name .profile -printf '%P %m\\n' | sort";
        self.user.run(&["/bin/sh", "-c", find]).text().lines().map(str::to_owned).collect()
    }

    /// The code of the script for `arguments`; the script is removed again.
    #[track_caller]
    pub(super) fn code(&self, arguments: &str) -> String {
        let ended = self.wsgate(&format!("init {arguments}"));
        assert_eq!(ended.code(), Some(0), "{arguments}: {}", ended.stderr);
        let script = self.user.path("public_html/app.wsgi");
        let text = fs::read_to_string(&script).unwrap();
        fs::remove_file(script).unwrap();
        let code: Vec<&str> = text.lines().skip(2).filter(|line| !line.is_empty()).collect();
        code.join("; ")
    }
}

#[track_caller]
pub(super) fn is_refused(ended: &ExitedProcess, code: i32, said: &str) {
    assert_eq!(ended.code(), Some(code), "{} {}", ended.text(), ended.stderr);
    let is_complete = ended.stderr.contains("[W0105]") && ended.stderr.contains("hint: ");
    assert!(ended.stderr.contains(said) && is_complete, "{}", ended.stderr);
}

/// The simplest application, under the name `name`.
pub(super) fn hello(name: &str) -> String {
    format!(
        "def {name}(environ, start_response):\n    start_response('200 OK', [('Content-Type', \
         'text/plain')])\n    return [b'hello']\n"
    )
}

#[test]
fn a_sample_is_written_outside_and_a_second_run_keeps_it() {
    if !is_root() {
        return;
    }
    let account = Account::new();
    let before = account.files();
    let shown = account.wsgate("init --dry-run public_html");
    assert_eq!((shown.code(), account.files()), (Some(0), before), "{}", shown.stderr);
    assert!(shown.text().contains("def application(environ, start_response)"), "{}", shown.text());
    assert!(shown.text().contains("(mode 755):\n#!"), "{}", shown.text());
    let ended = account.wsgate("init public_html");
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    // A directory that is created is named: its name may be misspelt.
    let created = format!("created {}/ (mode 755)\n", account.user.path("wsgate-apps").display());
    assert!(ended.text().contains(&created), "{}", ended.text());
    let files = account.files();
    assert_eq!(
        files,
        [
            "public_html 755",
            "public_html/.htaccess 644",
            "public_html/app.wsgi 755",
            "wsgate-apps 755",
            "wsgate-apps/public_html 755",
            "wsgate-apps/public_html/app.py 644",
        ]
    );
    let script = account.user.path("public_html/app.wsgi");
    let first = fs::read_to_string(&script).unwrap();
    assert!(first.starts_with(&format!("#!{} --mode warm ", account.dir.wsgate().display())));
    let again = account.wsgate("init public_html");
    assert_eq!(again.code(), Some(0), "{}", again.stderr);
    assert_eq!((account.files(), fs::read_to_string(script).unwrap()), (files, first));
    let called = account.wsgate("call public_html/app.wsgi /");
    assert_eq!(called.text(), "Hello from WSGI\n", "{}", called.stderr);
}

#[test]
fn applications_are_recognised_by_their_files() {
    if !is_root() {
        return;
    }
    let account = Account::new();
    let user = &account.user;
    user.file("flask/app.py", "from flask import Flask\nserver = Flask(__name__)\n");
    user.file("factory/shop/__init__.py", "def create_app(config=None):\n    return config\n");
    user.file("passenger/passenger_wsgi.py", &hello("application"));
    user.file("odd/my-app.wsgi", &hello("app"));
    user.file("odd/a.b.py", &hello("app"));
    user.file("pyramid/production.ini", "[app:main]\nuse = egg:shop\n");
    user.file("pyramid/development.ini", "[app:main]\nuse = egg:shop\n");
    user.file("django/manage.py", "x('DJANGO_SETTINGS_MODULE', 'shop.settings')\n");
    user.file("django/shop/settings.py", "WSGI_APPLICATION = 'shop.serve.handler'\n");
    user.file("django/shop/serve.py", "handler = 1\n");
    user.file("old/manage.py", "x(\"DJANGO_SETTINGS_MODULE\", \"old.settings\")\n");
    let home = user.path("").display().to_string();
    let home = home.trim_end_matches('/');
    for (app, code) in [
        ("flask", "from app import server as application"),
        ("factory", "from shop import create_app; application = create_app()"),
        ("passenger", "from passenger_wsgi import application"),
        ("django", "from shop.serve import handler as application"),
        ("flask/app.py", "from app import server as application"),
        ("flask/app.py:server", "from app import server as application"),
    ] {
        assert_eq!(account.code(&format!("public_html --app {app}")), code, "{app}");
    }
    let code = account.code("public_html --app pyramid");
    let path = format!("loadapp(\"config:{home}/pyramid/production.ini\")");
    assert!(code.ends_with(&path), "{code}");
    // `a.b` would be the module `b` of a package `a`.
    for file in ["odd/my-app.wsgi", "odd/a.b.py"] {
        let code = account.code(&format!("public_html --app {file}"));
        assert!(code.ends_with(&format!("run_path(\"{home}/{file}\")[\"app\"]")), "{code}");
    }
    let code = account.code("public_html --app old");
    assert!(code.contains("setdefault(\"DJANGO_SETTINGS_MODULE\", \"old.settings\")"), "{code}");
    // An installed module is not looked for; a misspelt one gets a note.
    let named = account.wsgate("init --dry-run public_html --app shop:app").text();
    assert!(named.starts_with("application: `shop:app`\n"), "{named}");
    assert!(named.contains("\nnote: the module `shop` is not in `"), "{named}");
    // The working directory counts without --app.
    let found = account.wsgate("init --dry-run public_html").text();
    assert!(found.starts_with("found: no application"), "{found}");
    let program = account.dir.wsgate();
    let line = format!("cd passenger && {} init --dry-run ../public_html", program.display());
    let found = user.run(&["/bin/sh", "-c", &line]).text();
    assert!(found.starts_with("found: an application, `application` in "), "{found}");
    // Another user may have put the file there.
    fs::set_permissions(user.path("passenger"), Permissions::from_mode(0o777)).unwrap();
    let found = user.run(&["/bin/sh", "-c", &line]).text();
    assert!(found.starts_with("found: no application"), "{found}");
    for (app, said) in [
        ("nothing.py", "`nothing.py`"),
        ("pyramid/missing.ini", "cannot be opened"),
        ("public_html", "no application was recognised"),
        ("odd/my-app.wsgi:a-b", "a-b"),
        ("shop", "there is no file, directory or module `shop`"),
    ] {
        let ended = account.wsgate(&format!("init public_html --app {app}"));
        assert!([2, 78].contains(&ended.code().unwrap()), "{app}: {}", ended.text());
        assert!(ended.stderr.contains(said), "{app}: {}", ended.stderr);
    }
}

#[test]
fn sites_outside_the_home_directory_have_an_application_each() {
    if !is_root() {
        return;
    }
    let account = Account::new();
    for site in ["one", "two"] {
        let directory = account.dir.path(site);
        fs::create_dir_all(directory.join("htdocs")).unwrap();
        account.user.give_all(&directory);
        let ended = account.wsgate(&format!("init {}/htdocs", directory.display()));
        assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
        assert!(ended.text().starts_with("found: no application"), "{}", ended.text());
    }
    let files = account.files().join("\n");
    for site in ["one", "two"] {
        let below = account.dir.path(site);
        let place = format!("wsgate-apps{}/htdocs/app.py 644", below.display());
        assert!(files.contains(&place), "{place}: {files}");
    }
}

#[test]
fn names_with_a_hyphen_and_nested_directories_have_an_application_each() {
    if !is_root() {
        return;
    }
    let account = Account::new();
    for site in ["a-b", "a", "a/b"] {
        let ended = account.wsgate(&format!("init {site}"));
        assert_eq!(ended.code(), Some(0), "{site}: {}", ended.stderr);
        let log = account.user.path(&format!("wsgate-apps/{site}/error.log"));
        let script = fs::read_to_string(account.user.path(&format!("{site}/app.wsgi"))).unwrap();
        assert!(script.contains(&format!(" --error-log {}\n", log.display())), "{script}");
    }
}

#[test]
fn files_that_exist_are_named_and_nothing_is_written() {
    if !is_root() {
        return;
    }
    let account = Account::new();
    let rules = account.user.file("public_html/.htaccess", "# of the panel\nOptions -Indexes\n");
    let before = account.files();
    let ended = account.wsgate("init public_html");
    is_refused(&ended, 1, ".htaccess` exists");
    assert!(ended.stderr.contains("# of the panel"), "{}", ended.stderr);
    assert_eq!(account.files(), before);
    let shown = account.wsgate("init --dry-run public_html").text();
    assert!(shown.contains("another file is at ") && shown.contains("RewriteRule"), "{shown}");
    let hint = "append the lines that --dry-run shows behind it, and run `wsgate init` again";
    assert!(ended.stderr.contains(hint), "{}", ended.stderr);
    let own = include_str!("../../apache/public_html.htaccess");
    // A part of the lines does not keep clients from anything.
    fs::write(&rules, format!("# of the panel\n{}", own.replace("RewriteEngine On", ""))).unwrap();
    is_refused(&account.wsgate("init public_html"), 1, ".htaccess` exists");
    let both = format!("# of the panel\nOptions -Indexes\n\n{}# end\n", own.trim_start());
    fs::write(&rules, &both).unwrap();
    let ended = account.wsgate("init public_html");
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    assert_eq!(fs::read_to_string(&rules).unwrap(), both);
    fs::remove_file(account.user.path("public_html/app.wsgi")).unwrap();
    fs::remove_file(rules).unwrap();
    // A link leads wherever another user wants.
    let target = account.user.file("target", "mine\n");
    for aim in [target.as_path(), Path::new("/nonexistent/x")] {
        let link = account.user.path("public_html/app.wsgi");
        symlink(aim, &link).unwrap();
        let before = account.files();
        is_refused(&account.wsgate("init public_html"), 1, "a symbolic link");
        assert_eq!(account.files(), before, "{}", aim.display());
        fs::remove_file(link).unwrap();
    }
    assert_eq!(fs::read_to_string(target).unwrap(), "mine\n");
    // The last directory cannot be written to.
    fs::set_permissions(account.user.path("public_html"), Permissions::from_mode(0o555)).unwrap();
    let before = account.files();
    let ended = account.wsgate("init public_html");
    is_refused(&ended, 1, "nothing was written");
    let hint = format!("hint: chmod u+w {}\n", account.user.path("public_html").display());
    assert!(ended.stderr.contains(&hint), "{}", ended.stderr);
    // The name of the draft is nobody's business.
    assert!(!ended.stderr.contains("/.wsgate-"), "{}", ended.stderr);
    assert_eq!(account.files(), before);
}

#[test]
fn directories_that_cannot_be_served_are_refused() {
    if !is_root() {
        return;
    }
    let account = Account::new();
    let user = &account.user;
    user.file("file", "");
    user.directory(&user.path("open"));
    fs::set_permissions(user.path("open"), Permissions::from_mode(0o777)).unwrap();
    symlink("/nonexistent", user.path("broken")).unwrap();
    let before = account.files();
    for (dir, said) in [
        (".", "contains the home directory"),
        ("/", "contains the home directory"),
        ("file", "is not a directory"),
        ("missing/public_html", "cannot be used"),
        ("public_html/shop.cgi", "does not exist, and has the name of a script"),
        ("shop.wsgi", "name its directory, and wsgate writes the script app.wsgi there: "),
        ("public_html/shop.FCGI", " init public_html"),
        ("public_html/shop.py", " init public_html"),
        ("broken", "is a link to something that does not exist"),
        ("open", "every user may write"),
        ("\"$(printf 'a\\nb')\"", "not plain text"),
    ] {
        is_refused(&account.wsgate(&format!("init {dir}")), 78, said);
    }
    // Files of root would not be run in a directory of the user.
    let mut as_root = Command::new(account.dir.wsgate());
    let ended = run(as_root.arg("init").arg(user.path("public_html")), "");
    is_refused(&ended, 78, &format!("belongs to `{}`", user.name));
    assert!(
        ended
            .stderr
            .contains(&format!("hint: run the command as that user: sudo -u {} -H /", user.name))
    );
    assert_eq!(account.files(), before);
}

#[test]
fn modes_follow_the_directory_and_its_dangers_are_named() {
    if !is_root() {
        return;
    }
    let account = Account::new();
    let user = &account.user;
    let mode = |path: &str| fs::metadata(user.path(path)).unwrap().permissions().mode() & 0o777;
    // A new directory, whatever the umask.
    let program = account.dir.wsgate();
    let line = format!("umask 002; {} init new", program.display());
    assert_eq!(user.run(&["/bin/sh", "-c", &line]).code(), Some(0));
    assert_eq!((mode("new"), mode("new/app.wsgi"), mode("new/.htaccess")), (0o755, 0o755, 0o644));
    // A directory that only the user can enter.
    fs::set_permissions(user.path("public_html"), Permissions::from_mode(0o700)).unwrap();
    let ended = account.wsgate("init public_html");
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    let root = user.path("public_html").display().to_string();
    let note = format!("chmod o+x {root} && chmod o+r {root}/.htaccess\n");
    assert!(ended.text().contains(&note), "{}", ended.text());
    assert_eq!((mode("public_html/app.wsgi"), mode("public_html/.htaccess")), (0o700, 0o600));
    assert_eq!(mode("wsgate-apps/public_html/app.py"), 0o600);
    // Other users may list the directory, and not enter it; nor may they read `.htaccess`.
    fs::set_permissions(user.path("new"), Permissions::from_mode(0o754)).unwrap();
    fs::set_permissions(user.path("new/.htaccess"), Permissions::from_mode(0o600)).unwrap();
    let text = account.wsgate("init new").text();
    let new = user.path("new").display().to_string();
    for said in [format!(": chmod o+x {new}\n"), format!(": chmod o+r {new}/.htaccess\n")] {
        assert!(text.contains(&said), "{said}: {text}");
    }
    user.file("shop/.env", "SECRET=1\n");
    user.file("shop/db.sqlite3", "");
    user.file("shop/app.py", &hello("app"));
    fs::set_permissions(user.path("shop"), Permissions::from_mode(0o775)).unwrap();
    fs::set_permissions(user.path(""), Permissions::from_mode(0o700)).unwrap();
    chown(user.path("shop"), None, Some(1)).unwrap();
    let text = account.wsgate("init shop").text();
    let group = format!(
        "belongs to group daemon, and suexec runs only scripts of your own group: \
                         chgrp {}",
        user.name
    );
    for said in [&group, "chmod g-w", "chmod o+x", "`.env`, `db.sqlite3`", "move it elsewhere"] {
        assert!(text.contains(said), "{said}: {text}");
    }
}

#[test]
fn a_program_that_no_first_line_can_name_has_a_link() {
    if !is_root() {
        return;
    }
    let account = Account::new();
    let user = &account.user;
    for name in ["with space", &"long".repeat(40)] {
        let bin = user.path("tools").join(name).join("bin");
        user.directory(&bin);
        for file in ["wsgate", "libwsgate_engine.so"] {
            let mut install = Command::new("install");
            install.args(["-m", "755"]).arg(account.dir.path("bin").join(file)).arg(&bin);
            assert!(install.status().unwrap().success());
        }
        let program = bin.join("wsgate").display().to_string();
        let ended = user.run(&[&program, "init", "public_html"]);
        assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
        assert!(ended.text().contains("the script uses a link to it"), "{}", ended.text());
        let script = user.path("public_html/app.wsgi");
        let link = user.path("wsgate-apps/public_html/wsgate");
        let text = fs::read_to_string(&script).unwrap();
        assert!(text.starts_with(&format!("#!{} ", link.display())), "{text}");
        // The kernel runs the script by its first line.
        let called = user.run(&[script.to_str().unwrap(), "/"]);
        assert_eq!(called.text(), "Hello from WSGI\n", "{}", called.stderr);
        for made in ["public_html/app.wsgi", "public_html/.htaccess"] {
            fs::remove_file(user.path(made)).unwrap();
        }
        fs::remove_dir_all(user.path("wsgate-apps")).unwrap();
    }
}

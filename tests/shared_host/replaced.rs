//! `wsgate init` and `wsgate check` after wsgate was moved, and where something stands in the way:
//! each hint is a command, and the command mends the site.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt as _, symlink},
};

use crate::{
    shared_host::{
        Layout, SHOWS, SharedHost,
        host_user::HostUser,
        init::{Account, is_refused},
        is_root, shows_nothing_private,
    },
    web_servers::exposure::put_hidden,
};

/// The last part of the only hint in `text`, behind `before`: a command.
#[track_caller]
fn command_in(text: &str, before: &str) -> String {
    let line = text.lines().find(|line| line.contains("hint: ") && line.contains(before));
    let line = line.unwrap_or_else(|| panic!("no `{before}` in {text}"));
    line.split_once(before).unwrap().1.to_owned()
}

impl Account {
    /// Runs `line` in a shell, which succeeds.
    #[track_caller]
    fn shell(&self, line: &str) -> String {
        let ended = self.user.run(&["/bin/sh", "-c", line]);
        assert_eq!(ended.code(), Some(0), "{line}: {} {}", ended.text(), ended.stderr);
        ended.text()
    }

    /// The kernel runs the script by its first line.
    #[track_caller]
    fn answers(&self, script: &str) {
        let script = self.user.path(script);
        let called = self.user.run(&[script.to_str().unwrap(), "/"]);
        assert_eq!(called.text(), "Hello from WSGI\n", "{}", called.stderr);
    }
}

#[test]
fn a_virtualenv_that_was_moved_is_mended_by_the_command_of_check() {
    if !is_root() {
        return;
    }
    let account = Account::new();
    account.user.make_venv();
    account.shell("venv/bin/wsgate init public_html");
    // A name without a space; a name with one, which needs a link; another, with the link there.
    let mut before = "venv";
    for name in ["other", "with space", "with two spaces"] {
        account.shell(&format!("mv '{before}' '{name}'"));
        let line = format!("'{name}/bin/wsgate' check public_html/app.wsgi");
        let ended = account.user.run(&["/bin/sh", "-c", &line]);
        assert_eq!(ended.code(), Some(1), "{name}: {}", ended.text());
        let is_link = name == "with two spaces";
        let start = if is_link { "to this wsgate: " } else { "path of wsgate: " };
        account.shell(&command_in(&ended.text(), start));
        account.answers("public_html/app.wsgi");
        account.shell(&line);
        before = name;
    }
}

#[test]
fn files_of_an_earlier_init_are_recognised_and_replaced_by_the_command_of_the_hint() {
    if !is_root() {
        return;
    }
    let account = Account::new();
    account.user.make_venv();
    account.shell("venv/bin/wsgate init public_html");
    account.shell("mv venv 'with space'");
    let init = "'with space/bin/wsgate' init public_html";
    let refused = account.user.run(&["/bin/sh", "-c", init]);
    is_refused(&refused, 1, "an earlier `wsgate init` wrote it");
    account.shell(&command_in(&refused.stderr, "replace it: "));
    account.answers("public_html/app.wsgi");
    // The link leads to the place of before.
    account.shell("mv 'with space' 'two  spaces'");
    let init = "'two  spaces/bin/wsgate' init public_html";
    let refused = account.user.run(&["/bin/sh", "-c", init]);
    is_refused(&refused, 1, "with space/bin/wsgate`, not to this wsgate");
    account.shell(&command_in(&refused.stderr, "replace the link: "));
    account.answers("public_html/app.wsgi");
    // Rules of another version, and lines of a panel.
    let rules = account.user.path("public_html/.htaccess");
    let text = fs::read_to_string(&rules).unwrap().replace("DirectorySlash Off\n", "");
    fs::write(&rules, format!("# panel\n{text}")).unwrap();
    fs::remove_file(account.user.path("public_html/app.wsgi")).unwrap();
    let refused = account.user.run(&["/bin/sh", "-c", init]);
    is_refused(&refused, 1, ".htaccess` exists: an earlier `wsgate init` wrote");
    let command = command_in(&refused.stderr, "replace it: ");
    account.shell(command.split_once("; then copy").unwrap().0);
    assert!(fs::read_to_string(rules).unwrap().contains("DirectorySlash Off\n"));
    account.answers("public_html/app.wsgi");
    // A script of another application is worth a question.
    account.user.file("shop/wsgi.py", "application = None\n");
    let other = format!("{init} --app shop/wsgi.py");
    let refused = account.user.run(&["/bin/sh", "-c", &other]);
    is_refused(&refused, 1, "hint: it serves another application. To replace it: rm ");
    assert!(refused.stderr.contains(" --app shop/wsgi.py; to keep it: "), "{}", refused.stderr);
}

#[test]
fn a_virtualenv_is_no_directory_of_a_web_server() {
    if !is_root() {
        return;
    }
    let account = Account::new();
    account.user.make_venv();
    account.user.file("conda/conda-meta/history", "");
    let before = account.files();
    for directory in ["venv", "venv/lib/public_html", "venv/bin", "conda"] {
        let ended = account.wsgate(&format!("init {directory}"));
        is_refused(&ended, 78, "is a virtualenv");
        assert!(ended.stderr.contains("such as ~/public_html"), "{}", ended.stderr);
    }
    assert_eq!(account.files(), before);
    // A project that has made a virtualenv of its own directory.
    assert_eq!(account.wsgate("init --dry-run venv/public").code(), Some(0));
}

#[test]
fn what_stands_in_the_way_of_the_applications_is_named() {
    if !is_root() {
        return;
    }
    let account = Account::new();
    let apps = account.user.path("wsgate-apps");
    account.user.file("wsgate-apps", "mine");
    let ended = account.wsgate("init public_html");
    is_refused(&ended, 78, "wsgate-apps` is not a directory");
    account.shell(&command_in(&ended.stderr, "rename it: "));
    for (target, said) in [
        ("missing", "is a link to something that does not exist: `"),
        ("chain", "missing`"),
        ("wsgate-apps", "is a link that leads back to itself"),
        ("public_html/private", "whose files clients could request"),
    ] {
        account.user.directory(&account.user.path("public_html/private"));
        let _ = fs::remove_file(account.user.path("chain"));
        symlink("missing", account.user.path("chain")).unwrap();
        symlink(target, &apps).unwrap();
        let before = account.files();
        for directory in ["public_html", "public_html/private/site", "other"] {
            let ended = account.wsgate(&format!("init {directory}"));
            is_refused(&ended, 78, said);
            assert!(ended.stderr.contains(": rm "), "{}", ended.stderr);
        }
        assert_eq!(account.files(), before, "{target}");
        fs::remove_file(&apps).unwrap();
    }
    // A link to another disk is no danger.
    account.user.directory(&account.user.path("large/apps"));
    symlink("large/apps", &apps).unwrap();
    assert_eq!(account.wsgate("init public_html").code(), Some(0));
    account.answers("public_html/app.wsgi");
}

#[test]
fn a_full_disk_leaves_no_file_and_no_name_of_a_draft() {
    if !is_root() {
        return;
    }
    let account = Account::new();
    let before = account.files();
    // A limit of file sizes that the script needs more than, and a log message less.
    let program = account.dir.wsgate();
    let line = format!("prlimit --fsize=1000 {} init public_html", program.display());
    let ended = account.user.run(&["/bin/sh", "-c", &line]);
    is_refused(&ended, 1, ".htaccess` cannot be written: File too large (os error 27); nothing");
    assert!(!ended.stderr.contains(".wsgate-"), "{}", ended.stderr);
    assert_eq!(account.files(), before);
}

#[test]
fn a_script_of_another_name_gets_its_own_rules() {
    if !is_root() {
        return;
    }
    let account = Account::new();
    let program = account.dir.wsgate();
    let code = "def application(environ, start_response): return []\n";
    for (path, said) in [
        ("public_html/shop.cgi", "<Files \"shop.cgi\">"),
        ("public_html/cgi-bin/shop.cgi", "<FilesMatch \"(?<!\\.cgi)\\z\">"),
    ] {
        account.user.file(path, &format!("#!{}\n{code}", program.display()));
        is_refused(
            &account.wsgate(&format!("init {path}")),
            78,
            "is not a directory, and no script",
        );
        account.shell(&format!("chmod 755 {path}"));
        let ended = account.wsgate(&format!("init {path} --app shop.py"));
        is_refused(&ended, 2, "--app has no effect on the script");
        let ended = account.wsgate(&format!("init {path}"));
        assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
        let rules = account.user.path(path).with_file_name(".htaccess");
        let rules = fs::read_to_string(rules).unwrap();
        assert!(rules.contains(said) && !rules.contains("app.wsgi"), "{rules}");
        assert!(!account.user.path(path).with_file_name("app.wsgi").exists());
    }
}

#[test]
fn a_script_of_another_name_is_served_and_shows_nothing_private() {
    if !is_root() {
        return;
    }
    for layout in [Layout::ScriptAlias, Layout::UserDir, Layout::Hosted] {
        let user = HostUser::new();
        user.make_venv();
        user.file("site/shows.py", SHOWS);
        let directory = user.path(layout.directory());
        let first = format!("#!{} --mode warm\n", user.path("venv/bin/wsgate").display());
        let script = user.file(&format!("{}/shop.cgi", layout.directory()), &(first + SHOWS));
        fs::set_permissions(&script, Permissions::from_mode(0o755)).unwrap();
        user.wsgate(&["init", script.to_str().unwrap()]);
        put_hidden(&directory);
        user.give_all(&directory);
        let host = SharedHost::start(layout, &user);
        let mount = layout.mount(&user).replace("app.wsgi", "shop.cgi");
        let shown = host.get(&format!("{mount}/a%20b/c")).run().expect(200).json();
        assert_eq!((&shown["SCRIPT_NAME"], &shown["PATH_INFO"]), (&mount.into(), &"/a b/c".into()));
        let own = format!("{}/shop.cgi", layout.root(&user));
        let text = host.get(&own).run().text();
        assert!(!text.contains("import json"), "{text}");
        shows_nothing_private(&host, &user);
    }
}

#[test]
fn an_application_that_is_not_there_is_refused() {
    if !is_root() {
        return;
    }
    let account = Account::new();
    account.user.file("shop.py", "app = 1\n");
    account.user.file("stars.py", "from shop import *\n");
    account.user.file("project/src/pkg/__init__.py", "app = 1\n");
    for app in ["shop.py:nope", "shop:nope", "shop:nope()"] {
        let ended = account.wsgate(&format!("init public_html --app '{app}'"));
        is_refused(&ended, 2, "shop.py` does not define `nope`");
        assert!(ended.stderr.contains("hint: the file defines `app`"), "{}", ended.stderr);
    }
    let ended = account.wsgate("init public_html --app \"$(printf 'a\\377.py')\"");
    assert_eq!(ended.code(), Some(2));
    assert!(ended.stderr.contains(".py` is not UTF-8: rename the file"), "{}", ended.stderr);
    assert_eq!(account.wsgate("init --dry-run public_html --app stars.py:app").code(), Some(0));
    let program = account.dir.wsgate();
    for app in ["", "--app pkg:app"] {
        let line =
            format!("cd project && {} init --dry-run ../public_html {app}", program.display());
        let text = account.shell(&line);
        assert!(text.contains("/project/src --chdir "), "{text}");
    }
}

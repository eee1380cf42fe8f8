//! A shared host as it is: an account without root, Apache with suexec, at most 100 processes, and
//! what `wsgate init` writes there.
//!
//! Only root can make accounts, so that these tests need it.

mod host_user;
mod init;
mod init_code;
mod replaced;

use std::{
    fmt::Write as _,
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt as _, chown},
    path::Path,
    process::Command,
};

use crate::{
    shared_host::host_user::HostUser,
    support::{
        child_process::run,
        web_servers::{
            HttpClient, WebSite,
            apache::{MPM_EVENT, httpd, preamble},
            eventually,
            server::ServerProcess,
        },
    },
    web_servers::exposure::{HIDDEN, SECRET, put_hidden},
};

/// The ways in which hosts serve the files of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// `~/cgi-bin` at `/cgi-bin/`.
    ScriptAlias,
    /// `~/public_html` at `/~user/`, with mod_userdir.
    UserDir,
    /// `~/public_html` as the root of a host, as with cPanel.
    Hosted,
}

impl Layout {
    /// The directory of the user that the web server shows.
    fn directory(self) -> &'static str {
        match self {
            Self::ScriptAlias => "cgi-bin",
            Self::UserDir | Self::Hosted => "public_html",
        }
    }

    /// The URL path of the application.
    fn mount(self, user: &HostUser) -> String {
        match self {
            Self::ScriptAlias => "/cgi-bin/app.wsgi".to_owned(),
            Self::UserDir => format!("/~{}", user.name),
            Self::Hosted => String::new(),
        }
    }

    /// The URL path of the directory.
    fn root(self, user: &HostUser) -> String {
        match self {
            Self::ScriptAlias => "/cgi-bin".to_owned(),
            Self::UserDir | Self::Hosted => self.mount(user),
        }
    }

    /// The part of Apache's configuration that a host writes for `user`.
    fn configuration(self, user: &HostUser) -> String {
        let name = &user.name;
        let directory = user.path(self.directory());
        let directory = directory.display();
        let (override_, rest) = match self {
            Self::ScriptAlias => (
                "FileInfo AuthConfig",
                format!("SuexecUserGroup {name} {name}\nScriptAlias /cgi-bin/ {directory}/\n"),
            ),
            Self::UserDir => (
                "FileInfo AuthConfig Indexes Options=ExecCGI,MultiViews",
                "UserDir public_html\n".to_owned(),
            ),
            Self::Hosted => (
                "All",
                format!(
                    "SuexecUserGroup {name} {name}\nDocumentRoot {directory}\n\
                     AddHandler cgi-script .cgi .pl\nAddHandler fcgid-script .fcgi\n"
                ),
            ),
        };
        format!(
            "{rest}<Directory {directory}>\n    AllowOverride {override_}\n    \
             Options +Indexes +SymLinksIfOwnerMatch\n    Require all granted\n</Directory>\n"
        )
    }
}

/// An Apache with the account of a user.
struct SharedHost {
    server: ServerProcess,
    layout: Layout,
    // The server stops first.
    site: WebSite,
}

impl SharedHost {
    fn start(layout: Layout, user: &HostUser) -> Self {
        let site = WebSite::new();
        let server = httpd(&site, |port| {
            let modules =
                [MPM_EVENT, "cgid", "alias", "userdir", "rewrite", "suexec", "autoindex", "fcgid"];
            let mut text = preamble(&site, port, &modules).replace("Suexec Off", "Suexec On");
            let run = site.path("run").display().to_string();
            write!(
                text,
                "ScriptSock {run}/cgid.sock\nFcgidIPCDir {run}/fcgid\n\
                 FcgidProcessTableFile {run}/fcgid.shm\nRLimitNPROC 100 100\n"
            )
            .unwrap();
            text + &layout.configuration(user)
        });
        Self { server, layout, site }
    }

    fn get(&self, path: &str) -> HttpClient {
        HttpClient::get(self.server.url(path))
    }
}

/// May the tests make accounts?
fn is_root() -> bool {
    rustix::process::getuid().is_root()
}

/// Shows what an application finds, and fails at `/raises`.
const SHOWS: &str = "\
import json, os


def application(environ, start_response):
    if environ['PATH_INFO'] == '/raises':
        raise ValueError('for the log')
    names = ['SCRIPT_NAME', 'PATH_INFO', 'HTTP_AUTHORIZATION']
    shown = {name: environ.get(name) for name in names}
    shown.update(uid=os.getuid(), cold=environ['wsgi.run_once'], cwd=os.getcwd())
    start_response('200 OK', [('Content-Type', 'application/json')])
    return [json.dumps(shown).encode()]
";

/// What `wsgate init` writes works in `layout`, shows nothing private, and logs where it says.
fn serves(layout: Layout, mode: &str) {
    if !is_root() {
        return;
    }
    let user = HostUser::new();
    user.make_venv();
    let app = user.file("site/shows.py", SHOWS);
    let directory = user.path(layout.directory());
    let dir = directory.to_str().unwrap();
    user.directory(&directory);
    let said = user.wsgate(&["init", dir, "--app", app.to_str().unwrap(), "--mode", mode]);
    assert!(said.contains(&format!("wrote {dir}/app.wsgi (mode 755)")), "{said}");
    put_hidden(&directory);
    fs::create_dir_all(directory.join("static")).unwrap();
    fs::write(directory.join("static/style.css"), "p {}\n").unwrap();
    user.give_all(&directory);
    fs::set_permissions(directory.join("static"), Permissions::from_mode(0o755)).unwrap();

    let host = SharedHost::start(layout, &user);
    let mount = layout.mount(&user);
    let ask = || {
        let request = host.get(&format!("{mount}/a%20b/c?q=1")).auth("me", "secret");
        request.run().expect(200).json()
    };
    let shown = ask();
    let uid = std::os::unix::fs::MetadataExt::uid(&fs::metadata(&app).unwrap());
    assert_eq!((&shown["uid"], &shown["PATH_INFO"]), (&uid.into(), &"/a b/c".into()), "{shown}");
    assert_eq!(shown["SCRIPT_NAME"], mount, "{shown}");
    assert_eq!(shown["HTTP_AUTHORIZATION"], "Basic bWU6c2VjcmV0", "{shown}");
    assert_eq!(shown["cwd"], user.path("site").to_str().unwrap(), "{shown}");
    if mode != "cold" {
        eventually("the pool serves", || ask()["cold"] == false);
    }
    if layout != Layout::ScriptAlias {
        let style = host.get(&format!("{mount}/static/style.css")).run().expect(200);
        assert_eq!(style.text(), "p {}\n");
    }
    host.get(&format!("{mount}/raises")).run().expect(500);
    let log = user.path(&format!("wsgate-apps/{}/error.log", layout.directory()));
    let messages = fs::read_to_string(&log).unwrap();
    assert!(messages.contains("W0501") && messages.contains("for the log"), "{messages}");
    assert_eq!(fs::metadata(&log).unwrap().permissions().mode() & 0o777, 0o600);
    shows_nothing_private(&host, &user);
}

/// Nobody can fetch sources, settings, databases and leftovers in the directory.
fn shows_nothing_private(host: &SharedHost, user: &HostUser) {
    let root = host.layout.root(user);
    let dir = host.layout.directory();
    for file in HIDDEN.iter().chain(&["app.wsgi", "static/../app.py", ""]) {
        let file = file.replace('#', "%23");
        for path in [format!("{root}/{file}"), format!("{root}/{}", file.replace('.', "%2e"))] {
            let text = host.get(&path).run().text();
            let is_shown = text.contains(SECRET) || text.contains("Written by");
            assert!(!is_shown && !text.contains("Index of"), "{path}: {text}");
        }
    }
    for private in [format!("wsgate-apps/{dir}/error.log"), "site/shows.py".to_owned()] {
        let path = format!("{root}/../{private}").replace("..", "%2e%2e");
        assert!(!host.get(&path).run().text().contains("for the log"), "{path}");
    }
    assert!(Path::new(&user.path("site/shows.py")).exists());
    let log = host.server.log();
    assert!(!log.contains("suexec failure"), "{log}");
    assert!(host.site.path("run").exists());
}

#[test]
fn a_cgi_bin_serves_the_application_cold() {
    serves(Layout::ScriptAlias, "cold");
}

#[test]
fn a_cgi_bin_serves_the_application_warm() {
    serves(Layout::ScriptAlias, "warm");
}

#[test]
fn a_directory_of_mod_userdir_serves_the_application_cold() {
    serves(Layout::UserDir, "cold");
}

#[test]
fn a_directory_of_mod_userdir_serves_the_application_warm() {
    serves(Layout::UserDir, "warm");
}

#[test]
fn the_root_of_a_host_serves_the_application_cold() {
    serves(Layout::Hosted, "cold");
}

#[test]
fn the_root_of_a_host_serves_the_application_warm() {
    serves(Layout::Hosted, "warm");
}

#[test]
fn the_root_of_a_host_serves_the_application_by_a_resident_pool() {
    serves(Layout::Hosted, "resident");
}

/// The commands that the page begins with, as they stand there.
#[test]
fn the_commands_of_the_page_make_a_site_that_is_served_warm() {
    if !is_root() {
        return;
    }
    let page = include_str!("../../docs/shared-hosting.md");
    let commands: Vec<&str> =
        page.lines().filter_map(|line| line.strip_prefix("    ")).take(3).collect();
    let [venv, install, init] = commands[..] else { panic!("{commands:?}") };
    let user = HostUser::new();
    let public = user.path("public_html");
    user.directory(&public);
    user.wheel();
    // The packages are those that tests/setup.sh has fetched.
    let offline = format!("--no-index --find-links {} ./wsgate-*.whl", wheels().display());
    let install = install.replace("./wsgate-*.whl", &offline);
    assert!(install.contains(&offline), "{install}");
    for command in [venv, install.as_str(), init] {
        let ended = user.run(&["/bin/sh", "-c", command]);
        assert_eq!(ended.code(), Some(0), "{command}: {} {}", ended.text(), ended.stderr);
    }
    let listed = user.run(&["/bin/sh", "-c", "~/venv/bin/pip show --files wsgate"]).text();
    assert!(listed.contains("/wsgate/libwsgate_engine.so"), "{listed}");
    let app = fs::read_to_string(user.path("wsgate-apps/public_html/app.py")).unwrap();
    assert!(app.contains("from flask import Flask"), "{app}");
    let host = SharedHost::start(Layout::Hosted, &user);
    for _ in 0..2 {
        assert_eq!(host.get("/").run().expect(200).text(), "Hello from Flask\n");
    }
    eventually("the pool serves", || user.wsgate(&["status", "--json"]).contains("\"warm-app-"));
    assert_eq!(host.get("/").run().expect(200).text(), "Hello from Flask\n");
    // Far fewer than the 100 processes that the host allows.
    assert!((3..10).contains(&user.processes().len()), "{:?}", user.processes());
    let found = user.wsgate(&["check", public.join("app.wsgi").to_str().unwrap()]);
    assert!(found.ends_with("\nno problem was found\n"), "{found}");
}

/// Fails if anybody but the owner runs it.
const OF_OWNER: &str = "\
import os, pwd
owner = pwd.getpwuid(os.stat(__file__).st_uid)
assert os.getresuid() == (owner.pw_uid,) * 3 and os.getresgid() == (owner.pw_gid,) * 3
assert os.getgroups() == [owner.pw_gid] and os.environ['HOME'] == owner.pw_dir
from wsgiref.simple_server import demo_app as application
";

#[test]
fn a_check_by_root_loads_the_application_of_a_user_as_that_user() {
    if !is_root() {
        return;
    }
    let user = HostUser::new();
    user.make_venv();
    let wsgate = user.path("venv/bin/wsgate");
    for (file, options) in
        [("public_html/app.wsgi", &[][..]), ("app.wsgi", &["--user", &user.name])]
    {
        let first = format!("#!{} --mode warm\n", wsgate.display());
        let script = user.file(file, &(first + OF_OWNER));
        fs::set_permissions(&script, Permissions::from_mode(0o755)).unwrap();
        let mut check = Command::new(&wsgate);
        let ended = run(check.arg("check").args(options).arg(&script), "");
        let text = ended.text();
        assert_eq!(ended.code(), Some(0), "{text} {}", ended.stderr);
        assert!(text.contains(&format!("note           {} loads the app", user.name)), "{text}");
        assert!(text.contains("a warm pool without requests"), "{text}");
    }
}

#[test]
fn a_check_names_the_group_that_suexec_refuses() {
    if !is_root() {
        return;
    }
    let user = HostUser::new();
    user.make_venv();
    let wsgate = user.path("venv/bin/wsgate").display().to_string();
    let script = user.file("public_html/app.wsgi", &format!("#!{wsgate}\n{SHOWS}"));
    fs::set_permissions(&script, Permissions::from_mode(0o755)).unwrap();
    user.file("public_html/.htaccess", "Options +ExecCGI\nAddHandler cgi-script .wsgi\n");
    let host = SharedHost::start(Layout::Hosted, &user);
    host.get("/app.wsgi").run().expect(200);
    let public = user.path("public_html");
    chown(&public, None, Some(1)).unwrap();
    host.get("/app.wsgi").run().expect(500);
    let check = [wsgate.as_str(), "check", script.to_str().unwrap()];
    let ended = user.run(&check);
    let said = format!("belongs to group daemon, not to {0}, the group of {0}: suexec", user.name);
    assert!(ended.text().contains(&said) && ended.code() == Some(1), "{}", ended.text());
    // A host whose web server enters directories by their group.
    fs::set_permissions(&public, Permissions::from_mode(0o750)).unwrap();
    assert_eq!(user.run(&check).code(), Some(0), "{}", user.run(&check).text());
}

/// The packages for this test, which `tests/setup.sh` fetches.
fn wheels() -> std::path::PathBuf {
    crate::support::web_servers::venv().with_file_name("wheels")
}

/// The script of a long-lived process, as the page shows it for mod_fcgid.
#[test]
fn a_script_of_mod_fcgid_runs_as_its_user_with_one_changed_line() {
    if !is_root() {
        return;
    }
    let user = HostUser::new();
    user.make_venv();
    let wsgate = user.path("venv/bin/wsgate");
    let script = user.file(
        "public_html/app.fcgi",
        &format!("#!{} --error-log ../fcgi.log\n{SHOWS}", wsgate.display()),
    );
    fs::set_permissions(script, Permissions::from_mode(0o755)).unwrap();
    user.file("public_html/.htaccess", "Options +ExecCGI\n");
    let host = SharedHost::start(Layout::Hosted, &user);
    let shown = host.get("/app.fcgi/a").run().expect(200).json();
    let uid = std::os::unix::fs::MetadataExt::uid(&fs::metadata(&wsgate).unwrap());
    assert_eq!((&shown["uid"], &shown["PATH_INFO"]), (&uid.into(), &"/a".into()), "{shown}");
    host.get("/app.fcgi/raises").run().expect(500);
    let log = fs::read_to_string(user.path("fcgi.log")).unwrap();
    assert!(log.contains("W0501"), "{log}");
}

//! Files that clients cannot fetch: sources, settings, databases and leftovers, in every directory
//! of an application.

use std::{
    fs::{
        Permissions, {self},
    },
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::fs::PermissionsExt as _,
    path::Path,
};

use crate::support::web_servers::{Apache, ApacheSetup, CgiModule, WebServer, WebSite, source};

/// Stands in each file that nobody may see.
pub(crate) const SECRET: &str = "do-not-show";

/// Files beside an application, its own or left by tools.
pub(crate) const HIDDEN: [&str; 49] = [
    ".env",
    ".env.local",
    ".htaccess",
    ".htpasswd",
    ".git/config",
    ".git/x.css",
    ".svn/entries",
    ".hg/hgrc",
    ".venv/bin/python",
    ".venv/pyvenv.cfg",
    ".app.wsgi.swp",
    ".DS_Store",
    "#app.wsgi#",
    "app.wsgi~",
    "app.wsgi.bak",
    "app.wsgi.orig",
    "app.wsgi.save",
    "app.wsgi.txt.old",
    "app.py",
    "manage.py",
    "djangosite/settings.py",
    "djangosite/settings.py~",
    "djangosite/__pycache__/settings.cpython-311.pyc",
    "__pycache__/x.js",
    "module.pyc",
    "native.so",
    "db.sqlite3",
    "db.sqlite3-journal",
    "db.sqlite3-wal",
    "data.db",
    "dump.sql",
    "dump.sql.gz",
    "backup.tar.gz",
    "backup.zip",
    "site.tgz",
    "settings.ini",
    "setup.cfg",
    "pyproject.toml",
    "config.yaml",
    "config.yml",
    "requirements.in",
    "Pipfile",
    "Pipfile.lock",
    "Makefile",
    "error.log",
    "error.log.1",
    "key.pem",
    "node_modules/x/index.js",
    "templates/page.jinja",
];

/// Ways to ask for `file`, all of which lead to the same one or to none.
fn ways_to(file: &str) -> Vec<String> {
    let last = file.rsplit('/').next().unwrap();
    let encoded: String = file.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let plain = file.replace('#', "%23");
    let mut ways = vec![
        encoded.replace("%2f", "/"),
        encoded,
        plain.replace('.', "%2e"),
        plain.replace('.', "%2E"),
        plain.replace('/', "//"),
        format!("./{plain}"),
        format!("x/../{plain}"),
        format!("x/%2e%2e/{plain}"),
        format!("static/../{plain}"),
        format!("static/%2e%2e/{plain}"),
        format!("/{plain}"),
        format!("{plain}."),
        format!("{plain}/"),
        format!("{plain}/x"),
        format!("{plain}/x.css"),
        format!("{plain}/app.wsgi"),
        format!("{plain}/%0a"),
        format!("{plain}%0a"),
        format!("{plain}%00"),
        format!("{plain}%20"),
        format!("{plain};x=1"),
        format!("{plain}%3fx"),
        format!("{plain}?x.css"),
        plain.to_uppercase(),
        plain.clone(),
    ];
    // The name without its suffix, which some servers complete.
    ways.extend(last.rsplit_once('.').map(|(stem, _)| plain.replace(last, stem)));
    ways
}

/// Puts a file everybody on the machine may read below `directory`.
pub(super) fn put(directory: &Path, file: &str, text: &str) {
    let path = directory.join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
}

/// All that is hidden.
pub(crate) fn put_hidden(directory: &Path) {
    for file in HIDDEN {
        if !directory.join(file).exists() {
            // A server reads some of them, as comments.
            put(directory, file, &format!("# {SECRET}\n"));
        }
    }
    // A program prints the secret, if a server runs it.
    let program = format!("#!/bin/sh\necho; echo {SECRET}\n");
    for file in ["app.wsgi.bak", ".venv/bin/python", "manage.py"] {
        put(directory, file, &program);
        fs::set_permissions(directory.join(file), Permissions::from_mode(0o755)).unwrap();
    }
}

/// An application that costs little, since it is asked more than a thousand times.
pub(super) fn put_application(directory: &Path) {
    put(
        directory,
        "app.wsgi",
        "#!/bin/sh\necho 'Content-Type: text/plain'; echo; echo \"the application at \
            ${REQUEST_URI#/~alice}\"\n",
    );
    fs::set_permissions(directory.join("app.wsgi"), Permissions::from_mode(0o755)).unwrap();
}

/// Asks as it stands here, which clients would put right; the whole response.
pub(super) fn ask(web_server: &dyn WebServer, method: &str, path: &str) -> String {
    let url = web_server.url("");
    let mut connection = TcpStream::connect(url.strip_prefix("http://").unwrap()).unwrap();
    write!(connection, "{method} {path} HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n").unwrap();
    let mut response = Vec::new();
    // A server may reset the connection behind a response to a request that it has not read to its
    // end.
    let _ = connection.read_to_end(&mut response);
    String::from_utf8_lossy(&response).into_owned()
}

/// Fails if one of the files below `address` is shown, however it is asked for.
pub(super) fn shows_nothing(web_server: &dyn WebServer, address: &str, files: &[&str]) {
    for file in files {
        let requests = ways_to(file).into_iter().map(|way| ("GET", way));
        for (method, way) in requests.chain([("POST", file.replace('#', "%23"))]) {
            let response = ask(web_server, method, &format!("{address}/{way}"));
            assert!(!response.contains(SECRET), "{method} {address}/{way}: {response}");
            assert!(response.starts_with("HTTP/1."), "{method} {address}/{way}: {response:?}");
        }
    }
    // A directory is no list of what lies in it.
    for directory in ["", "djangosite", "static", ".git", ".well-known", "__pycache__"] {
        for path in [format!("{address}/{directory}/"), format!("{address}/{directory}")] {
            let response = ask(web_server, "GET", &path);
            for name in ["settings.py", "sqlite3", "style.css", "Index of"] {
                assert!(!response.contains(name), "{path}: {response}");
            }
        }
    }
}

pub(super) fn gets(web_server: &dyn WebServer, path: &str, status: u16, text: &str) {
    let response = ask(web_server, "GET", path);
    let is_so = response.split(' ').nth(1) == Some(&status.to_string());
    assert!(is_so && response.contains(text), "{path}: {response}");
}

/// Alice's pages with an application, its sources and all else among them.
fn alice() -> WebSite {
    let site = WebSite::new();
    let pages = site.path("home/alice/public_html");
    fs::create_dir_all(&pages).unwrap();
    fs::copy(source("apache/public_html.htaccess"), pages.join(".htaccess")).unwrap();
    let rules = fs::read_to_string(pages.join(".htaccess")).unwrap();
    put(&pages, ".htaccess", &format!("# {SECRET}\n{rules}"));
    put_hidden(&pages);
    put_application(&pages);
    put_static(&pages);
    site
}

/// Files for clients, and others among them.
fn put_static(pages: &Path) {
    for file in STATIC {
        put(&pages.join("static"), file, "as it is");
    }
    for file in hidden_among_static() {
        put(pages, &file, &format!("# {SECRET}\n"));
    }
    put(&pages.join("static"), "x.wsgi", &format!("#!/bin/sh\necho; echo {SECRET}\n"));
    fs::set_permissions(pages.join("static/x.wsgi"), Permissions::from_mode(0o755)).unwrap();
    put(pages, ".well-known/acme-challenge/Zx_-9", "as it is");
    put(pages, ".well-known/x.css", "as it is");
    put(pages, "static.css", SECRET);
    put(pages, "favicon.ico", "as it is");
}

const STATIC: [&str; 4] = ["style.css", "app/main.min.js", "img/a b.PNG", "index.html"];

/// Hidden files among static ones: all but scripts of pages.
fn hidden_among_static() -> Vec<String> {
    HIDDEN
        .iter()
        .filter(|file| !file.ends_with(".js"))
        .map(|file| format!("static/{file}"))
        .collect()
}

fn shows_what_is_static(web_server: &dyn WebServer, address: &str) {
    for file in STATIC {
        gets(
            web_server,
            &format!("{address}/static/{}", file.replace(' ', "%20")),
            200,
            "as it is",
        );
    }
    gets(web_server, &format!("{address}/favicon.ico"), 200, "as it is");
    gets(web_server, &format!("{address}/.well-known/acme-challenge/Zx_-9"), 200, "as it is");
    let files = hidden_among_static();
    let files: Vec<&str> =
        files.iter().map(String::as_str).chain(["static/x.wsgi", "static.css"]).collect();
    shows_nothing(web_server, address, &files);
}

fn hides_all_but_the_application(module: CgiModule, setup: ApacheSetup, address: &str) {
    let web_server = Apache::start(module, setup, alice());
    gets(&web_server, &format!("{address}/"), 200, "the application");
    gets(&web_server, &format!("{address}/app.wsgi/x"), 200, "the application");
    // Also what is the name of a file; of some, the server's own side refuses these.
    for file in [
        "djangosite/settings.py",
        "setup.cfg",
        "a%0Ab",
        "static/absent.css",
        "static/",
        "x.log",
        ".x/y",
    ] {
        gets(&web_server, &format!("{address}/{file}"), 200, "the application");
    }
    // And what is the name of a directory, or the beginning of one of a file.
    for file in ["djangosite", "static", "static?x", "setup", "djangosite/settings", "setup/x"] {
        gets(
            &web_server,
            &format!("{address}/{file}"),
            200,
            &format!("the application at /{file}\n"),
        );
    }
    if !address.is_empty() {
        gets(&web_server, address, 301, &format!("{address}/\r\n"));
    }
    shows_nothing(&web_server, address, &HIDDEN);
    shows_what_is_static(&web_server, address);
}

#[test]
fn behind_htaccess_only_the_application_and_static_files_can_be_requested() {
    hides_all_but_the_application(CgiModule::Cgid, ApacheSetup::PublicHtml, "/~alice");
}

/// The host allows everything: overrides, directory listings, guessed names, paths after files.
#[test]
fn at_a_hosts_root_only_the_application_and_static_files_can_be_requested() {
    hides_all_but_the_application(CgiModule::Cgi, ApacheSetup::Hosted, "");
}

/// The server's side alone, for users without an `.htaccess`: pages are sent, and what is never one
/// is not.
#[test]
fn in_public_html_hidden_files_leftovers_and_databases_are_not_sent() {
    let site = WebSite::new();
    let pages = site.path("home/alice/public_html");
    put_hidden(&pages);
    put(&pages, "page.html", "as it is");
    put(&pages, ".well-known/acme-challenge/Zx_-9", "as it is");
    let web_server = Apache::start(CgiModule::Cgid, ApacheSetup::PublicHtml, site);
    gets(&web_server, "/~alice/page.html", 200, "as it is");
    gets(&web_server, "/~alice/.well-known/acme-challenge/Zx_-9", 200, "as it is");
    let is_page = |file: &str| {
        let types = [
            "py", "ini", "cfg", "toml", "yaml", "yml", "in", "lock", "gz", "zip", "tgz", "pem",
            "jinja", "so",
        ];
        let last = file.rsplit(['.', '/']).next().unwrap();
        !file.contains("/.")
            && (types.contains(&last) || ["Pipfile", "Makefile", "1"].contains(&last))
    };
    let files: Vec<&str> = HIDDEN.into_iter().filter(|file| !is_page(file)).collect();
    assert!(files.len() > 25, "{files:?}");
    shows_nothing(&web_server, "/~alice", &files);
}

#[test]
fn among_pages_only_wsgi_files_and_pages_can_be_requested() {
    let site = WebSite::new();
    let pages = site.path("htdocs");
    put_hidden(&pages);
    for file in STATIC {
        put(&pages.join("sub"), file, "as it is");
    }
    let named = ["robots.txt", "sitemap.xml", "sub/manifest.json", ".well-known/security.txt"];
    for file in named.into_iter().chain([".well-known/acme-challenge/Zx_-9"]) {
        put(&pages, file, "as it is");
    }
    let settings =
        ["credentials.json", "sub/settings.xml", "requirements.txt", "xrobots.txt", ".robots.txt"];
    for file in settings {
        put(&pages, file, SECRET);
    }
    let web_server = Apache::start(CgiModule::Cgid, ApacheSetup::Action, site);
    for file in STATIC {
        gets(&web_server, &format!("/sub/{}", file.replace(' ', "%20")), 200, "as it is");
    }
    gets(&web_server, "/sub/", 200, "as it is");
    for file in named.into_iter().chain([".well-known/acme-challenge/Zx_-9"]) {
        gets(&web_server, &format!("/{file}"), 200, "as it is");
    }
    shows_nothing(&web_server, "", &HIDDEN);
    shows_nothing(&web_server, "", &settings);
}

/// cgi-bin in public_html: at `/cgi-bin/` programs are run, and under its second address files are
/// sent.
#[test]
fn a_cgi_bin_within_pages_shows_nothing_at_its_second_address() {
    let site = alice();
    let scripts = site.path("home/alice/public_html/cgi-bin");
    put_hidden(&scripts);
    let rules = fs::read_to_string(source("apache/cgi-bin.htaccess")).unwrap();
    put(&scripts, ".htaccess", &format!("# {SECRET}\n{rules}"));
    put_application(&scripts);
    put(&scripts, "text.wsgi", SECRET);
    let web_server = Apache::start(CgiModule::Cgid, ApacheSetup::Hosted, site);
    gets(&web_server, "/cgi-bin/app.wsgi/x", 200, "the application");
    for address in ["/cgi-bin", "/second/cgi-bin"] {
        shows_nothing(&web_server, address, &HIDDEN);
        shows_nothing(&web_server, address, &["text.wsgi"]);
    }
}

/// The sample for Django in cgi-bin of a host whose cgi-bin is among its pages.
#[test]
fn the_django_sample_keeps_its_data_out_of_all_pages() {
    let site = WebSite::new();
    let scripts = site.path("home/alice/public_html/cgi-bin");
    fs::create_dir_all(&scripts).unwrap();
    let copy = |data: Option<&Path>, document_root: Option<&Path>| {
        let mut command = site.as_server(crate::support::web_servers::venv().join("bin/python"));
        command
            .args(["-c", "import djangosite.settings as s; print(s.DATABASES['default']['NAME'])"]);
        command.env("PYTHONPATH", source("cgi-bin")).env("PYTHONDONTWRITEBYTECODE", "1");
        command.env("HOME", site.path("var"));
        for (name, value) in [("DJANGO_DATA", data), ("DOCUMENT_ROOT", document_root)] {
            command.envs(value.map(|value| (name, value)));
        }
        let output = command.output().unwrap();
        (
            output.status.success(),
            String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(),
        )
    };
    let database = site.path("var/.local/share/djangosite/django.sqlite3");
    let (pages, var) = (site.path("home/alice/public_html"), site.path("var"));
    assert_eq!(copy(None, Some(&pages)), (true, format!("{}\n", database.display())));
    let mode = fs::metadata(database.parent().unwrap()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "{mode:o}");
    assert!(copy(Some(&var), Some(&pages)).0);
    let (is_accepted, said) = copy(Some(&var.join("x")), Some(&var));
    assert!(!is_accepted && said.contains("clients could fetch the database"), "{said}");
}

/// Apache sends the text of scripts for which it has no module.
#[test]
fn without_a_module_for_cgi_apache_does_not_start() {
    for file in ["scriptalias.conf", "action.conf", "public_html.conf"] {
        let said = Apache::refuses_without_cgi(file);
        assert!(said.contains("wsgate needs mod_cgid or mod_cgi"), "{file}: {said}");
    }
}

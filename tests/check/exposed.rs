//! Files below a document root that clients could fetch.

use std::{fs, os::unix::fs::symlink, path::Path, process::Command};

use crate::{
    check::{CheckSite, HELLO, first_line::mend, only_problem},
    support::{child_process::ExitedProcess, probe::python},
};

/// A script in a document root, beside files of each kind.
fn site() -> CheckSite {
    let site = CheckSite::new();
    site.dir.script("public_html/app.wsgi", "#!WSGATE", HELLO);
    site.dir.file("public_html/static/style.css", "");
    site
}

#[track_caller]
fn check(site: &CheckSite) -> ExitedProcess {
    site.check(&[site.dir.path("public_html/app.wsgi").to_str().unwrap()])
}

#[test]
fn a_script_with_static_files_exposes_nothing() {
    let ended = check(&site());
    assert_eq!(ended.code(), Some(0), "{}", ended.text());
    assert!(ended.text().ends_with("\nno problem was found\n"), "{}", ended.text());
}

#[test]
fn each_kind_of_private_file_is_a_problem_and_the_hint_mends_it() {
    for (name, kind) in [
        ("settings.py", "source"),
        ("package/views.py", "source"),
        ("app.wsgi.bak", "source"),
        ("db.sqlite3", "database"),
        ("backup.sql.gz", "database"),
        (".env", "secret"),
        ("keys/server.pem", "secret"),
        ("development.ini", "settings"),
        (".git/config", "repository"),
        ("debug.log", "log"),
    ] {
        let site = site();
        let file = site.dir.file(&format!("public_html/{name}"), "");
        let ended = check(&site);
        only_problem(&ended, "clients can fetch files of the application, below the document root");
        let shown = if kind == "repository" { file.parent().unwrap() } else { &file };
        let line = format!("\n               {kind}: {}\n", shown.display());
        assert!(ended.text().contains(&line), "{name}: {}", ended.text());
        mend(&ended);
        assert_eq!(check(&site).code(), Some(0), "{name}: {}", check(&site).text());
    }
}

#[test]
fn an_htaccess_file_that_denies_is_respected() {
    let shipped = |name: &str| {
        fs::read_to_string(format!("{}/apache/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
    };
    for (text, denies) in [
        ("Require all denied\n<Files \"app.wsgi\">\nRequire all granted\n</Files>\n", true),
        ("<FilesMatch \"\\.(py|sqlite3)$\">\n  Require all denied\n</FilesMatch>\n", true),
        (
            "<Files *.py>\nOrder allow,deny\nDeny from all\n</Files>\n<Files *.sqlite3>\nDeny from \
         all\n</Files>\n",
            true,
        ),
        ("RedirectMatch 404 \"\\.(py|sqlite3)$\"\n", true),
        ("Redirect 404 /settings.py\nRedirect gone /data\n", true),
        ("Redirect 404 /settings\nRedirect gone /data\n", false),
        ("Redirect 404\n", false),
        ("Redirect /settings.py http://localhost/\nRedirect gone /data\n", false),
        ("<Limit GET POST>\nRequire all denied\n</Limit>\n", true),
        ("<Limit POST>\nRequire all denied\n</Limit>\n", false),
        ("<LimitExcept POST>\nRequire all denied\n</LimitExcept>\n", true),
        ("<LimitExcept GET POST>\nRequire all denied\n</LimitExcept>\n", false),
        ("RewriteEngine On\nRewriteRule \"\\.(py|sqlite3)$\" - [F]\n", true),
        ("RewriteEngine On\nRewriteRule ^(.*)$ app.wsgi/$1 [L]\n", true),
        (
            "RewriteEngine On\nRewriteCond %{REQUEST_URI} \\.py$ [OR]\nRewriteCond %{REQUEST_URI} \
             \\.sqlite3$\nRewriteRule ^ - [F]\n",
            true,
        ),
        (&shipped("public_html.htaccess"), true),
        (&shipped("cgi-bin.htaccess"), true),
        ("RedirectMatch\nRedirectMatch 404\nRewriteCond\nRequire all granted\n", false),
        ("Options -Indexes\n", false),
        ("# Require all denied\n", false),
        ("<Files \"other\">\nRequire all denied\n</Files>\n", false),
        ("<IfModule !mod_authz_core.c>\nDeny from all\n</IfModule>\n", false),
        // One of several rules suffices, in any order.
        ("Require all denied\nRequire all granted\n", false),
        ("Require all granted\nRequire all denied\n", false),
        ("<RequireAll>\nRequire all granted\nRequire all denied\n</RequireAll>\n", true),
        ("<RequireAll>\nRequire all granted\nRequire not ip 192.0.2.1\n</RequireAll>\n", false),
        (
            "<Files *>\nRequire all granted\n</Files>\n<Files *>\nRequire all denied\n</Files>\n",
            true,
        ),
        (
            "<Files *>\nRequire all denied\n</Files>\n<Files *>\nRequire all granted\n</Files>\n",
            false,
        ),
        ("Order deny,allow\nDeny from all\nAllow from all\n", false),
        (
            "RewriteEngine On\nRewriteCond %{REQUEST_FILENAME} !-f\nRewriteRule ^(.*)$ \
             app.wsgi/$1 [L]\n",
            false,
        ),
        ("RewriteEngine Off\nRewriteRule ^ - [F]\n", false),
        ("<FilesMatch \"(\">\nRequire all denied\n</FilesMatch>\n", false),
    ] {
        let site = site();
        site.dir.file("public_html/settings.py", "");
        site.dir.file("public_html/data/db.sqlite3", "");
        fs::write(site.dir.path("public_html/.htaccess"), text).unwrap();
        let ended = check(&site);
        assert_eq!(ended.code(), Some(i32::from(!denies)), "{text}\n{}", ended.text());
    }
}

#[test]
fn a_nested_script_that_its_own_htaccess_runs_is_not_exposed() {
    let shipped = |name: &str| {
        fs::read_to_string(format!("{}/apache/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
    };
    for (text, is_run) in [
        (shipped("public_html.htaccess").as_str(), true),
        (&shipped("cgi-bin.htaccess"), true),
        ("AddHandler cgi-script .cgi .wsgi\n", true),
        ("<Files \"*.wsgi\">\nSetHandler fcgid-script\n</Files>\n", true),
        ("AddHandler cgi-script .wsgi\nRemoveHandler .wsgi\n", false),
        ("SetHandler cgi-script\n<Files app.wsgi>\nSetHandler none\n</Files>\n", false),
        ("SetHandler text/plain\nAddHandler cgi-script .wsgi\n", false),
        ("AddHandler\nSetHandler\nAddHandler cgi-script .cgi\n", false),
    ] {
        let site = site();
        let above = "RewriteEngine On\nRewriteRule ^(.*)$ app.wsgi/$1 [L]\n";
        fs::write(site.dir.path("public_html/.htaccess"), above).unwrap();
        site.dir.script("public_html/blog/app.wsgi", "#!WSGATE", HELLO);
        // The rules of the directory above no longer hold here.
        let text = format!("RewriteEngine Off\n{text}");
        fs::write(site.dir.path("public_html/blog/.htaccess"), &text).unwrap();
        let ended = check(&site);
        assert_eq!(ended.code(), Some(i32::from(!is_run)), "{text}\n{}", ended.text());
        // A denial in a front controller would be one for all its URLs.
        let is_appended = ended.text().contains("printf ");
        assert!(!is_appended && (is_run || ended.text().contains("hint: move ")), "{text}");
    }
}

#[test]
fn without_an_htaccess_file_the_hint_is_to_let_wsgate_write_one() {
    let site = site();
    site.dir.file("public_html/.env", "");
    let ended = check(&site);
    only_problem(&ended, "secret: ");
    assert!(ended.text().contains("bin/wsgate init /"), "{}", ended.text());
    mend(&ended);
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/apache/public_html.htaccess");
    let written = fs::read(site.dir.path("public_html/.htaccess")).unwrap();
    assert_eq!(written, fs::read(shipped).unwrap());
    assert_eq!(check(&site).code(), Some(0), "{}", check(&site).text());
}

#[test]
fn a_link_to_a_directory_leads_clients_there_and_may_form_a_loop() {
    let site = site();
    site.dir.file("project/settings.py", "");
    symlink("../project", site.dir.path("public_html/project")).unwrap();
    symlink(".", site.dir.path("public_html/loop")).unwrap();
    let ended = check(&site);
    only_problem(&ended, "public_html/project/settings.py\n");
    mend(&ended);
    assert_eq!(check(&site).code(), Some(0), "{}", check(&site).text());
}

#[test]
fn the_hint_mends_a_site_whose_script_has_any_name() {
    // `.htaccess` names the script, or the script gets the usual name.
    for (name, named) in [
        ("shop-2.wsgi", "shop-2.wsgi"),
        ("index.cgi", "index.cgi"),
        ("it's 100% new.wsgi", "app.wsgi"),
        ("a+b (\"c\").wsgi", "app.wsgi"),
        ("$HOME `x` \u{e9}.wsgi", "app.wsgi"),
    ] {
        let site = CheckSite::new();
        let script = site.dir.script(&format!("public_html/{name}"), "#!WSGATE", HELLO);
        site.dir.file("public_html/settings.py", "");
        let check = |script: &Path| site.check(&[script.to_str().unwrap()]);
        let ended = check(&script);
        only_problem(&ended, "source: ");
        mend(&ended);
        let ended = check(&site.dir.path(&format!("public_html/{named}")));
        assert_eq!(ended.code(), Some(0), "{name}: {}", ended.text());
        let rules = fs::read_to_string(site.dir.path("public_html/.htaccess")).unwrap();
        assert!(rules.contains(&format!("<Files \"{named}\">")), "{rules}");
        let escaped = named.replace('.', "\\.");
        assert!(rules.contains(&format!("RewriteRule \"^{escaped}(?:/|\\z)\" - [L]")), "{rules}");
    }
}

#[test]
fn a_directory_can_be_denied_and_granted_by_its_own_file() {
    let site = site();
    site.dir.file("public_html/private/db.sqlite3", "");
    fs::write(site.dir.path("public_html/private/.htaccess"), "Require all denied\n").unwrap();
    assert_eq!(check(&site).code(), Some(0), "{}", check(&site).text());
    site.dir.file("public_html/private/open/db.sqlite3", "");
    let granted = site.dir.path("public_html/private/open/.htaccess");
    fs::write(granted, "Require all granted\n").unwrap();
    only_problem(&check(&site), "private/open/db.sqlite3");
}

#[test]
fn a_directory_of_programs_is_not_sent_and_gets_a_warning() {
    let site = CheckSite::new();
    let script = site.dir.script("cgi-bin/app.wsgi", "#!WSGATE", HELLO);
    site.dir.file("cgi-bin/settings.py", "");
    let ended = site.check(&[script.to_str().unwrap()]);
    assert_eq!(ended.code(), Some(0), "{}", ended.text());
    assert!(ended.text().ends_with("no problem was found; 1 warning\n"), "{}", ended.text());
}

#[test]
fn a_directory_of_another_name_is_a_document_root_if_it_has_an_htaccess_file() {
    let site = CheckSite::new();
    let script = site.dir.script("shop.example/app.wsgi", "#!WSGATE", HELLO);
    site.dir.file("shop.example/settings.py", "");
    let check = || site.check(&[script.to_str().unwrap()]);
    let text = check().text();
    let note = "shop.example` is not recognised as a document root: ";
    assert!(text.contains(note) && text.ends_with("\nno problem was found\n"), "{text}");
    site.dir.file("shop.example/.htaccess", "Options +ExecCGI\n");
    only_problem(&check(), "source: ");
    assert!(!check().text().contains(note), "{}", check().text());
}

#[test]
fn modules_outside_a_document_root_are_not_exposed() {
    let site = site();
    site.dir.file("lib/helper.py", "");
    let code = format!("import helper\n{}", crate::support::probe::dedent(HELLO));
    site.dir.script("public_html/app.wsgi", "#!WSGATE --path ../lib", &code);
    assert_eq!(check(&site).code(), Some(0), "{}", check(&site).text());
}

#[test]
fn a_virtualenv_in_a_document_root_is_a_problem() {
    for directory in ["public_html", "cgi-bin"] {
        let site = CheckSite::new();
        let script = site.dir.script(&format!("{directory}/app.wsgi"), "#!WSGATE", HELLO);
        let venv = site.dir.path(&format!("{directory}/venv"));
        let made = Command::new(python())
            .args(["-m", "venv", "--without-pip"])
            .arg(&venv)
            .status()
            .unwrap();
        assert!(made.success());
        let ended = site.check(&[script.to_str().unwrap()]);
        only_problem(&ended, &venv.display().to_string());
        assert!(ended.text().contains("name it with --venv DIR"), "{}", ended.text());
    }
}

//! Files that the web server's user could not read.

use std::{
    fs::{
        Permissions, {self},
    },
    os::unix::fs::PermissionsExt as _,
};

use crate::check::{CheckSite, HELLO, line, only_problem};

fn set_mode(site: &CheckSite, relative: &str, mode: u32) {
    fs::set_permissions(site.dir.path(relative), Permissions::from_mode(mode)).unwrap();
}

/// A site with a module beside the script and one below it.
fn site() -> CheckSite {
    let site = CheckSite::new();
    let code = format!("import beside, package.below\n{}", crate::support::probe::dedent(HELLO));
    site.dir.script("site/app.wsgi", "#!WSGATE", &code);
    site.dir.file("site/beside.py", "");
    site.dir.file("site/package/__init__.py", "");
    site.dir.file("site/package/below.py", "");
    site
}

#[test]
fn a_script_that_the_servers_user_could_not_read_is_a_problem() {
    let site = site();
    set_mode(&site, "site/app.wsgi", 0o700);
    let ended = site.check(&["app.wsgi"]);
    only_problem(&ended, "user daemon cannot read");
    assert!(ended.text().contains("site/app.wsgi\n"), "{}", ended.text());
}

#[test]
fn a_module_that_the_servers_user_could_not_read_is_named() {
    let site = site();
    set_mode(&site, "site/beside.py", 0o600);
    let ended = site.check(&["app.wsgi"]);
    only_problem(&ended, "user daemon cannot read");
    let text = ended.text();
    assert!(text.contains("site/beside.py") && !text.contains("below.py"), "{text}");
}

#[test]
fn a_directory_that_the_servers_user_could_not_enter_is_named_instead_of_its_files() {
    let site = site();
    set_mode(&site, "site/package", 0o700);
    let ended = site.check(&["app.wsgi"]);
    only_problem(&ended, "user daemon cannot read");
    let text = ended.text();
    assert!(text.contains("site/package\n") && !text.contains("below.py"), "{text}");
}

#[test]
fn an_engine_and_a_gateway_that_the_servers_user_could_not_read_are_named() {
    let site = site();
    set_mode(&site, "bin", 0o700);
    let ended = site.check(&["app.wsgi"]);
    only_problem(&ended, "user daemon cannot read");
    assert!(
        ended
            .text()
            .lines()
            .any(|line| line.trim_start() == site.dir.path("bin").to_str().unwrap()),
        "{}",
        ended.text()
    );
}

#[test]
fn many_files_that_could_not_be_read_are_counted() {
    let site = site();
    let names: Vec<String> = (0..15).map(|number| format!("module{number}")).collect();
    for name in &names {
        let module = site.dir.file(&format!("site/{name}.py"), "");
        fs::set_permissions(module, Permissions::from_mode(0o600)).unwrap();
    }
    let code = format!("import {}\n{}", names.join(", "), crate::support::probe::dedent(HELLO));
    let ended = site.check_code(&code);
    only_problem(&ended, "and 5 more");
}

#[test]
fn what_everybody_can_read_is_no_problem() {
    let ended = site().check(&["app.wsgi"]);
    assert_eq!(ended.code(), Some(0), "{}", ended.text());
    assert!(line(&ended.text(), "readable ").starts_with("all "), "{}", ended.text());
}

#[test]
fn a_directory_and_a_link_to_nothing_are_called_that() {
    let site = CheckSite::new();
    fs::create_dir(site.dir.path("site/d.wsgi")).unwrap();
    std::os::unix::fs::symlink("nowhere", site.dir.path("site/link.wsgi")).unwrap();
    for (name, said) in [
        ("d.wsgi", "d.wsgi` is a directory, not a WSGI file"),
        ("link.wsgi", "link.wsgi` is a link to `nowhere`, which does not exist"),
    ] {
        for app in [name.to_owned(), format!("./{name}"), format!("{name}:app")] {
            let ended = site.check(&[&app]);
            assert_eq!(ended.code(), Some(78), "{app}: {}", ended.stderr);
            assert!(ended.stderr.contains(said), "{app}: {}", ended.stderr);
            assert!(ended.stderr.contains("\nhint: "), "{app}: {}", ended.stderr);
        }
    }
    // A package may be in a directory whose name has the same beginning.
    site.dir.file("site/d/__init__.py", "");
    site.dir.file("site/d/wsgi.py", HELLO);
    let ended = site.check(&["d.wsgi"]);
    assert_eq!(ended.code(), Some(0), "{}{}", ended.text(), ended.stderr);
}

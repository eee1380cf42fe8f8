//! The user that a script runs as, and what suexec refuses.

use std::{
    fs::{
        Permissions, {self},
    },
    os::unix::fs::{PermissionsExt as _, chown},
    path::Path,
};

use rustix::process::geteuid;

use crate::{
    check::{CheckSite, HELLO, first_line::mend, line, only_problem},
    support::{
        child_process::{
            ExitedProcess, {self},
        },
        probe::dedent,
    },
};

/// A user who is not in passwd(5), as a script's owner.
const PERSON: u32 = 54321;

/// The site of a person. Only root may give files away.
fn site_of_person() -> CheckSite {
    let site = CheckSite::new();
    site.dir.script("public_html/app.wsgi", "#!WSGATE", HELLO);
    for path in ["public_html", "public_html/app.wsgi"] {
        chown(site.dir.path(path), Some(PERSON), Some(PERSON)).unwrap();
    }
    site
}

/// Checks the script without `--user`.
#[track_caller]
fn check(site: &CheckSite) -> ExitedProcess {
    let mut command = site.command_without_user();
    command.arg(site.dir.path("public_html/app.wsgi"));
    child_process::run(&mut command, "")
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn the_owner_of_a_document_root_is_the_user_of_its_scripts() {
    let site = site_of_person();
    for mode in [0o755, 0o700] {
        set_mode(&site.dir.path("public_html/app.wsgi"), mode);
        let ended = check(&site);
        assert_eq!(ended.code(), Some(0), "{mode:o}: {}", ended.text());
        let user = line(&ended.text(), "user ").to_owned();
        assert!(user.starts_with("54321, the owner of the document root"), "{user}");
        assert!(line(&ended.text(), "readable ").ends_with("by user 54321"), "{}", ended.text());
    }
}

#[test]
fn what_suexec_refuses_is_a_problem_and_its_hint_mends_it() {
    for (path, mode, said) in [
        ("public_html/app.wsgi", 0o775, "can be changed by its group (mode 775)"),
        ("public_html/app.wsgi", 0o757, "can be changed by everybody (mode 757)"),
        ("public_html", 0o775, "can be changed by its group (mode 775)"),
        ("public_html/app.wsgi", 0o4755, "is setuid or setgid (mode 4755)"),
    ] {
        let site = site_of_person();
        set_mode(&site.dir.path(path), mode);
        let ended = check(&site);
        only_problem(&ended, said);
        mend(&ended);
        assert_eq!(check(&site).code(), Some(0), "{path}: {}", check(&site).text());
    }
    let site = site_of_person();
    chown(site.dir.path("public_html/app.wsgi"), Some(1), None).unwrap();
    let ended = check(&site);
    only_problem(&ended, "belongs to user 1, not to 54321: suexec refuses it");
    mend(&ended);
    assert_eq!(check(&site).code(), Some(0));
    chown(site.dir.path("public_html/app.wsgi"), None, Some(1)).unwrap();
    let ended = check(&site);
    only_problem(&ended, "belongs to group daemon, not to 54321, the group of 54321");
    mend(&ended);
    assert_eq!(check(&site).code(), Some(0));
}

#[test]
fn a_home_directory_that_the_web_server_cannot_enter_is_a_warning() {
    let site = CheckSite::new();
    site.dir.script("home/public_html/app.wsgi", "#!WSGATE", HELLO);
    let home = site.dir.path("home");
    let root = home.join("public_html");
    let script = root.join("app.wsgi");
    for path in [&home, &root, &script] {
        chown(path, Some(PERSON), Some(PERSON)).unwrap();
    }
    let check = || {
        let mut command = site.command_without_user();
        child_process::run(command.arg(&script), "")
    };
    for (of_home, of_root, is_closed) in
        [(0o700, 0o755, true), (0o711, 0o755, false), (0o700, 0o700, false)]
    {
        set_mode(&home, of_home);
        set_mode(&root, of_root);
        let ended = check();
        let warning =
            format!("warning        the web server may not be able to enter `{}`", home.display());
        let text = ended.text();
        assert_eq!(text.contains(&warning), is_closed, "{of_home:o} {of_root:o}: {text}");
        assert_eq!(ended.code(), Some(0), "{text}");
    }
    let text = check().text();
    assert!(text.contains("only 54321 can enter the document root"), "{text}");
    set_mode(&root, 0o755);
    mend(&check());
    assert!(check().text().ends_with("no problem was found\n"), "{}", check().text());
}

#[test]
fn what_the_web_server_reads_itself_is_checked() {
    for (path, mode, said) in [
        ("public_html", 0o700, "warning        only 54321 can enter the document root `"),
        ("public_html", 0o754, "warning        only 54321 can enter the document root `"),
        ("public_html/.htaccess", 0o600, "may not be able to read `"),
        ("public_html/static", 0o700, "may not be able to read `"),
        ("public_html/static/css/a.css", 0o640, "may not be able to read `"),
    ] {
        let site = site_of_person();
        site.dir.file("public_html/.htaccess", "");
        site.dir.file("public_html/static/css/a.css", "");
        for own in [".htaccess", "static", "static/css", "static/css/a.css"] {
            let own = site.dir.path("public_html").join(own);
            set_mode(&own, if own.is_dir() { 0o755 } else { 0o644 });
            chown(own, Some(PERSON), Some(PERSON)).unwrap();
        }
        assert!(check(&site).text().ends_with("\nno problem was found\n"), "{path}");
        set_mode(&site.dir.path(path), mode);
        let ended = check(&site);
        let is_named = ended.text().contains(&format!("{}`", site.dir.path(path).display()));
        assert!(is_named && ended.text().contains(said), "{path} {mode:o}: {}", ended.text());
        mend(&ended);
        assert!(check(&site).text().ends_with("\nno problem was found\n"), "{path} {mode:o}");
    }
}

#[test]
fn a_log_that_cannot_be_opened_is_a_warning() {
    let site = CheckSite::new();
    site.dir.script("public_html/app.wsgi", "#!WSGATE --error-log ../logs/error.log", HELLO);
    for path in ["public_html", "public_html/app.wsgi"] {
        chown(site.dir.path(path), Some(PERSON), Some(PERSON)).unwrap();
    }
    let (logs, log) = (site.dir.path("logs"), site.dir.path("logs/error.log"));
    let is_named = |said: &str| {
        let ended = check(&site);
        let text = ended.text();
        assert!(text.contains("warning        the log of --error-log, `"), "{said}: {text}");
        assert!(text.contains(said) && ended.code() == Some(0), "{said}: {text}");
    };
    let is_fine = || {
        let text = check(&site).text();
        assert!(text.ends_with("\nno problem was found\n"), "{text}");
    };
    is_named("there is no directory `");
    fs::create_dir(&logs).unwrap();
    is_named("user 54321 may not write to `");
    chown(&logs, Some(PERSON), Some(PERSON)).unwrap();
    is_fine();
    assert!(!log.exists());
    fs::write(&log, "").unwrap();
    is_named("hint: let user 54321 write there, or remove --error-log");
    chown(&log, Some(PERSON), Some(PERSON)).unwrap();
    set_mode(&log, 0o444);
    is_named("may not write to `");
    mend(&check(&site));
    is_fine();
    fs::remove_file(&log).unwrap();
    fs::create_dir(&log).unwrap();
    is_named("it is a directory");
    fs::remove_dir_all(&logs).unwrap();
    fs::write(&logs, "").unwrap();
    is_named("is not a directory");
}

#[test]
fn a_named_user_is_checked_instead_of_the_owner() {
    let site = site_of_person();
    set_mode(&site.dir.path("public_html/app.wsgi"), 0o700);
    let ended = site.check(&[site.dir.path("public_html/app.wsgi").to_str().unwrap()]);
    only_problem(&ended, "user daemon cannot read");
    mend(&ended);
    let ended = site.check(&[site.dir.path("public_html/app.wsgi").to_str().unwrap()]);
    assert_eq!(ended.code(), Some(0), "{}", ended.text());
}

#[test]
fn a_check_by_root_leaves_no_file_in_the_site() {
    if !geteuid().is_root() {
        return;
    }
    let site = CheckSite::new();
    site.dir.file("site/beside.py", "");
    let code = format!("import beside\n{}", dedent(HELLO));
    for mode in ["#!WSGATE", "#!WSGATE --mode warm"] {
        site.dir.script("site/app.wsgi", mode, &code);
        let ended = site.check(&["app.wsgi"]);
        assert_eq!(ended.code(), Some(0), "{}", ended.text());
        let found = line(&ended.text(), "note ").to_owned();
        assert!(found.ends_with("run `sudo -u daemon wsgate check`"), "{found}");
        assert!(!site.dir.path("site/__pycache__").exists(), "{mode}");
    }
}

//! `wsgate check --config`: the application and the options of a pool's file.

use std::{fs, os::unix::fs::chown};

use rustix::process::geteuid;

use super::{CheckSite, HELLO, line};

/// A site with an application and a configuration file beside it.
fn site(text: &str) -> CheckSite {
    let site = CheckSite::new();
    // A pool does not execute the file, so its first line does not matter.
    site.dir.script("site/app.wsgi", "#!/no/such/wsgate", HELLO);
    fs::write(site.dir.path("site/shop.toml"), text).unwrap();
    site
}

#[test]
fn the_application_and_the_options_of_the_file_are_checked() {
    let site = site("app = \"app.wsgi\"\npath = [\"lib\"]\nlisten = \"unix:shop.sock\"\n");
    fs::create_dir(site.dir.path("site/lib")).unwrap();
    let ended = site.check(&["--config", "shop.toml"]);
    let text = ended.text();
    assert_eq!((ended.code(), ended.stderr.as_str()), (Some(0), ""), "{text}");
    assert_eq!(line(&text, "application "), site.dir.path("site/app.wsgi").to_str().unwrap());
    assert!(text.contains(site.dir.path("site/lib").to_str().unwrap()), "{text}");
    assert!(text.ends_with("no problem was found\n"), "{text}");
}

#[test]
fn every_problem_of_the_options_is_reported_beside_those_of_the_application() {
    let site = site(
        "app = \"app.wsgi\"\nuser = \"no-such-user\"\nlisten = [\"unix:/no/such/dir/a.sock\"]\n\
         socket-owner = \"no-such-owner\"\n\
         access-log = \"logs/access.log\"\nslow-log = \"slow.log\"\nmin = 3\nmax = 2\n",
    );
    let ended = site.check(&["--config", "shop.toml"]);
    let text = ended.text();
    assert_eq!(ended.code(), Some(1), "{text}{}", ended.stderr);
    for problem in [
        "--min 3 is more than --max 2",
        "there is no user `no-such-user`",
        "there is no user `no-such-owner`, which --socket-owner names",
        "the directory `/no/such/dir` of --listen does not exist",
        "logs` of --access-log does not exist",
        "--slow-log has no effect without --slow",
    ] {
        assert!(text.contains(problem), "{problem}: {text}");
    }
    assert!(text.contains("first request  GET / returned 200 OK"), "{text}");
    assert!(text.ends_with("6 problems were found\n"), "{text}");
}

#[test]
fn a_log_that_root_would_not_open_is_a_problem() {
    if !geteuid().is_root() {
        return;
    }
    for (owner, code) in [(2, 1), (1, 0)] {
        let site = site("app = \"app.wsgi\"\nuser = \"1\"\naccess-log = \"logs/access.log\"\n");
        let logs = site.dir.path("site/logs");
        fs::create_dir(&logs).unwrap();
        chown(&logs, Some(owner), None).unwrap();
        let ended = site.check(&["--config", "shop.toml"]);
        let text = ended.text();
        assert_eq!(ended.code(), Some(code), "{text}{}", ended.stderr);
        assert_eq!(text.contains("error[W0724]: cannot open the log"), code == 1, "{text}");
        assert_eq!(fs::read_dir(&logs).unwrap().count(), 0);
    }
}

#[test]
fn an_address_that_every_machine_can_reach_is_a_warning() {
    for (variable, warns) in [("", true), ("[env]\nFCGI_WEB_SERVER_ADDRS = \"192.0.2.1\"", false)] {
        let site = site(&format!("app = \"app.wsgi\"\nlisten = \"0.0.0.0:9000\"\n{variable}\n"));
        let ended = site.check(&["--config", "shop.toml"]);
        let text = ended.text();
        assert_eq!(ended.code(), Some(0), "{text}{}", ended.stderr);
        assert_eq!(text.contains("warning[W0734]: every client"), warns, "{text}");
    }
}

#[test]
fn a_wrong_file_and_a_second_application_are_refused() {
    let site = site("app = \"app.wsgi\"\nworker = 1\n");
    let ended = site.check(&["--config", "shop.toml"]);
    assert_eq!(ended.code(), Some(78), "{}", ended.stderr);
    assert!(ended.stderr.contains("shop.toml`, line 2: unknown key `worker`"), "{}", ended.stderr);
    let ended = site.check(&["--config", "shop.toml", "app.wsgi"]);
    assert_eq!(ended.code(), Some(2), "{}", ended.stderr);
    let ended = site.check(&[]);
    assert_eq!(ended.code(), Some(2), "{}", ended.stderr);
}

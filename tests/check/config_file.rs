//! `wsgate check --config`: the application and the options of a pool's file.

use std::fs;

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
         access-log = \"logs/access.log\"\nslow-log = \"slow.log\"\nmin = 3\nmax = 2\n",
    );
    let ended = site.check(&["--config", "shop.toml"]);
    let text = ended.text();
    assert_eq!(ended.code(), Some(1), "{text}{}", ended.stderr);
    for problem in [
        "--min 3 is more than --max 2",
        "there is no user `no-such-user`",
        "the directory `/no/such/dir` of --listen does not exist",
        "logs` of --access-log does not exist",
        "--slow-log has no effect without --slow",
    ] {
        assert!(text.contains(problem), "{problem}: {text}");
    }
    assert!(text.contains("first request  GET / returned 200 OK"), "{text}");
    assert!(text.ends_with("5 problems were found\n"), "{text}");
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

//! Where a monitor listens, and who may read there.

use std::{
    fs::{
        Permissions, {self},
    },
    os::unix::fs::PermissionsExt as _,
};

use crate::{
    monitor::{Monitor, command},
    pool::ECHO,
    support::{
        child_process::{ExitedProcess, run},
        pool::PoolSetup,
        web_servers::HttpClient,
    },
};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// The end of a monitor that does not start.
#[track_caller]
fn refused(args: &[&str]) -> ExitedProcess {
    let directory = tempfile::tempdir().unwrap();
    let ended = run(&mut command(directory.path(), args), "");
    assert_eq!(ended.code(), Some(78), "{args:?}: {}", ended.stderr);
    ended
}

#[test]
fn an_address_that_other_machines_reach_needs_a_token() {
    for address in ["0.0.0.0:0", "[::]:0"] {
        let ended = refused(&["--listen", "127.0.0.1:0", "--listen", address]);
        for said in ["W0762", "has no token", "--token-file"] {
            assert!(ended.stderr.contains(said), "{}", ended.stderr);
        }
    }
}

#[test]
fn a_token_file_that_cannot_be_used_is_refused_with_the_reason() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    let path = file.to_str().unwrap();
    assert!(refused(&["--token-file", path]).stderr.contains("cannot be read"));
    for (content, mode, said) in [
        ("", 0o600, "is no token"),
        ("short\n", 0o600, "is no token"),
        ("0123456789abcdef 0123456789abcdef\n", 0o600, "is no token"),
        (TOKEN, 0o644, "chmod 600"),
    ] {
        fs::write(&file, content).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        let ended = refused(&["--listen", "127.0.0.1:0", "--token-file", path]);
        assert!(ended.stderr.contains(said), "{content}: {}", ended.stderr);
        assert!(!ended.stderr.contains(TOKEN), "{}", ended.stderr);
    }
}

#[test]
fn with_a_token_only_clients_that_send_it_may_read() {
    let pool = PoolSetup::new(ECHO).start();
    let file = pool.setup().path("token");
    fs::write(&file, format!("{TOKEN}\nnext line\n")).unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    let monitor =
        Monitor::start(&pool.setup().path("run"), &["--token-file", file.to_str().unwrap()]);
    for path in ["/", "/metrics", "/pools.json", "/readyz?pool=app", "/nothing"] {
        let refused = monitor.get(path);
        assert_eq!(refused.status, 401, "{path}: {refused:?}");
        assert!(!refused.text().contains("app.wsgi"), "{refused:?}");
        assert!(refused.all("www-authenticate").join("").starts_with("Basic "), "{refused:?}");
        let wrong = HttpClient::get(monitor.url(path)).header("Authorization", "Bearer wrong");
        assert_eq!(wrong.run().status, 401, "{path}");
    }
    assert_eq!(monitor.get("/healthz").status, 200);
    let bearer = format!("Bearer {TOKEN}");
    let request = HttpClient::get(monitor.url("/metrics")).header("Authorization", &bearer);
    assert_eq!(request.header("Host", "monitor.example").run().status, 200);
    let browser = HttpClient::get(monitor.url("/")).auth("me", TOKEN).run();
    assert_eq!(browser.status, 200, "{browser:?}");
    let arguments = fs::read_to_string(format!("/proc/{}/cmdline", monitor.pid())).unwrap();
    let environment = fs::read_to_string(format!("/proc/{}/environ", monitor.pid())).unwrap();
    assert!(!arguments.contains(TOKEN) && !environment.contains(TOKEN), "{arguments}");
    let ended = monitor.stop();
    assert!(!ended.stderr.contains(TOKEN), "{}", ended.stderr);
    pool.stop();
}

#[test]
fn a_page_of_another_site_cannot_read_through_a_name_that_resolves_to_this_machine() {
    let pool = PoolSetup::new(ECHO).start();
    let monitor = Monitor::of(&pool);
    for host in ["evil.example", "localhost.evil.example:9180", "127.0.0.1.evil.example"] {
        let response = HttpClient::get(monitor.url("/pools.json")).header("Host", host).run();
        assert_eq!(response.status, 421, "{host}: {response:?}");
        assert!(!response.text().contains("app.wsgi"), "{response:?}");
    }
    for host in ["localhost:9180", "127.0.0.1", "[::1]:9180"] {
        let response = HttpClient::get(monitor.url("/pools.json")).header("Host", host).run();
        assert_eq!(response.status, 200, "{host}: {response:?}");
    }
    pool.stop();
}

#[test]
fn a_unix_socket_has_its_mode_and_is_removed_at_the_end() {
    let pool = PoolSetup::new(ECHO).start();
    let run_directory = pool.setup().path("run");
    let socket = pool.setup().path("monitor.sock");
    let listen = format!("unix:{}", socket.display());
    for (args, mode) in [(&[][..], 0o600), (&["--socket-mode", "660"][..], 0o660)] {
        let args = [&["--listen", &listen], args].concat();
        let monitor = Monitor::start(&run_directory, &args);
        assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, mode);
        let ended = run(&mut command(&run_directory, &["--listen", &listen]), "");
        assert!(ended.stderr.contains("is already in use"), "{}", ended.stderr);
        let answered = std::process::Command::new("curl")
            .args(["--silent", "--unix-socket", socket.to_str().unwrap()])
            .arg("http://any.example/healthz")
            .output()
            .unwrap();
        assert_eq!(answered.stdout, b"ok\n", "{answered:?}");
        monitor.stop();
        assert!(!socket.exists());
    }
    pool.stop();
}

#[test]
fn a_second_monitor_says_that_the_port_is_in_use_and_what_to_do() {
    let pool = PoolSetup::new(ECHO).start();
    let monitor = Monitor::of(&pool);
    let ended = refused(&["--listen", &monitor.address]);
    for said in ["W0720", &monitor.address, "ss -tlnp", "another port"] {
        assert!(ended.stderr.contains(said), "{said}: {}", ended.stderr);
    }
    assert_eq!(monitor.get("/healthz").status, 200);
    pool.stop();
}

#[test]
fn a_missing_or_foreign_wsgate_http_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let text = directory.path().join("text");
    fs::write(&text, "no program").unwrap();
    fs::set_permissions(&text, Permissions::from_mode(0o644)).unwrap();
    for program in ["/absent/wsgate-http", text.to_str().unwrap()] {
        let mut command = command(directory.path(), &["--listen", "127.0.0.1:0"]);
        let ended = run(command.env("WSGATE_HTTP", program), "");
        assert_eq!(ended.code(), Some(78), "{}", ended.stderr);
        assert!(
            ended.stderr.contains("W0761") && ended.stderr.contains(program),
            "{}",
            ended.stderr
        );
    }
    let alone = crate::support::artefacts::http();
    let ended = run(&mut std::process::Command::new(alone), "");
    assert_eq!(ended.code(), Some(78), "{}", ended.stderr);
    assert!(ended.stderr.contains("wsgate has not started this program"), "{}", ended.stderr);
}

#[test]
fn an_option_without_a_unix_socket_has_no_effect() {
    let directory = tempfile::tempdir().unwrap();
    let args = ["--listen", "127.0.0.1:0", "--socket-mode", "666"];
    let ended = run(&mut command(directory.path(), &args), "");
    assert_eq!(ended.code(), Some(2), "{}", ended.stderr);
    assert!(ended.stderr.contains("--socket-mode has no effect"), "{}", ended.stderr);
}

//! Start and end: ports, wrong arguments, and processes that must not stay.

use std::{fs, net::TcpListener, process::Stdio};

use rustix::process::Signal;

use crate::{
    serve::{ENVIRON, Serve, bare_command, command, directory_with},
    support::{
        child_process::{RunningProcess, on_terminal, run},
        pool::children,
        waiting::wait_for_exit,
        web_servers::HttpClient,
    },
};

#[test]
fn a_taken_port_is_an_error_if_it_was_asked_for_and_is_passed_over_otherwise() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let directory = directory_with(ENVIRON);
    let refused = run(command(&directory, &["--port", &port]).stdin(Stdio::piped()), "");
    assert_eq!(refused.code(), Some(78), "{}", refused.stderr);
    assert!(refused.stderr.contains("W0720"), "{}", refused.stderr);
    assert!(refused.stderr.contains(&format!("127.0.0.1:{port}")), "{}", refused.stderr);

    // The port may be taken by another test or program, which is no difference.
    let _taken = TcpListener::bind("127.0.0.1:8000");
    let mut servers: Vec<RunningProcess> =
        (0..2).map(|_| RunningProcess::start(&mut command(&directory, &[]))).collect();
    let addresses: Vec<String> = servers
        .iter_mut()
        .map(|server| {
            server.await_log("since port 8000 is in use");
            let log = server.log();
            log.split_once("http://").unwrap().1.split('/').next().unwrap().to_owned()
        })
        .collect();
    assert_ne!(addresses[0], addresses[1]);
    for (server, address) in servers.into_iter().zip(addresses) {
        let response = HttpClient::get(format!("http://{address}/")).run().expect(200);
        assert_eq!(
            format!("127.0.0.1:{}", response.json()["SERVER_PORT"].as_str().unwrap()),
            address
        );
        server.signal(Signal::TERM);
        assert_eq!(server.end().code(), Some(0));
    }
}

#[test]
fn wrong_arguments_are_refused_with_what_to_do() {
    let directory = directory_with(ENVIRON);
    for (args, exit, said) in [
        (&["--port", "x"][..], 2, "from 0 to 65535, such as `8000`"),
        (&["--host", "not-a-host.invalid"], 78, "not-a-host.invalid"),
        (&["--host", "192.0.2.1"], 78, "this machine does not have the address"),
        (&["--threads", "0"], 2, "such as"),
        (&["--listen", "unix:x"], 2, "--listen has no effect in `wsgate serve`"),
        (&["--max-requests", "3"], 2, "--max-requests has no effect in `wsgate serve`"),
    ] {
        let ended = run(command(&directory, args).stdin(Stdio::piped()), "");
        assert_eq!(ended.code(), Some(exit), "{args:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(said), "{args:?}: {}", ended.stderr);
    }
    fs::remove_file(directory.path().join("app.py")).unwrap();
    let missing = run(command(&directory, &["--port", "0"]).stdin(Stdio::piped()), "");
    assert_eq!(missing.code(), Some(78), "{}", missing.stderr);
    assert!(missing.stderr.contains("`app.py` cannot be read"), "{}", missing.stderr);
    for path in [".", "./tmp", "tmp/"] {
        let mut command = bare_command(&directory, &["--port", "0", path]);
        let refused = run(command.stdin(Stdio::piped()), "");
        assert_eq!(refused.code(), Some(78), "{path}: {}", refused.stderr);
        assert!(refused.stderr.contains("is a directory"), "{path}: {}", refused.stderr);
        assert!(!refused.stderr.contains("W0770"), "{path}: {}", refused.stderr);
    }
}

#[test]
fn other_machines_are_let_in_with_a_warning_only() {
    let mut serve = Serve::start(ENVIRON, &["--host", "0.0.0.0"]);
    serve.running.await_log("W0771");
    serve.stop();
}

#[test]
fn nothing_stays_behind_whether_the_server_is_interrupted_or_killed() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT] {
        let serve = Serve::start(ENVIRON, &[]);
        serve.get("/").expect(200);
        let tmp = serve.path("tmp");
        assert_eq!(fs::read_dir(&tmp).unwrap().count(), 1);
        let pools = children(serve.running.pid().as_raw_nonzero().get());
        assert_eq!(pools.len(), 1, "{pools:?}");
        // A request that runs for ever delays the end for nobody.
        serve.write(
            "app.py",
            "import time\ndef app(environ, start_response):\n    time.sleep(1000)\n",
        );
        let _stream = serve.connect(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        wait_for_exit(pools[0]);
        let Serve { running, directory, .. } = serve;
        let pools = children(running.pid().as_raw_nonzero().get());
        running.signal(signal);
        let ended = running.end();
        assert_eq!(ended.code(), Some(0), "{signal:?}: {}", ended.stderr);
        pools.into_iter().for_each(wait_for_exit);
        assert_eq!(fs::read_dir(&tmp).unwrap().count(), 0, "{signal:?}");
        drop(directory);
    }

    let serve = Serve::start(ENVIRON, &[]);
    serve.get("/").expect(200);
    let pools = children(serve.running.pid().as_raw_nonzero().get());
    serve.running.signal(Signal::KILL);
    pools.into_iter().for_each(wait_for_exit);
    let Serve { running, directory, .. } = serve;
    running.end();
    // The next server removes what a killed one has left.
    let left: Vec<_> = fs::read_dir(directory.path().join("tmp")).unwrap().flatten().collect();
    assert_eq!(left.len(), 1);
    let next = Serve::start_in(directory, &[]);
    assert!(!left[0].path().exists());
    next.stop();
}

#[test]
fn the_hint_about_a_missing_module_names_no_application_beside_the_served_one() {
    let directory = directory_with(ENVIRON);
    for name in ["served/inner", "other", "src/shop"] {
        fs::create_dir_all(directory.path().join(name)).unwrap();
    }
    for name in ["other/shop.py", "src/shop/__init__.py"] {
        fs::write(directory.path().join(name), "app = None\n").unwrap();
    }
    let log = || {
        let mut command = bare_command(&directory, &["--port", "0", "shop:app"]);
        let mut running =
            RunningProcess::start(command.current_dir(directory.path().join("served")));
        running.await_log("W0302");
        running.await_log("hint: ");
        running.signal(Signal::TERM);
        running.end().stderr
    };
    let beside = log();
    assert!(!beside.contains("/other") && !beside.contains("/src"), "{beside}");
    assert!(beside.contains("give the directory of the module with --chdir DIR"), "{beside}");
    fs::write(directory.path().join("served/inner/shop.py"), "app = None\n").unwrap();
    let below = log();
    assert!(below.contains("served/inner` "), "{below}");
}

#[test]
fn a_server_started_by_nohup_outlives_its_terminal() {
    let directory = directory_with(ENVIRON);
    let mut nohup = std::process::Command::new("nohup");
    nohup.arg(crate::support::artefacts::gateway()).args(["serve", "--port", "0", "app.py"]);
    nohup.current_dir(&directory).stdin(Stdio::null());
    nohup.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = RunningProcess::start(&mut nohup);
    running.await_log("W0770");
    running.await_log("request: ");
    running.signal(Signal::HUP);
    let log = running.log();
    let address = log.split_once("http://").unwrap().1.split('/').next().unwrap().to_owned();
    HttpClient::get(format!("http://{address}/")).run();
    HttpClient::get(format!("http://{address}/")).run();
    running.signal(Signal::TERM);
    assert_eq!(running.end().code(), Some(0));
}

#[test]
fn a_pool_whose_parent_has_exited_before_its_start_does_not_start() {
    let directory = directory_with(ENVIRON);
    let mut command = std::process::Command::new(crate::support::artefacts::gateway());
    command.args(["fastcgi", "app.py", "--listen", "unix:app.sock", "--stop-with-parent"]);
    command.arg(i32::MAX.to_string()).current_dir(&directory).stderr(Stdio::piped());
    let ended = run(command.stdin(Stdio::piped()), "");
    assert_eq!(ended.code(), Some(78), "{}", ended.stderr);
    assert!(ended.stderr.contains("--stop-with-parent 2147483647"), "{}", ended.stderr);
}

#[test]
fn lines_have_colours_on_a_terminal_unless_no_color_is_set() {
    let gateway = crate::support::artefacts::gateway().display();
    for (variables, has_colour) in [("", true), ("NO_COLOR=1 ", false), ("NO_COLOR= ", true)] {
        let directory = directory_with(ENVIRON);
        let script = format!(
            "cd {}; {variables}exec {gateway} serve --port 0 app.py",
            directory.path().display()
        );
        let mut command = on_terminal(&script);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut running = RunningProcess::start(&mut command);
        running.await_output("request: ");
        let text = running.output();
        let address = text.split_once("http://").unwrap().1.split('/').next().unwrap().to_owned();
        HttpClient::get(format!("http://{address}/x")).run().expect(200);
        running.await_output(" ms");
        let is_coloured = running.output().contains("GET /x \u{1b}[32m200\u{1b}[0m ");
        assert_eq!(is_coloured, has_colour, "{variables}: {}", running.output());
    }
}

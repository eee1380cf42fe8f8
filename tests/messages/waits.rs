//! A user who waits at a terminal reads the reason.

use std::{io::Read as _, net::TcpListener, process::Command, thread};

use rustix::process::Signal;

use crate::support::{
    child_process::{
        ExitedProcess, RunningProcess, {self},
    },
    install_dir::InstallDir,
    probe::python,
};

/// Applications that never finish loading, each with a part of the message about it.
const STAYS: [(&str, &str); 5] = [
    (
        "
        from wsgiref.simple_server import make_server
        def app(environ, start_response): pass
        make_server('127.0.0.1', 0, app).serve_forever()
        ",
        "seems to start a server when it is loaded: put `app.run()`",
    ),
    (
        "
        import asyncio
        async def main(): await asyncio.sleep(1000)
        asyncio.run(main())
        ",
        "seems to start a server when it is loaded: put `app.run()`",
    ),
    (
        "
        import os, threading
        threading.Event().wait()
        ",
        "leave it to the first request",
    ),
    (
        "
        import signal, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(1000)
        ",
        "`if __name__ == \"__main__\":`",
    ),
    (
        "
        import time
        while True:
            try: time.sleep(1000)
            except BaseException: pass
        ",
        "`if __name__ == \"__main__\":`",
    ),
];

fn ran(dir: &InstallDir, args: &[&str]) -> ExitedProcess {
    let mut command = Command::new(dir.wsgate());
    let path = format!("{}:/usr/bin:/bin", python().parent().unwrap().display());
    command.args(args).env_clear().env("PATH", path).current_dir(dir.path(""));
    child_process::run(&mut command, "")
}

#[test]
fn a_file_that_starts_a_server_when_it_is_loaded_is_named_with_the_line() {
    let dir = InstallDir::new();
    for (code, hint) in STAYS {
        dir.file("app.py", code);
        // Most of the time must be left when Python has started.
        for args in [&["check", "--timeout", "3", "app.py"], &["call", "--timeout", "3", "app.py"]]
        {
            let ended = ran(&dir, args);
            let said = format!("{}{}", ended.text(), ended.stderr);
            assert_eq!(ended.code(), Some(1), "{args:?}: {said}");
            for word in ["W0305", "`app.py` was not loaded within 3 s", hint] {
                assert!(
                    said.contains(word) || said.contains(&word.replace("`app.py`", "app.py`")),
                    "{word}: {said}"
                );
            }
            // The line is in a traceback or in a stack.
            assert!(said.contains("app.py\", line "), "{said}");
        }
    }
}

#[test]
fn a_python_that_hangs_before_the_engine_is_loaded_times_out_with_the_limit() {
    let dir = InstallDir::new();
    dir.file("app.py", "application = None\n");
    dir.file("hangs/sitecustomize.py", "import time\ntime.sleep(1000)\n");
    let path = format!("PYTHONPATH={}", dir.path("hangs").display());
    let ended = ran(&dir, &["call", "--env", &path, "app.py"]);
    assert!(ended.stderr.contains("not loaded the engine within 30 s"), "{}", ended.stderr);
}

#[test]
fn a_request_that_times_out_shows_the_line_on_its_error_page() {
    let dir = InstallDir::new();
    dir.file("app.py", STAYS[0].0);
    let ended = ran(&dir, &["call", "--debug", "--timeout", "3", "-i", "app.py"]);
    assert!(ended.text().starts_with("HTTP/1.1 504 Gateway Timeout"), "{}", ended.text());
    assert!(ended.text().contains("Python was at line 4 of `/"), "{}", ended.text());
}

#[test]
fn a_pipe_or_a_socket_is_no_script_and_no_command_waits_for_it() {
    let dir = InstallDir::new();
    dir.fifo("pipe.wsgi");
    let _socket = std::os::unix::net::UnixListener::bind(dir.path("socket.wsgi")).unwrap();
    std::fs::create_dir(dir.path("directory.wsgi")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", dir.path("zero.wsgi")).unwrap();
    for name in ["pipe.wsgi", "socket.wsgi", "./directory.wsgi", "zero.wsgi"] {
        for args in [&["check"][..], &["call"], &["fastcgi", "--listen", "unix:app.sock"], &["cgi"]]
        {
            let ended = ran(&dir, &[args, &[name]].concat());
            let said = format!("{}{}", ended.text(), ended.stderr);
            assert!(
                said.contains("W0102") && said.contains(name.trim_start_matches("./")),
                "{args:?} {name}: {said}"
            );
        }
    }
}

#[test]
fn a_server_that_waits_for_another_protocol_times_out() {
    let dir = InstallDir::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        // An HTTP server would wait for the end of the line.
        let mut received = Vec::new();
        stream.read_to_end(&mut received).unwrap();
    });
    let ended = ran(&dir, &["call", "--timeout", "1", "--via", &address]);
    assert_eq!(ended.code(), Some(1), "{}", ended.stderr);
    for word in ["W0604", "longer than 1 s", "the server has sent nothing", "speaks FastCGI"] {
        assert!(ended.stderr.contains(word), "{}", ended.stderr);
    }
    server.join().unwrap();
}

#[test]
fn a_pool_that_loads_slowly_logs_its_stack() {
    let dir = InstallDir::new();
    // The interpreter is locked at that.
    let code = "
        import ctypes, time
        def connect():
            ctypes.PyDLL(None).sleep(1000)
            time.sleep(1000)
        connect()
        ";
    dir.file("app.py", code);
    let start = |preload: &str| {
        let mut command = Command::new(dir.wsgate());
        command.args(["fastcgi", "--listen", &format!("unix:{preload}.sock"), "--name", preload]);
        command.args(["--preload", preload, "app.py"]).env_clear().current_dir(dir.path(""));
        command.env("PATH", format!("{}:/usr/bin:/bin", python().parent().unwrap().display()));
        RunningProcess::start(child_process::piped(&mut command))
    };
    // At the same time: the message comes after 30 s.
    for mut pool in ["yes", "no"].map(start) {
        pool.await_log("app.py` has been loading for 30 s, and goes on\nhint: ");
        assert!(pool.log().contains("in connect\n"), "{}", pool.log());
        pool.signal(Signal::TERM);
        assert_eq!(pool.end().code(), Some(0));
    }
}

#[test]
fn a_reloader_that_exits_while_the_file_is_loaded_is_distinguished_from_other_exits() {
    let dir = InstallDir::new();
    for (code, hint) in [
        (
            "def run_with_reloader(): raise SystemExit(3)\nrun_with_reloader()",
            "seems to start a server",
        ),
        ("raise SystemExit(3)", "code that runs a program of its own"),
    ] {
        dir.file("app.py", code);
        let ended = ran(&dir, &["check", "app.py"]);
        let said = format!("{}{}", ended.text(), ended.stderr);
        assert!(said.contains("W0304") && said.contains(hint), "{said}");
    }
}

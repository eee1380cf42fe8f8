//! The log files of a pool: what goes to them, and that rotations lose nothing of it.

use std::{
    fs,
    io::Read as _,
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use rustix::process::Signal;

use crate::{
    pool::ECHO,
    support::{
        fastcgi_client::FastcgiRequest,
        pool::{Pool, PoolSetup, children, signal},
        web_servers::eventually,
    },
};

/// A pool with both logs in a directory `logs` beside its application, once it serves.
fn logged(code: &str, args: &[&str]) -> Pool {
    let setup = PoolSetup::new(code);
    fs::create_dir(setup.path("logs")).unwrap();
    let [error, access] =
        ["error.log", "access.log"].map(|name| setup.path("logs").join(name).display().to_string());
    let setup = setup.args(&["--error-log", &error, "--access-log", &access]).args(args);
    let pool = setup.launch();
    await_words(&pool.setup().path("logs/error.log"), "W0710", 1);
    pool
}

/// Waits until a file holds `word` so many times, and gives what it holds.
#[track_caller]
fn await_words(path: &Path, word: &str, times: usize) -> String {
    let mut held = String::new();
    eventually(&format!("{} holds `{word}` {times} times", path.display()), || {
        held = fs::read_to_string(path).unwrap_or_default();
        held.matches(word).count() >= times
    });
    held
}

/// Renames both logs, as a rotation does, and tells the supervisor.
fn rotate(pool: &Pool, suffix: usize) {
    for name in ["error.log", "access.log"] {
        let logs = pool.setup().path("logs");
        fs::rename(logs.join(name), logs.join(format!("{name}.{suffix}"))).unwrap();
    }
    pool.signal(Signal::USR1);
}

/// All processes of the pool.
fn processes(pool: &Pool) -> Vec<i32> {
    let templates = children(pool.pid());
    let workers: Vec<i32> = templates.iter().copied().flat_map(children).collect();
    [vec![pool.pid()], templates, workers].concat()
}

/// Files that a process has open, by their names.
fn open_files(pid: i32) -> Vec<String> {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    let names = descriptors.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    names.map(|name| name.display().to_string()).collect()
}

#[test]
fn every_message_goes_to_the_error_log_and_none_to_standard_error() {
    let pool = logged(
        "
        import os, subprocess, sys
        print('printed at import')
        def application(environ, start_response):
            environ['wsgi.errors'].write('written to wsgi.errors\\n')
            print('printed')
            os.write(2, b'written by C code\\n')
            subprocess.call(['sh', '-c', 'echo printed by a child; echo written by a child >&2'])
            raise ValueError('a log message')
        ",
        &[],
    );
    assert_eq!(pool.ask(&FastcgiRequest::get("/")).valid().status, 500);
    pool.signal(Signal::TERM);
    let (ended, setup) = pool.end_and_leave();
    assert_eq!((ended.code(), ended.stderr.as_str(), ended.text().as_str()), (Some(0), "", ""));
    let log = fs::read_to_string(setup.path("logs/error.log")).unwrap();
    for args in [
        "printed at import\n",
        "W0710",
        "written to wsgi.errors\n",
        "printed\n",
        "written by C code\n",
        "printed by a child\n",
        "written by a child\n",
        "W0501",
        "W0712",
    ] {
        assert!(log.contains(args), "{args}: {log}");
    }
}

#[test]
fn usr1_makes_every_process_close_renamed_log_files() {
    let pool = logged(ECHO, &["--workers", "3", "--threads", "2"]);
    pool.workers(3);
    pool.ask(&FastcgiRequest::get("/before"));
    let old = pool.setup().path("logs");
    await_words(&old.join("access.log"), "\"GET /before", 1);
    rotate(&pool, 1);
    await_words(&old.join("error.log"), "W0742", 1);
    // Idle workers reopen their files, too.
    eventually("nobody has a renamed file open", || {
        let open: Vec<_> = processes(&pool).into_iter().flat_map(open_files).collect();
        open.iter().filter(|name| name.ends_with("/error.log")).count() >= 10
            && !open.iter().any(|name| name.contains(".log.1"))
    });
    pool.ask(&FastcgiRequest::get("/after"));
    let log = await_words(&old.join("access.log"), "\"GET /after", 1);
    assert_eq!(log.lines().count(), 1, "{log}");
    pool.signal(Signal::TERM);
    let (_, setup) = pool.end_and_leave();
    assert!(fs::read_to_string(setup.path("logs/error.log")).unwrap().contains("W0712"));
    assert!(!fs::read_to_string(setup.path("logs/error.log.1")).unwrap().contains("W0712"));
}

#[test]
fn rotations_during_requests_lose_and_tear_no_line() {
    let pool = logged(
        "
        def application(environ, start_response):
            environ['wsgi.errors'].write('note %s of the application\\n' % environ['PATH_INFO'])
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'response']
        ",
        &["--workers", "2", "--threads", "2"],
    );
    let over = AtomicBool::new(false);
    let mut rotations = 0;
    let asked: usize = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|client| {
                let (mut connection, over) = (pool.connect(), &over);
                scope.spawn(move || {
                    let mut asked = 0;
                    while !over.load(Ordering::Relaxed) {
                        connection
                            .ask(&FastcgiRequest::get(&format!("/{client}/{asked}")).keep())
                            .text();
                        asked += 1;
                    }
                    asked
                })
            })
            .collect();
        for suffix in 1..=10 {
            rotate(&pool, suffix);
            rotations += 1;
            await_words(&pool.setup().path("logs/error.log"), "W0742", 1);
            await_words(&pool.setup().path("logs/access.log"), "\n", 5);
        }
        over.store(true, Ordering::Relaxed);
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    });
    pool.signal(Signal::TERM);
    let (_, setup) = pool.end_and_leave();
    let all = |name: &str| -> String {
        let files = fs::read_dir(setup.path("logs")).unwrap().map(|entry| entry.unwrap().path());
        let ours =
            files.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(name));
        ours.map(|path| fs::read_to_string(path).unwrap()).collect()
    };
    let (access, error) = (all("access.log"), all("error.log"));
    assert_eq!(access.lines().count(), asked, "{rotations} rotations");
    for line in access.lines() {
        assert!(line.ends_with(" -") && line.matches('"').count() == 6, "{line}");
    }
    let notes = error
        .lines()
        .filter(|line| line.starts_with("note /") && line.ends_with(" of the application"));
    assert_eq!(notes.count(), asked);
    assert_eq!(error.matches(" of the application").count(), asked);
    assert_eq!(error.matches("W0742").count(), rotations);
}

#[test]
fn a_log_file_that_cannot_be_reopened_costs_a_log_message_and_no_line() {
    let pool = logged(ECHO, &["--workers", "2"]);
    pool.workers(2);
    let (logs, moved) = (pool.setup().path("logs"), pool.setup().path("moved"));
    fs::rename(&logs, &moved).unwrap();
    pool.signal(Signal::USR1);
    let log = await_words(&moved.join("error.log"), "W0741", 2);
    assert!(!log.contains("W0742"), "{log}");
    for _ in 0..10 {
        assert_eq!(pool.ask(&FastcgiRequest::get("/still")).text(), "/still|");
    }
    await_words(&moved.join("access.log"), "\"GET /still", 10);
    // Put right, it works the next time.
    fs::create_dir(&logs).unwrap();
    pool.signal(Signal::USR1);
    await_words(&logs.join("error.log"), "W0742", 1);
    pool.ask(&FastcgiRequest::get("/again"));
    await_words(&logs.join("access.log"), "\"GET /again", 1);
    let log = fs::read_to_string(moved.join("error.log")).unwrap();
    assert_eq!(log.matches("W0741").count(), 2, "one for each file: {log}");
    pool.signal(Signal::TERM);
    pool.end();
}

#[test]
fn code_that_is_loaded_after_a_rotation_writes_to_the_new_files() {
    let pool = logged(ECHO, &[]);
    let logs = pool.setup().path("logs");
    rotate(&pool, 1);
    await_words(&logs.join("error.log"), "W0742", 1);
    let old = pool.ask(&FastcgiRequest::get("/old code")).pid();
    pool.setup().release(&ECHO.replace("'text/plain'", "'text/html'"));
    pool.signal(Signal::HUP);
    await_words(&logs.join("error.log"), "W0711", 1);
    eventually("the new code serves", || pool.ask(&FastcgiRequest::get("/new")).pid() != old);
    await_words(&logs.join("access.log"), "\"GET /new", 1);
    rotate(&pool, 2);
    await_words(&logs.join("error.log"), "W0742", 1);
    pool.ask(&FastcgiRequest::get("/newest"));
    await_words(&logs.join("access.log"), "\"GET /newest", 1);
    pool.signal(Signal::TERM);
    pool.end();
}

#[test]
fn usr1_without_log_files_and_usr1_to_a_template_harm_nobody() {
    let mut pool = PoolSetup::new(ECHO).start();
    let (template, workers) = (pool.template(), pool.workers(1));
    pool.signal(Signal::USR1);
    signal(template, Signal::USR1);
    assert_eq!(pool.ask(&FastcgiRequest::get("/after")).pid(), workers[0]);
    pool.signal(Signal::HUP);
    pool.await_log("W0711");
    let log = pool.stop();
    assert!(!log.contains("error[") && !log.contains("warning["), "{log}");
}

#[test]
fn the_streams_that_a_pool_was_started_with_are_logs_whatever_they_are() {
    for path in ["/dev/stderr", "/proc/self/fd/2", "/dev/fd/2", "/dev/stdout"] {
        let setup =
            PoolSetup::new(ECHO).args(&["--access-log", path, "--error-log", "/dev/stderr"]);
        // systemd's journal is one socket for both streams, which cannot be reopened.
        let (mut journal, ours) = UnixStream::pair().unwrap();
        let mut command = setup.command();
        command.stdout(OwnedFd::from(ours.try_clone().unwrap())).stderr(OwnedFd::from(ours));
        let pool = setup.launch_quietly(&mut command);
        drop(command);
        for round in 0..2 {
            pool.ask(&FastcgiRequest::get(&format!("/round-{round}")));
            pool.signal(Signal::USR1);
        }
        pool.signal(Signal::TERM);
        let mut log = String::new();
        journal.read_to_string(&mut log).unwrap();
        for word in
            ["W0710", "\"GET /round-0 HTTP/1.1\" 200", "\"GET /round-1 HTTP/1.1\" 200", "W0712"]
        {
            assert!(log.contains(word), "{path}: {word}: {log}");
        }
        assert!(!log.contains("W0741"), "{path}: {log}");
        assert_eq!(pool.end().code(), Some(0), "{path}");
    }
}

#[test]
fn a_log_on_standard_error_overwrites_nothing_in_a_file_without_append() {
    let setup = PoolSetup::new(ECHO).args(&["--access-log", "/dev/stderr"]);
    let path = setup.path("out.log");
    let mut command = setup.command();
    command.stderr(fs::File::create(&path).unwrap());
    let pool = setup.launch_quietly(&mut command);
    for round in 0..3 {
        pool.ask(&FastcgiRequest::get(&format!("/round-{round}")));
    }
    await_words(&path, "/round-2 ", 1);
    pool.signal(Signal::TERM);
    let (ended, _setup) = pool.end_and_leave();
    assert_eq!(ended.code(), Some(0));
    let log = fs::read_to_string(&path).unwrap();
    for word in ["W0710", "/round-0 ", "/round-1 ", "/round-2 ", "W0712"] {
        assert_eq!(log.matches(word).count(), 1, "{word}: {log}");
    }
}

//! Logs that nobody reads: the pool serves, reloads and ends all the same.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{CWD, Mode, OFlags, fcntl_getfl, fcntl_setfl, mkfifoat},
    net::{AddressFamily, SocketFlags, SocketType, socketpair},
    pipe::pipe,
    process::Signal,
};

use crate::support::{
    assertions::complete_response,
    child_process::RunningProcess,
    fastcgi_client::FastcgiRequest,
    install_dir::InstallDir,
    pool::{Pool, PoolSetup, signal},
    waiting::exits_within,
    web_servers::eventually,
};

/// Says much on every request.
fn talks(number: u32) -> String {
    format!(
        "
        import sys
        def application(environ, start_response):
            for line in range(20):
                print('x' * 1000)
                environ['wsgi.errors'].write('y' * 1000 + '\\n')
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'release {number}']
        "
    )
}

/// The limit of one request: the first message waits for a second.
const REQUEST_LIMIT: Duration = Duration::from_secs(6);

/// Fills what leads to a reader that has stopped.
fn fill(mut entrance: &File) {
    let flags = fcntl_getfl(entrance).unwrap();
    fcntl_setfl(entrance, flags | OFlags::NONBLOCK).unwrap();
    for size in [4096, 1] {
        while entrance.write(&vec![b'.'; size]).is_ok() {}
    }
    fcntl_setfl(entrance, flags).unwrap();
}

/// Waits for the answer to a request, which comes in time.
#[track_caller]
fn responses(pool: &Pool, number: u32) {
    let expected = format!("release {number}");
    eventually(&expected, || {
        let mut connection = pool.connect();
        let begun = Instant::now();
        let answer = connection
            .try_send(&FastcgiRequest::get("/").bytes())
            .and_then(|()| connection.try_response());
        assert!(begun.elapsed() < REQUEST_LIMIT, "{:?}", begun.elapsed());
        matches!(answer, Ok(Some(answer)) if answer.text() == expected)
    });
}

/// A pool whose log nobody reads lives its life.
#[track_caller]
fn lives(pool: &Pool) {
    eventually("the pool listens", || pool.socket().exists());
    responses(pool, 1);
    responses(pool, 1);
    pool.setup().release(&talks(2));
    assert_eq!(pool.run_wsgate(&["reload", "app"]).code(), Some(0));
    responses(pool, 2);
    eventually("the old worker has ended", || pool.workers(1).len() == 1);
    signal(pool.workers(1)[0], Signal::KILL);
    responses(pool, 2);
    pool.setup().release("this is no Python");
    assert_eq!(pool.run_wsgate(&["reload", "app"]).code(), Some(1));
    responses(pool, 2);
    pool.setup().release(&talks(3));
    signal(pool.template(), Signal::KILL);
    responses(pool, 3);
    assert_eq!(pool.run_wsgate(&["status", "app"]).code(), Some(0));
}

/// Ends a pool whose log nobody reads.
#[track_caller]
fn ends(pool: Pool) {
    pool.signal(Signal::TERM);
    let begun = Instant::now();
    let ended = pool.end();
    assert_eq!(ended.code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
}

/// Somebody reads the log of a pool again, which says then that messages were lost.
#[track_caller]
fn is_read_again(pool: Pool, exit: impl Into<File>) {
    let mut exit = exit.into();
    let (has_room, room) = mpsc::channel();
    let reading = thread::spawn(move || {
        let mut bytes = vec![0; 1 << 16];
        let length = exit.read(&mut bytes).unwrap();
        bytes.truncate(length);
        has_room.send(()).unwrap();
        exit.read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    });
    // Until then a worker drops what it would write, and knows nothing of a reader.
    room.recv().unwrap();
    responses(&pool, 3);
    ends(pool);
    let log = reading.join().unwrap();
    let log = log.trim_start_matches('.');
    assert!(log.contains("warning[W0743]"), "{log}");
    // The few messages of the supervisor are not lost.
    for code in ["W0710", "W0711", "W0701", "W0715", "W0703", "W0712"] {
        assert!(log.contains(code), "{code}: {log}");
    }
}

#[test]
fn a_pool_whose_error_log_is_a_full_pipe_or_socket_keeps_serving_and_logs_the_loss_later() {
    for preload in ["yes", "no"] {
        for access in [false, true] {
            let (exit, entrance) = if access {
                pipe().unwrap()
            } else {
                socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::empty(), None)
                    .unwrap()
            };
            let entrance = File::from(entrance);
            fill(&entrance);
            let mut setup =
                PoolSetup::new(&talks(1)).args(&["--preload", preload, "--threads", "2"]);
            if access {
                setup = setup.args(&["--access-log", "-"]);
            }
            let pool = setup.launch_to(entrance);
            lives(&pool);
            if preload == "yes" {
                ends(pool);
            } else {
                is_read_again(pool, exit);
            }
        }
    }
}

/// A named pipe that is held open for reading, and full.
fn full_fifo(path: &Path) -> File {
    mkfifoat(CWD, path, Mode::RUSR | Mode::WUSR).unwrap();
    let exit = File::options()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(path)
        .unwrap();
    fill(&File::options().write(true).open(path).unwrap());
    fcntl_setfl(&exit, fcntl_getfl(&exit).unwrap() - OFlags::NONBLOCK).unwrap();
    exit
}

#[test]
fn a_pool_whose_error_log_is_a_named_pipe_that_nobody_reads_keeps_serving() {
    let setup = PoolSetup::new(&talks(1));
    let path = setup.path("error.fifo");
    let exit = full_fifo(&path);
    let pool = setup.args(&["--error-log", path.to_str().unwrap()]).launch();
    lives(&pool);
    pool.signal(Signal::USR1);
    responses(&pool, 3);
    is_read_again(pool, exit);
}

#[test]
fn an_access_log_that_nobody_reads_keeps_no_request_waiting() {
    for args in [&["--threads", "1"], &["--threads", "3"]] {
        let setup = PoolSetup::new(
            "
            def application(environ, start_response):
                start_response('200 OK', [('Content-Type', 'text/plain')])
                return [b'hello']
            ",
        );
        let path = setup.path("access.fifo");
        let mut exit = full_fifo(&path);
        let mut pool = setup.args(args).args(&["--access-log", path.to_str().unwrap()]).start();
        let begun = Instant::now();
        for _ in 0..30 {
            assert_eq!(pool.ask(&FastcgiRequest::get("/lost")).text(), "hello");
        }
        assert!(begun.elapsed() < REQUEST_LIMIT, "{:?}", begun.elapsed());
        pool.await_log("lines of the access log are lost: nobody reads it");
        let mut piece = [0; 1 << 16];
        let mut read = 0;
        while read < 1 << 16 {
            read += exit.read(&mut piece).unwrap();
        }
        assert_eq!(pool.ask(&FastcgiRequest::get("/kept")).text(), "hello");
        pool.await_log("lines of this process that were lost: ");
        let mut lines = String::new();
        while !lines.contains("GET /kept ") {
            let length = exit.read(&mut piece).unwrap();
            lines.push_str(&String::from_utf8_lossy(&piece[..length]));
        }
        assert!(lines.lines().count() < 4, "{lines}");
        pool.stop();
    }
}

#[test]
fn a_slow_request_whose_stacks_nobody_would_read_is_served() {
    let (exit, entrance) = pipe().unwrap();
    let entrance = File::from(entrance);
    let setup = PoolSetup::new(
        "
        import time
        def application(environ, start_response):
            time.sleep(2)
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'release 1']
        ",
    );
    fill(&entrance);
    let pool = setup.args(&["--slow", "1"]).launch_to(entrance);
    eventually("the pool listens", || pool.socket().exists());
    responses(&pool, 1);
    ends(pool);
    drop(exit);
}

#[test]
fn a_cgi_request_whose_error_log_nobody_reads_has_its_response() {
    let dir = InstallDir::new();
    let fails = "
        import os
        def application(environ, start_response):
            print('x' * 100000)
            if environ['QUERY_STRING'] == 'exits':
                os._exit(3)
            raise ValueError('no')
        ";
    let script = dir.script("cgi-bin/app.wsgi", "#!WSGATE", fails);
    for query in ["raises", "exits"] {
        let (_exit, entrance) = pipe().unwrap();
        let entrance = File::from(entrance);
        fill(&entrance);
        let mut command: Command = dir.request(&script);
        command.env("QUERY_STRING", query).stdout(Stdio::piped()).stderr(Stdio::from(entrance));
        let begun = Instant::now();
        let mut running = RunningProcess::start(&mut command);
        let response = running.await_end_of_output().to_vec();
        assert_eq!(complete_response(&response).status, 500);
        assert!(begun.elapsed() < REQUEST_LIMIT, "{query}: {:?}", begun.elapsed());
    }
}

#[test]
fn a_lone_worker_whose_log_is_full_serves_slow_requests_and_exits() {
    let code = "
        import time
        def application(environ, start_response):
            environ['wsgi.errors'].write('y' * 1000 + '\\n')
            time.sleep(2)
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'slow']
        ";
    let setup = PoolSetup::new(code).args(&["--slow", "1"]).listen(&[]);
    let listener = std::os::unix::net::UnixListener::bind(setup.path("app.sock")).unwrap();
    let (_reader, writer) = pipe().unwrap();
    fill(&File::from(writer.try_clone().unwrap()));
    let mut command = setup.command();
    command.stdin(std::os::fd::OwnedFd::from(listener)).stderr(writer);
    let pool = setup.launch_quietly(&mut command);
    for _ in 0..2 {
        assert_eq!(pool.ask(&FastcgiRequest::get("/")).text(), "slow");
    }
    pool.signal(Signal::TERM);
    assert_eq!(pool.end().code(), Some(0));
}

#[test]
fn a_lone_worker_whose_log_is_full_exits_though_a_request_hangs() {
    let code = "
        import time
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain')])(b'begun')
            while True:
                try:
                    time.sleep(1000)
                except BaseException:
                    pass
        ";
    let setup = PoolSetup::new(code).args(&["--drain", "5"]).listen(&[]);
    let listener = std::os::unix::net::UnixListener::bind(setup.path("app.sock")).unwrap();
    let (_reader, writer) = pipe().unwrap();
    fill(&File::from(writer.try_clone().unwrap()));
    let mut command = setup.command();
    command.stdin(std::os::fd::OwnedFd::from(listener)).stderr(writer);
    let pool = setup.launch_quietly(&mut command);
    let mut connection = pool.connect();
    connection.send(&FastcgiRequest::get("/").bytes());
    connection.read_some(1).unwrap();
    pool.signal(Signal::TERM);
    let begun = Instant::now();
    pool.end();
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
}

#[test]
fn a_close_that_hangs_ends_though_the_log_is_full() {
    let place = InstallDir::new();
    let code = "
        import os, time
        class Body:
            def __iter__(self):
                yield b'%d' % os.getpid()
            def close(self):
                while True:
                    try:
                        time.sleep(1000)
                    except BaseException:
                        pass
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return Body()
        ";
    let script = place.script("cgi-bin/app.wsgi", "#!WSGATE --timeout 2", code);
    let (_exit, entrance) = pipe().unwrap();
    let entrance = File::from(entrance);
    fill(&entrance);
    let mut command: Command = place.request(&script);
    command.stdout(Stdio::piped()).stderr(Stdio::from(entrance));
    let mut running = RunningProcess::start(&mut command);
    let response = complete_response(running.await_end_of_output());
    running.signal(Signal::TERM);
    running.end();
    let pid = String::from_utf8(response.body).unwrap().parse().unwrap();
    assert!(exits_within(pid, Duration::from_secs(15)), "it has a limit");
}

#[test]
fn code_that_loads_slowly_is_loaded_though_the_log_is_full() {
    let (exit, entrance) = pipe().unwrap();
    let entrance = File::from(entrance);
    let code = talks(1) + "import time; time.sleep(32)";
    fill(&entrance);
    let pool = PoolSetup::new(&code).args(&["--preload", "yes"]).launch_to(entrance);
    thread::sleep(Duration::from_secs(33));
    responses(&pool, 1);
    ends(pool);
    drop(exit);
}

#[test]
fn messages_that_have_no_room_in_their_file_are_written_later() {
    let limit = |pid: i32, limit: &str| {
        let mut command = Command::new("/usr/bin/prlimit");
        command.args(["--pid", &pid.to_string(), &format!("--fsize={limit}:")]);
        assert!(command.status().unwrap().success());
    };
    let setup = PoolSetup::new(&talks(1));
    let path = setup.path("error.log");
    let pool = setup.launch_to(File::create(&path).unwrap());
    let log = || std::fs::read_to_string(&path).unwrap();
    eventually("the pool serves", || log().contains("W0710"));
    let worker = pool.workers(1)[0];
    limit(pool.pid(), "1");
    signal(worker, Signal::KILL);
    eventually("there is another worker", || {
        let workers = pool.workers(1);
        workers[0] != worker
    });
    assert!(!log().contains("W0701"), "{}", log());
    limit(pool.pid(), "unlimited");
    assert_eq!(pool.run_wsgate(&["status", "app"]).code(), Some(0));
    eventually("the message is written", || log().contains("W0701"));
    ends(pool);
}

//! The messages of a pool to its service manager (sd_notify(3)). The tests are the manager.

use std::{
    fs,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixDatagram},
    },
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use rustix::{
    process::Signal,
    time::{ClockId, clock_gettime},
};

use crate::{
    pool::{ECHO, only_log_message},
    support::{
        artefacts,
        child_process::{piped, run},
        fastcgi_client::FastcgiRequest,
        pool::{Pool, PoolSetup},
        waiting::DEADLINE,
    },
};

/// A service manager that listens.
struct Manager {
    socket: UnixDatagram,
    heard: Vec<String>,
}

impl Manager {
    fn at(path: &Path) -> Self {
        Self::on(UnixDatagram::bind(path).unwrap())
    }

    fn on(socket: UnixDatagram) -> Self {
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        Self { socket, heard: Vec::new() }
    }

    /// Listens until a message has a line that begins with `beginning`, and gives the rest of that
    /// line.
    #[track_caller]
    fn await_line(&mut self, beginning: &str) -> String {
        loop {
            let message = self
                .next()
                .unwrap_or_else(|error| panic!("no {beginning}: {error}, but {:?}", self.heard));
            if let Some(rest) = message.lines().find_map(|line| line.strip_prefix(beginning)) {
                return rest.to_owned();
            }
        }
    }

    fn next(&mut self) -> std::io::Result<String> {
        let mut message = [0; 4096];
        let length = self.socket.recv(&mut message)?;
        let message = String::from_utf8(message[..length].to_vec()).unwrap();
        self.heard.push(message.clone());
        Ok(message)
    }

    /// The first words of all messages, but for those about the status and signs of life. Nobody
    /// sends any more.
    fn sequence(mut self) -> Vec<String> {
        self.socket.set_nonblocking(true).unwrap();
        while self.next().is_ok() {}
        let first = self.heard.iter().map(|message| message.lines().next().unwrap().to_owned());
        first.filter(|word| !word.starts_with("STATUS=") && word != "WATCHDOG=1").collect()
    }
}

/// A pool whose service manager listens at `notify` beside its socket.
fn managed(code: &str) -> (PoolSetup, Manager) {
    let setup = PoolSetup::new(code);
    let path = setup.path("notify");
    let manager = Manager::at(&path);
    (setup.variable("NOTIFY_SOCKET", path), manager)
}

fn microseconds() -> i128 {
    let now = clock_gettime(ClockId::Monotonic);
    i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000
}

#[test]
fn ready_reloading_ready_and_stopping_are_sent_in_this_order() {
    let (setup, mut manager) = managed(ECHO);
    let pool = setup.args(&["--drain", "7"]).launch();
    manager.await_line("READY=1");
    assert_eq!(pool.ask(&FastcgiRequest::get("/")).text(), "/|");
    manager.await_line("STATUS=1 worker, generation 1");
    let before = microseconds();
    pool.signal(Signal::HUP);
    let at: i128 = manager.await_line("MONOTONIC_USEC=").parse().unwrap();
    assert!(manager.heard.last().unwrap().starts_with("RELOADING=1\n"), "{:?}", manager.heard);
    assert!((before..=microseconds()).contains(&at), "{at} is not between {before} and now");
    manager.await_line("READY=1");
    manager.await_line("STATUS=1 worker, generation 2");
    pool.signal(Signal::TERM);
    manager.await_line("STOPPING=1");
    // Requests have 7 s, then the exit of the template process has as long, and 5 s are a margin.
    assert_eq!(manager.heard.last().unwrap(), "STOPPING=1\nEXTEND_TIMEOUT_USEC=19000000\n");
    assert_eq!(pool.end().code(), Some(0));
    assert_eq!(manager.sequence(), ["READY=1", "RELOADING=1", "READY=1", "STOPPING=1"]);
}

#[test]
fn an_upgrade_is_a_reload_of_the_same_process_for_the_manager() {
    let (setup, mut manager) = managed(ECHO);
    let pool = setup.launch();
    manager.await_line("STATUS=1 worker, generation 1");
    pool.signal(Signal::USR2);
    manager.await_line("RELOADING=1");
    manager.await_line("READY=1");
    manager.await_line("STATUS=1 worker, generation 2");
    assert_eq!(pool.ask(&FastcgiRequest::get("/")).text(), "/|");
    pool.signal(Signal::TERM);
    manager.await_line("STOPPING=1");
    assert_eq!(pool.end().code(), Some(0));
    assert_eq!(manager.sequence(), ["READY=1", "RELOADING=1", "READY=1", "STOPPING=1"]);
}

#[test]
fn a_failed_reload_ends_with_ready_and_shows_in_the_status_until_one_succeeds() {
    let (setup, mut manager) = managed(ECHO);
    let mut pool = setup.launch();
    manager.await_line("STATUS=1 worker, generation 1");
    pool.setup().release("import there_is_no_such_module");
    pool.signal(Signal::HUP);
    pool.await_log("W0715");
    manager.await_line("RELOADING=1");
    manager.await_line("READY=1");
    manager.await_line("STATUS=1 worker, generation 1; the last reload failed");
    assert_eq!(pool.ask(&FastcgiRequest::get("/still")).text(), "/still|");
    pool.setup().release(ECHO);
    pool.signal(Signal::HUP);
    manager.await_line("RELOADING=1");
    manager.await_line("READY=1");
    assert_eq!(manager.await_line("STATUS=1 worker, generation 3"), "");
    pool.stop();
    let reloads = ["RELOADING=1", "READY=1"].repeat(2);
    assert_eq!(manager.sequence(), [&["READY=1"][..], &reloads, &["STOPPING=1"]].concat());
}

#[test]
fn a_reload_that_cannot_start_ends_at_once_for_all_waiting_clients() {
    let (setup, mut manager) = managed(ECHO);
    let home = setup.path("home");
    fs::create_dir(&home).unwrap();
    let setup = setup.args(&["--chdir", home.to_str().unwrap()]);
    let runtime_directory = setup.path("run");
    let pool = setup.launch();
    manager.await_line("STATUS=1 worker, generation 1");
    // No process can be started there any more.
    fs::remove_dir(&home).unwrap();
    let mut reload = Command::new(artefacts::gateway());
    let ended =
        run(piped(reload.args(["reload", "app"]).env("WSGATE_RUNTIME_DIR", runtime_directory)), "");
    assert_eq!(ended.code(), Some(1), "{}", ended.stderr);
    manager.await_line("RELOADING=1");
    manager.await_line("READY=1");
    manager.await_line("STATUS=1 worker, generation 1; the last reload failed");
    assert_eq!(pool.ask(&FastcgiRequest::get("/still")).text(), "/still|");
    pool.stop();
}

#[test]
fn an_application_that_cannot_be_loaded_is_never_ready() {
    let (setup, manager) = managed("import there_is_no_such_module");
    assert_eq!(setup.launch().end().code(), Some(1));
    assert_eq!(manager.sequence(), [""; 0]);
}

/// A pool that a shell becomes after `WATCHDOG_PID` was set to `pid`, a word of the shell.
fn watched(setup: PoolSetup, pid: &str) -> Pool {
    let code = format!("export WATCHDOG_PID={pid}; exec \"$@\"");
    setup.variable("WATCHDOG_USEC", "20000").launch_by(&["/bin/sh", "-c", &code, "sh"])
}

#[test]
fn watchdog_messages_repeat_while_nothing_else_happens() {
    let (setup, mut manager) = managed(ECHO);
    let pool = watched(setup, "$$");
    manager.await_line("READY=1");
    for _ in 0..20 {
        manager.await_line("WATCHDOG=1");
    }
    pool.stop();
    assert_eq!(manager.sequence(), ["READY=1", "STOPPING=1"]);
}

#[test]
fn a_watchdog_message_is_sent_at_once_after_a_stop() {
    let (setup, mut manager) = managed(ECHO);
    let mut pool = setup.variable("WATCHDOG_USEC", "12000000").launch();
    pool.await_log("W0710");
    manager.await_line("WATCHDOG=1");
    // The first one comes when the pool starts.
    manager.await_line("WATCHDOG=1");
    pool.signal(Signal::STOP);
    std::thread::sleep(Duration::from_secs(7));
    pool.signal(Signal::CONT);
    let begin = Instant::now();
    manager.await_line("WATCHDOG=1");
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
    pool.stop();
}

#[test]
fn watchdog_messages_of_another_process_are_left_to_it() {
    let (setup, mut manager) = managed(ECHO);
    let pool = watched(setup, "1");
    manager.await_line("READY=1");
    for _ in 0..20 {
        pool.ask(&FastcgiRequest::get("/"));
    }
    pool.stop();
    manager.await_line("STOPPING=1");
    assert!(
        !manager.heard.iter().any(|message| message.contains("WATCHDOG")),
        "{:?}",
        manager.heard
    );
}

#[test]
fn the_socket_of_the_manager_may_have_an_abstract_name() {
    let setup = PoolSetup::new(ECHO);
    // The directory of the test names it, so that it is nobody else's.
    let name = setup.path("notify").display().to_string();
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let mut manager = Manager::on(UnixDatagram::bind_addr(&address).unwrap());
    let pool = setup.variable("NOTIFY_SOCKET", format!("@{name}")).launch();
    manager.await_line("READY=1");
    pool.stop();
    assert_eq!(manager.sequence(), ["READY=1", "STOPPING=1"]);
}

#[test]
fn a_missing_service_manager_is_logged_once_and_does_no_harm() {
    for name in ["/no/such/socket", "@no such abstract socket", "vsock:2:1234", "relative"] {
        let mut pool = PoolSetup::new(ECHO)
            .variable("NOTIFY_SOCKET", name)
            .variable("WATCHDOG_USEC", "2000")
            .launch();
        pool.await_log("W0710");
        assert_eq!(pool.ask(&FastcgiRequest::get("/")).text(), "/|");
        pool.signal(Signal::HUP);
        pool.await_log("W0711");
        let log = pool.stop();
        assert!(only_log_message(&log, "W0731").contains(&format!("`{name}`")), "{log}");
    }
}

#[test]
fn a_manager_that_does_not_listen_for_a_while_is_not_waited_for_and_hears_all_later() {
    let (setup, mut manager) = managed(ECHO);
    let mut pool = setup.variable("WATCHDOG_USEC", "1000").launch();
    pool.await_log("W0710");
    // The kernel keeps but a few messages for it, and signs of life come all the time.
    for _ in 0..20 {
        assert_eq!(pool.ask(&FastcgiRequest::get("/")).text(), "/|");
        assert_eq!(pool.run_wsgate(&["reload", "app"]).code(), Some(0));
    }
    for _ in 0..20 {
        manager.await_line("RELOADING=1");
        manager.await_line("READY=1");
    }
    pool.stop();
    let reloads = ["RELOADING=1", "READY=1"].repeat(20);
    assert_eq!(manager.sequence(), [&["READY=1"][..], &reloads, &["STOPPING=1"]].concat());
}

//! Listening sockets that the parent of the pool has made: by number, and as systemd passes them
//! (sd_listen_fds(3)).

use std::{fs, net::TcpListener, path::Path};

use rustix::process::Signal;

use crate::{
    pool::{ECHO, only_log_message},
    support::{
        child_process::ExitedProcess,
        fastcgi_client::{FastcgiConnection, FastcgiRequest},
        pool::{Pool, PoolSetup, children},
    },
};

/// Tells the variables of its process, and what a program that it starts has inherited.
const INSPECTS: &str = "
    import os, subprocess
    def application(environ, start_response):
        program = subprocess.run(['ls', '-l', '/proc/self/fd'], close_fds=False, \
        capture_output=True, text=True)
        start_response('200 OK', [('Content-Type', 'text/plain'), ('X-Pid', str(os.getpid()))])
        return [('\\n'.join(sorted(os.environ)) + '\\n|' + program.stdout).encode()]
    ";

/// Prefixes of variables that must not reach an application.
const OF_THE_MANAGER: [&str; 3] = ["LISTEN_", "NOTIFY_", "WATCHDOG_"];

/// A Python that does `code`, in which `have(N, socket)` makes a descriptor number N, and becomes
/// the pool then.
fn after(setup: PoolSetup, code: &str) -> Pool {
    let code = format!(
        "
import fcntl, os, socket, sys
os.closerange(3, 100)
os.chdir({directory:?})
made = {{}}
def have(number, what):
    # Out of the way of the numbers that are asked for.
    made[number] = fcntl.fcntl(what, fcntl.F_DUPFD_CLOEXEC, 100)
def listener(path='app.sock'):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    return listener
{code}
for number in made:
    os.dup2(made[number], number)
os.execv(sys.argv[1], sys.argv[1:])
",
        directory = setup.path("").display().to_string(),
    );
    setup.launch_by(&["/usr/bin/python3", "-c", &code])
}

/// A pool that the real `systemd-socket-activate` starts, with `args` for that, at the first
/// connection.
fn activated(setup: PoolSetup, args: &[&str]) -> Pool {
    let assignments = setup.assignments();
    let variables = assignments.iter().flat_map(|assignment| ["-E", assignment]);
    let all: Vec<&str> = ["systemd-socket-activate"]
        .into_iter()
        .chain(args.iter().copied())
        .chain(variables)
        .collect();
    let mut pool = setup.listen(&[]).launch_by(&all);
    pool.await_log("Listening on");
    pool
}

/// The address in the line that says that the pool serves, of those it lists.
fn address(pool: &Pool, position: usize) -> String {
    let log = pool.log();
    let line = log.lines().find(|line| line.contains("W0710")).unwrap();
    line.split('`').skip(3).step_by(2).nth(position).unwrap().to_owned()
}

#[test]
fn sockets_of_systemd_are_served_and_left_unchanged() {
    let setup = PoolSetup::new(ECHO);
    let path = setup.path("app.sock").display().to_string();
    // systemd-socket-activate accepts no port 0. The test uses its own address of the loopback
    // network.
    let [.., high, low] = std::process::id().to_be_bytes();
    let host = format!("127.{high}.{low}.77");
    let port = TcpListener::bind((host.as_str(), 0)).unwrap().local_addr().unwrap().port();
    let mut pool = activated(setup, &["-l", &path, "-l", &format!("{host}:{port}")]);
    // systemd starts it for the first connection, and hands that over unread.
    assert_eq!(pool.connect().ask(&FastcgiRequest::post("/first", "body")).text(), "/first|body");
    pool.await_log("W0710");
    assert_eq!(address(&pool, 0), format!("unix:{path}"));
    for number in 0..3 {
        let asked = format!("/{number}");
        assert_eq!(
            FastcgiConnection::tcp(&address(&pool, 1)).ask(&FastcgiRequest::get(&asked)).text(),
            format!("{asked}|")
        );
        assert_eq!(pool.ask(&FastcgiRequest::get(&asked)).text(), format!("{asked}|"));
    }
    // One worker with a supervisor: systemd starts one process only.
    assert_eq!(pool.workers(1).len(), 1);
    pool.signal(Signal::HUP);
    pool.await_log("W0711");
    assert_eq!(pool.ask(&FastcgiRequest::get("/reloaded")).text(), "/reloaded|");
    pool.signal(Signal::TERM);
    let (ended, setup) = pool.end_and_leave();
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    assert!(setup.path("app.sock").exists(), "the socket is systemd's");
}

#[test]
fn applications_and_their_programs_get_no_variables_and_sockets_of_systemd() {
    let setup = PoolSetup::new(INSPECTS);
    let path = setup.path("app.sock").display().to_string();
    let pool = activated(
        setup,
        &["-l", &path, "--fdname", "web", "-E", "WATCHDOG_USEC=60000000", "-E", "KEPT=1"],
    );
    let response = pool.ask(&FastcgiRequest::get("/"));
    let text = response.text();
    let (names, program) = text.split_once('|').unwrap();
    let of_the_manager = |name: &&str| OF_THE_MANAGER.iter().any(|prefix| name.starts_with(prefix));
    assert_eq!(names.lines().find(of_the_manager), None);
    assert!(names.lines().any(|name| name == "KEPT"), "{names}");
    assert!(!program.contains("socket:") && program.contains("pipe:"), "{program}");
    // The worker has the socket open once. The descriptor number of systemd is free again.
    let known = fs::read_to_string("/proc/net/unix").unwrap();
    let fields = known.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let listening = fields.filter(|fields| {
        fields.get(3) == Some(&"00010000") && fields.get(7) == Some(&path.as_str())
    });
    let link = listening.map(|fields| format!("socket:[{}]", fields[6])).next().unwrap();
    let open = fs::read_dir(format!("/proc/{}/fd", response.pid())).unwrap();
    let links = open.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
    assert_eq!(links.filter(|found| found.to_str() == Some(link.as_str())).count(), 1);
    pool.stop();
}

#[test]
fn f03_an_inherited_socket_may_have_any_number_and_family() {
    let code = "
have(7, listener())
for number, family, host in (19, socket.AF_INET, '127.0.0.1'), (3, socket.AF_INET6, '::1'):
    tcp = socket.socket(family)
    tcp.bind((host, 0))
    tcp.listen()
    have(number, tcp)
";
    let mut pool = after(PoolSetup::new(ECHO).listen(&["fd:7", "fd:19", "fd:3"]), code);
    pool.await_log("W0710");
    assert_eq!(pool.ask(&FastcgiRequest::post("/7", "body")).text(), "/7|body");
    for (position, path) in [(1, "/19"), (2, "/3")] {
        assert_eq!(
            FastcgiConnection::tcp(&address(&pool, position))
                .ask(&FastcgiRequest::get(path))
                .text(),
            format!("{path}|")
        );
    }
    // The started process is a supervisor, not a worker as on standard input.
    assert_eq!(children(pool.pid()).len(), 1);
    pool.signal(Signal::TERM);
    let (ended, setup) = pool.end_and_leave();
    assert_eq!(
        (ended.code(), setup.path("app.sock").exists()),
        (Some(0), true),
        "{}",
        ended.stderr
    );
}

#[test]
fn inherited_sockets_and_own_sockets_are_served_together() {
    let setup = PoolSetup::new(ECHO);
    let own = setup.path("own.sock");
    let mut pool =
        after(setup.listen(&[&format!("unix:{}", own.display()), "fd:5"]), "have(5, listener())");
    pool.await_log("W0710");
    assert_eq!(pool.ask(&FastcgiRequest::get("/inherited")).text(), "/inherited|");
    assert_eq!(FastcgiConnection::unix(&own).ask(&FastcgiRequest::get("/own")).text(), "/own|");
    pool.signal(Signal::TERM);
    let (ended, setup) = pool.end_and_leave();
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    assert_eq!((setup.path("app.sock").exists(), own.exists()), (true, false));
}

/// Asserts that the pool does not start without a listener, and returns the reason.
#[track_caller]
fn refused(ended: &ExitedProcess) -> String {
    assert_eq!(ended.code(), Some(78), "{}", ended.stderr);
    assert!(ended.stderr.contains("\nhint: "), "{}", ended.stderr);
    let line = ended.stderr.lines().find(|line| line.contains("error[W0720]"));
    line.unwrap_or_else(|| panic!("{}", ended.stderr)).to_owned()
}

#[test]
fn a_descriptor_that_is_no_listening_socket_is_named_and_refused() {
    for (code, complaint) in [
        ("", "`9` is not open"),
        ("have(9, open('app.wsgi'))", "`9` is not a socket"),
        ("have(9, os.pipe()[0])", "`9` is not a socket"),
        ("have(9, socket.socketpair()[0])", "`9` is not a listening socket"),
        ("have(9, socket.socket(socket.AF_INET))", "`9` is not a listening socket"),
        ("have(9, socket.socket(socket.AF_INET, socket.SOCK_DGRAM))", "`9` is not a stream socket"),
        (
            "packets = socket.socket(socket.AF_UNIX, \
                socket.SOCK_SEQPACKET)\npackets.bind('a')\npackets.listen()\nhave(9, packets)",
            "`9` is not a stream socket",
        ),
    ] {
        let ended = after(PoolSetup::new(ECHO).listen(&["fd:9"]), code).end();
        let complained = refused(&ended);
        assert!(complained.contains(complaint), "{code}: {complained}");
    }
    let ended = after(PoolSetup::new(ECHO).listen(&["fd:9", "fd:9"]), "have(9, listener())").end();
    assert_eq!(ended.code(), Some(2), "{}", ended.stderr);
    assert!(ended.stderr.contains("--listen names `fd:9` twice"), "{}", ended.stderr);
}

/// Low numbers are those of the first descriptors that a program opens for itself.
#[test]
fn a_descriptor_of_the_gateway_itself_is_not_taken_for_an_inherited_one() {
    for number in 3..24 {
        let word = format!("fd:{number}");
        let setup = PoolSetup::new(ECHO).listen(&["127.0.0.1:0", &word, "fd:30"]);
        let ended = after(setup, "have(30, listener())").end();
        assert!(refused(&ended).contains(&format!("`{number}` is not open")), "{}", ended.stderr);
    }
}

#[test]
fn sockets_that_were_passed_to_another_process_are_not_served() {
    let setup = PoolSetup::new(ECHO).variable("LISTEN_PID", "1").variable("LISTEN_FDS", "3");
    let pool = setup.start();
    assert_eq!(pool.ask(&FastcgiRequest::get("/own")).text(), "/own|");
    pool.stop();
    // A shell stands between, and does not become wsgate.
    let setup = PoolSetup::new(ECHO);
    let path = setup.path("app.sock").display().to_string();
    let assignments = setup.assignments();
    let mut args = vec!["systemd-socket-activate", "-l", &path];
    args.extend(assignments.iter().flat_map(|assignment| ["-E", assignment]));
    args.extend(["sh", "-c", "\"$@\" </dev/null; exit $?", "sh"]);
    let mut pool = setup.listen(&[]).launch_by(&args);
    pool.await_log("Listening on");
    let _connection = pool.connect();
    let pid = pool.pid();
    assert!(refused(&pool.end()).contains(&format!("passed to process `{pid}`")));
}

#[test]
fn passed_sockets_that_are_not_served_are_logged() {
    let code = "
have(3, listener())
have(4, listener('other.sock'))
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='2')
";
    let mut pool = after(PoolSetup::new(ECHO).listen(&["fd:3"]), code);
    pool.await_log("W0710");
    assert_eq!(pool.ask(&FastcgiRequest::get("/")).text(), "/|");
    let log = pool.stop();
    assert!(only_log_message(&log, "W0721").contains("descriptor `4`"), "{log}");
}

#[test]
fn a_service_manager_that_passes_something_else_is_refused() {
    let ours = "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=";
    for (code, complaint) in [
        (format!("have(3, listener())\n{ours}'2')"), "`4` is not open"),
        (
            format!("have(3, listener())\nhave(4, socket.socketpair()[0])\n{ours}'2')"),
            "`4` is not a listening socket",
        ),
        (format!("{ours}'many')"), "LISTEN_FDS is `many`"),
        (format!("{ours}'-1')"), "LISTEN_FDS is `-1`"),
        (format!("{ours}'0')"), "standard input is not a listening socket"),
    ] {
        let ended = after(PoolSetup::new(ECHO).listen(&[]), &code).end();
        let complained = refused(&ended);
        assert!(complained.contains(complaint), "{code}: {complained}");
    }
}

#[test]
fn several_workers_may_share_a_socket_on_standard_input() {
    let setup = PoolSetup::new(ECHO).args(&["--workers", "2"]);
    let path = setup.path("app.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let mut pool = setup.start_on(listener);
    pool.await_log("W0710");
    assert_eq!(pool.workers(2).len(), 2);
    assert_eq!(pool.ask(&FastcgiRequest::get("/")).text(), "/|");
    assert_eq!(Path::new(address(&pool, 0).strip_prefix("unix:").unwrap()), path);
    pool.stop();
    assert!(!path.exists(), "the directory of the test was removed");
}

//! Limits of the kernel and signals that nobody handles: each request has a valid response, and no
//! process that others need ends.

mod control_groups;
mod defaults;
mod memory;
mod processes;
mod timeouts;

use std::process::Command;

use crate::{
    each_mode::{MODES, Mode, ServedApp},
    support::{
        assertions::{codes, complete_response, only_log_message},
        child_process::run,
        install_dir::InstallDir,
        probe::python,
        web_servers::eventually,
    },
};

/// Leaves timers at some paths, and takes longer than these run at others.
const TIMERS: &str = "
    import os, signal, time
    TICKS = []
    def tick(number, frame):
        TICKS[0] += 1
    def fail(number, frame):
        raise TimeoutError('a timer')
    def application(environ, start_response):
        path = environ['PATH_INFO']
        if path == '/leave':
            signal.setitimer(signal.ITIMER_REAL, 0.3)
        elif path == '/leave-handled':
            signal.signal(signal.SIGALRM, fail)
            signal.setitimer(signal.ITIMER_REAL, 0.3)
        elif path == '/slow':
            time.sleep(0.6)
        elif path == '/own':
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            time.sleep(30)
        elif path == '/start':
            TICKS.append(0)
            signal.signal(signal.SIGALRM, tick)
            signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
        elif path == '/ticks' and TICKS:
            before = TICKS[0]
            while TICKS[0] < before + 3:
                time.sleep(0.01)
        start_response('200 OK', [('Content-Type', 'text/plain')])
        return [b'%d' % os.getpid()]
    ";

/// Returns whether a process in this mode serves several requests.
fn stays(mode: Mode) -> bool {
    !matches!(mode, Mode::Cold | Mode::Warm)
}

/// Can the application handle signals in this mode, which Python does in the main thread alone?
fn handles_signals(mode: Mode) -> bool {
    !matches!(mode, Mode::Preloaded(2..) | Mode::NotPreloaded(2..))
}

#[test]
fn a_timer_that_a_request_leaves_behind_does_not_hit_the_next_one() {
    for mode in MODES {
        for path in ["/leave", "/leave-handled"] {
            if path == "/leave-handled" && !handles_signals(mode) {
                continue;
            }
            let mut served = ServedApp::start(mode, &[], TIMERS);
            let first = served.ask(path);
            let second = served.ask("/slow");
            let log = served.stop();
            assert!(!stays(mode) || mode == Mode::Resident || first == second, "{mode:?}: {log}");
            let expected: &[&str] = if stays(mode) { &["W0609"] } else { &[] };
            assert_eq!(codes(&log), expected, "{mode:?}: {log}");
        }
    }
}

#[test]
fn a_timer_ends_the_request_that_started_it() {
    for mode in MODES {
        let mut served = ServedApp::start(mode, &[], TIMERS);
        let response = served.request("GET", "/own", &[], b"");
        if served.pool().is_none() {
            assert_eq!(response.status, "502 Bad Gateway", "{mode:?}: {response:?}");
        }
        if mode != Mode::Lone {
            served.ask("/slow");
        }
        // A lone worker has ended by the signal.
        let log = if mode == Mode::Lone { String::new() } else { served.stop() };
        if matches!(mode, Mode::Cold | Mode::Preloaded(_) | Mode::NotPreloaded(_)) {
            assert!(
                log.contains("killed by SIGALRM") && log.contains("`signal.alarm`"),
                "{mode:?}: {log}"
            );
        }
    }
}

#[test]
fn a_timer_that_repeats_stays_for_profilers() {
    for mode in MODES.into_iter().filter(|&mode| stays(mode) && handles_signals(mode)) {
        let mut served = ServedApp::start(mode, &[], TIMERS);
        let starter = served.ask("/start");
        // A resident process that is still finishing a request leaves the next one to another.
        for _ in 0..2 {
            eventually("the process with the timer answers", || served.ask("/ticks") == starter);
        }
        let log = served.stop();
        assert_eq!(codes(&log), [""; 0], "{mode:?}: {log}");
    }
}

#[test]
fn a_timer_that_loading_leaves_behind_ends_no_process_of_a_pool() {
    let code = format!("{TIMERS}\n    signal.setitimer(signal.ITIMER_REAL, 0.3)");
    for mode in MODES.into_iter().filter(|&mode| mode != Mode::Cold) {
        let mut served = ServedApp::start(mode, &[], &code);
        let first = served.ask("/slow");
        let second = served.ask("/slow");
        let log = served.stop();
        assert!(!stays(mode) || mode == Mode::Resident || first == second, "{mode:?}: {log}");
        let loads_itself = matches!(mode, Mode::NotPreloaded(_) | Mode::Lone);
        let expected: &[&str] = if loads_itself { &["W0609"] } else { &[] };
        assert_eq!(codes(&log), expected, "{mode:?}: {log}");
    }
}

/// `command`, as a program with this limit of Python's module `resource` starts it.
fn limited(command: &Command, limit: &str, value: u64) -> Command {
    let code = format!(
        "import os, resource, sys; resource.setrlimit(resource.{limit}, ({value}, {value})); \
         os.execv(sys.argv[1], sys.argv[1:])"
    );
    let mut limited = Command::new(python());
    limited.args(["-c", &code]).arg(command.get_program()).args(command.get_args()).env_clear();
    limited.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    limited
}

#[test]
fn a_limit_that_prevents_the_start_of_python_is_named_on_an_error_page() {
    let dir = InstallDir::new();
    let script = dir.script("cgi-bin/app.wsgi", "#!WSGATE", TIMERS);
    for (limit, value, name) in
        [("RLIMIT_FSIZE", 0, "ulimit -f"), ("RLIMIT_NOFILE", 6, "ulimit -n")]
    {
        let mut command = limited(&dir.request(&script), limit, value);
        let ended = run(&mut command, "");
        assert_eq!(ended.code(), Some(0), "{limit}: {}", ended.stderr);
        assert!([500, 503].contains(&complete_response(&ended.stdout).status), "{limit}");
        only_log_message(&ended.stderr, "W0204");
        assert!(ended.stderr.contains(name), "{limit}: {}", ended.stderr);
    }
}

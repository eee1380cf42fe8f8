//! Signals from the web server and from elsewhere.

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    guard::{marked, nothing_is_left_of, page_of},
    support::{
        assertions::{codes, complete_response, only_log_message, parse_response},
        child_process::{RunningProcess, piped},
        install_dir::InstallDir,
        probe::{Implementation, Probe},
        web_servers::wait_for_exit,
    },
};

/// Says its process id and works on.
const WORKING: &str = "
    import os, signal, subprocess, time
    def application(environ, start_response):
        if 'DEAF' in os.environ:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if 'CHILDREN' in os.environ:
            subprocess.Popen(['sleep', '1000'])
        if 'BEGUN' in os.environ:
            start_response('200 OK', [('Content-Type', 'text/plain')])(b'begun')
        print('pid', os.getpid(), 'works')
        time.sleep(1000)
    ";

/// The gateway at work, and the process id of its python.
fn working(variables: &[&str]) -> (Probe, RunningProcess, i32) {
    let probe = variables.iter().fold(Probe::new(WORKING), |probe, name| probe.variable(name, "1"));
    let mark = probe.directory().display().to_string();
    let probe = probe.variable("MARK", mark);
    let mut running = RunningProcess::start(piped(&mut probe.command(Implementation::Wsgate)));
    running.await_log(" works\n");
    let log = running.log();
    let pid =
        log.split_whitespace().skip_while(|&word| word != "pid").nth(1).unwrap().parse().unwrap();
    (probe, running, pid)
}

fn mark_of(probe: &Probe) -> String {
    format!("MARK={}", probe.directory().display())
}

#[test]
fn a_sigterm_of_the_web_server_is_passed_on_and_leaves_no_process_behind() {
    let timers = [Signal::ALARM, Signal::VTALARM, Signal::PROF, Signal::XCPU];
    let others =
        [Signal::QUIT, Signal::USR1, Signal::USR2, Signal::IO, Signal::POWER, Signal::STKFLT];
    for signal in [&[Signal::TERM, Signal::INT, Signal::HUP][..], &timers, &others].concat() {
        let (probe, running, _) = working(&["CHILDREN"]);
        assert!(!marked(&mark_of(&probe)).is_empty());
        running.signal(signal);
        let ended = running.end();
        let code = if signal == Signal::INT { 130 } else { 0 };
        assert_eq!(
            (complete_response(&ended.stdout).status, ended.code()),
            (503, Some(code)),
            "{ended:?}"
        );
        let message = only_log_message(&ended.stderr, "W0606");
        if [Signal::TERM, Signal::INT, Signal::HUP].contains(&signal) {
            assert!(message.contains(&format!("SIG{}", name_of(signal))), "{message}");
        } else {
            assert!(message.contains("by a signal that its gateway received"), "{message}");
            assert!(!message.contains("SIGTERM"), "{message}");
        }
        assert!(!ended.stderr.contains("web server ended"), "{}", ended.stderr);
        nothing_is_left_of(&mark_of(&probe));
    }
}

fn name_of(signal: Signal) -> &'static str {
    match signal {
        Signal::INT => "INT",
        Signal::HUP => "HUP",
        _ => "TERM",
    }
}

#[test]
fn an_application_that_ignores_sigterm_is_killed() {
    let (probe, running, _) = working(&["DEAF", "CHILDREN"]);
    running.signal(Signal::TERM);
    page_of(&running.end(), 503, "W0606");
    nothing_is_left_of(&mark_of(&probe));
}

#[test]
fn a_sigterm_after_the_response_headers_cuts_the_response() {
    for deaf in [&["BEGUN"][..], &["BEGUN", "DEAF"]] {
        let (_, running, _) = working(deaf);
        running.signal(Signal::TERM);
        let ended = running.end();
        assert_eq!(parse_response(&ended.stdout).unwrap().body, b"begun");
        assert_eq!(ended.code(), Some(1));
        only_log_message(&ended.stderr, "W0606");
    }
}

#[test]
fn a_second_signal_changes_nothing() {
    let (_, running, _) = working(&["DEAF"]);
    running.signal(Signal::TERM);
    running.signal(Signal::HUP);
    running.signal(Signal::TERM);
    page_of(&running.end(), 503, "W0606");
}

#[test]
fn python_does_not_outlive_a_gateway_that_is_killed() {
    for variables in [&[][..], &["DEAF"], &["BEGUN"]] {
        let (_, running, python) = working(variables);
        running.signal(Signal::KILL);
        wait_for_exit(python);
        assert_eq!(codes(&running.end().stderr), [""; 0]);
    }
}

#[test]
fn a_python_that_is_killed_from_outside_is_answered_for() {
    for (signal, status, code) in
        [(Signal::KILL, 502, "W0603"), (Signal::SEGV, 502, "W0603"), (Signal::TERM, 503, "W0606")]
    {
        let (_, running, python) = working(&[]);
        kill_process(Pid::from_raw(python).unwrap(), signal).unwrap();
        page_of(&running.end(), status, code);
    }
}

#[test]
fn a_python_that_is_stopped_and_continued_serves_its_request() {
    let app = "
        import os
        def application(environ, start_response):
            print('pid', os.getpid(), 'works')
            os.read(os.open(environ['GATE'], os.O_RDONLY), 1)
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'done']
        ";
    let probe = Probe::new(app);
    let gate = crate::support::child_process::Gate::new(probe.directory());
    let path = gate.path().to_owned();
    let probe = probe.variable("GATE", path);
    let mut running = RunningProcess::start(piped(&mut probe.command(Implementation::Wsgate)));
    running.await_log(" works\n");
    let log = running.log();
    let python = Pid::from_raw(log.split_whitespace().nth(1).unwrap().parse().unwrap()).unwrap();
    // The gateway hears of both and must not take either for an end.
    kill_process(python, Signal::STOP).unwrap();
    kill_process(python, Signal::CONT).unwrap();
    gate.open();
    let ended = running.end();
    assert_eq!((ended.code(), codes(&ended.stderr).len()), (Some(0), 0), "{}", ended.stderr);
    assert!(ended.text().ends_with("done"));
}

#[test]
fn signals_that_the_web_server_ignores_or_blocks_do_not_make_a_request_endless() {
    // Web servers block or ignore signals for themselves, and programs that they start inherit
    // that.
    let dir = InstallDir::new();
    let script =
        dir.script("cgi-bin/app.wsgi", "#!WSGATE --timeout 1", "import time\ntime.sleep(1000)\n");
    for setting in [
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)",
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN)",
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGCHLD, signal.SIGABRT, \
         signal.SIGHUP})",
    ] {
        let mut command = std::process::Command::new(crate::support::probe::python());
        dir.describe(&mut command, &script);
        let start =
            format!("import os, signal, sys; {setting}; os.execv(sys.argv[1], sys.argv[1:])");
        let ended =
            crate::support::child_process::run(command.args(["-c", &start]).arg(&script), "");
        page_of(&ended, 504, "W0305");
    }
}

#[test]
fn a_sigterm_after_the_response_makes_no_message() {
    // Web servers tell a program to end that still runs when they have its response.
    let app = "
        import atexit, os, signal, time
        def application(environ, start_response):
            if 'DEAF' in os.environ:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
            atexit.register(time.sleep, 1000)
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'done']
        ";
    for deaf in [None, Some("DEAF")] {
        let probe = Probe::new(app);
        let mark = probe.directory().display().to_string();
        let probe =
            deaf.iter().fold(probe.variable("MARK", mark), |probe, name| probe.variable(name, "1"));
        // Of a pipe somebody may wait for the end, so that the response would not end before.
        let log = probe.directory().join("error.log");
        let mut command = probe.command(Implementation::Wsgate);
        let mut running =
            RunningProcess::start(piped(&mut command).stderr(std::fs::File::create(&log).unwrap()));
        assert!(running.await_end_of_output().ends_with(b"done"));
        running.signal(Signal::TERM);
        let (code, log) = (running.end().code(), std::fs::read_to_string(log).unwrap());
        assert_eq!((code, codes(&log).len()), (Some(0), 0), "{deaf:?}: {log}");
        nothing_is_left_of(&mark_of(&probe));
    }
}

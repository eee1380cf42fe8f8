//! Linux 4.18, the kernel of Enterprise Linux 8 and of many shared hosts: what came later is
//! missing, and everything works.
//!
//! `linux_4_18.py` emulates it by a seccomp filter, and runs the ignored tests below in a process
//! of their own, so that nothing of the harness is left out.

use std::{fs, process::Command};

use crate::{
    each_mode::{MODES, Mode, ServedApp},
    pool::{PoolSetup, children},
    support::{child_process::run, fastcgi_client::FastcgiRequest, web_servers::source},
    warm::{TELLS_ITSELF, WarmSite},
};

/// The exit status of the emulation where the kernel refuses the filter.
const NO_SECCOMP: i32 = 77;

/// Runs an ignored test of this file on the emulated kernel.
#[track_caller]
fn on_linux_4_18(test: &str) {
    on_linux_4_18_with(&[], test);
}

/// The same, with `variables` for the emulation.
#[track_caller]
fn on_linux_4_18_with(variables: &[&str], test: &str) {
    let mut command = Command::new("/usr/bin/python3");
    command.arg(source("tests/old_kernel/linux_4_18.py")).arg(std::env::current_exe().unwrap());
    command.args(["--exact", "--ignored", "--nocapture", &format!("old_kernel::{test}")]);
    command.envs(variables.iter().map(|name| (name, "1")));
    let ended = run(&mut command, "");
    if ended.code() == Some(NO_SECCOMP) {
        // Nobody would see there that these tests test nothing.
        assert_ne!(
            std::env::var("CI").as_deref(),
            Ok("true"),
            "the kernel refuses a seccomp filter"
        );
        return;
    }
    assert!(ended.text().contains("1 passed"), "{}\n{}", ended.text(), ended.stderr);
}

/// Tells how it is served: by a process of its own, or one that was forked.
const ECHOES: &str = "
    import os, subprocess
    BORN = os.getpid()
    def application(environ, start_response):
        if environ['PATH_INFO'] == '/exit':
            os._exit(3)
        body = environ['wsgi.input'].read(int(environ.get('CONTENT_LENGTH') or 0))
        child = subprocess.run(['echo', 'child'], stdout=subprocess.PIPE).stdout.strip()
        start_response('200 OK', [('Content-Type', 'text/plain')])
        return [b'%s %s %s' % (body, child, b'forked' if BORN != os.getpid() else b'loaded')]
    ";

#[test]
fn every_mode_serves() {
    on_linux_4_18("serve_in_every_mode");
}

#[test]
fn every_mode_serves_where_a_pipe_cannot_signal() {
    on_linux_4_18_with(&["WSGATE_TEST_NO_F_SETSIG"], "serve_in_every_mode");
}

#[test]
#[ignore = "run by `every_mode_serves` on the emulated kernel"]
fn serve_in_every_mode() {
    for mode in MODES {
        let mut served = ServedApp::start(mode, &["--timeout", "10"], ECHOES);
        let how = if matches!(mode, Mode::Warm | Mode::Resident | Mode::Preloaded(_)) {
            "forked"
        } else {
            "loaded"
        };
        for number in 0..5 {
            let body = format!("body{number}");
            let response = served.request("POST", "/", &[], body.as_bytes());
            assert_eq!(
                response.text(),
                format!("{body} child {how}"),
                "{mode:?}: {}",
                served.log()
            );
        }
        // A process that ends is noticed. A worker without a supervisor would be gone.
        if mode != Mode::Lone {
            let response = served.request("GET", "/exit", &[], b"");
            if matches!(mode, Mode::Cold | Mode::Warm | Mode::Resident) {
                assert!(
                    ["500 Internal Server Error", "502 Bad Gateway"]
                        .contains(&response.status.as_str()),
                    "{mode:?}"
                );
            }
            assert_eq!(served.ask("/"), format!(" child {how}"), "{mode:?}");
        }
        let log = served.stop();
        let mishaps = ["W0801", "W0802", "Traceback"].map(|word| log.contains(word));
        assert_eq!(mishaps, [false; 3], "{mode:?}: {log}");
    }
}

#[test]
fn slow_and_aborted_requests_end() {
    on_linux_4_18("end_slow_and_unwanted_requests");
}

#[test]
#[ignore = "run by `slow_and_aborted_requests_end` on the emulated kernel"]
fn end_slow_and_unwanted_requests() {
    let code = "
        import signal, time
        def application(environ, start_response):
            if environ['PATH_INFO'] == '/deaf':
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
            if environ['PATH_INFO'] not in ('', '/'):
                time.sleep(1000)
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'done']
        ";
    for mode in MODES {
        let served = ServedApp::start(mode, &["--timeout", "1"], code);
        let response = served.request("GET", "/slow", &[], b"");
        // A thread that sleeps in C code cannot be interrupted, and ends with its worker.
        if !matches!(mode, Mode::Preloaded(3) | Mode::NotPreloaded(3) | Mode::Lone) {
            assert_eq!(response.status, "504 Gateway Timeout", "{mode:?}: {}", served.log());
        }
        if matches!(mode, Mode::Cold | Mode::Warm | Mode::Resident) {
            let response = served.request("GET", "/deaf", &[], b"");
            assert_eq!(response.status, "504 Gateway Timeout", "{mode:?}: {}", served.log());
        }
    }
}

#[test]
fn dynamic_pools_call_and_check_work() {
    on_linux_4_18("use_dynamic_pools_call_and_check");
}

#[test]
#[ignore = "run by `dynamic_pools_call_and_check_work` on the emulated kernel"]
fn use_dynamic_pools_call_and_check() {
    let pool = PoolSetup::new(ECHOES).dynamic(&["--max", "3", "--idle", "1"]).start();
    let response = pool.output(1, &[("REQUEST_METHOD", "GET"), ("PATH_INFO", "/")], b"").stdout;
    assert!(response.ends_with(b" child forked"), "{:?}", String::from_utf8_lossy(&response));
    pool.stop();
    // A place that every user can read, as `check` wants it.
    let dir = crate::support::install_dir::InstallDir::new();
    let script = dir.file("app.wsgi", ECHOES);
    for (args, expected) in [(["call"], "child loaded"), (["check"], "import ")] {
        let mut command = Command::new(dir.wsgate());
        let ended = run(
            command.args(args).arg("--python").arg(crate::support::probe::python()).arg(&script),
            "",
        );
        assert!(ended.text().contains(expected), "{args:?}: {}", ended.text());
        assert_eq!(ended.code(), Some(0), "{args:?}: {}{}", ended.text(), ended.stderr);
    }
}

#[test]
fn a_worker_that_exits_does_not_end_the_others() {
    on_linux_4_18("keep_workers_when_the_pipe_of_the_template_signals");
}

/// Before Linux 5.6 the exit of one worker signals all processes that wait for the template's pipe,
/// as a write to the pipe does on any kernel.
#[test]
#[ignore = "run by `a_worker_that_exits_does_not_end_the_others` on the emulated kernel"]
fn keep_workers_when_the_pipe_of_the_template_signals() {
    let pool = PoolSetup::new(ECHOES).args(&["--workers", "3", "--preload", "yes"]).start();
    let (template, workers) = (pool.template(), pool.workers(3));
    // The template may close a descriptor at any time.
    let link = |fd: &str| fs::read_link(format!("/proc/{template}/fd/{fd}")).ok();
    let logs = [link("1"), link("2")];
    let mut written = 0;
    for entry in fs::read_dir(format!("/proc/{template}/fd")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let info = fs::read_to_string(format!("/proc/{template}/fdinfo/{name}"));
        let is_writable = info.is_ok_and(|info| {
            info.lines().any(|line| line.starts_with("flags:") && line.ends_with('1'))
        });
        let pipe = link(&name).filter(|path| path.to_string_lossy().starts_with("pipe:"));
        if is_writable && pipe.is_some() && !logs.contains(&pipe) {
            let path = format!("/proc/{template}/fd/{name}");
            written += usize::from(fs::write(path, "x").is_ok());
        }
    }
    assert_ne!(written, 0, "the template has its end of the pipe");
    // A signal would have arrived by the time of these.
    for _ in 0..20 {
        assert_eq!(pool.ask(&FastcgiRequest::get("/")).valid().status, 200, "{}", pool.log());
    }
    assert_eq!(children(template), workers, "{}", pool.log());
    pool.stop();
}

/// Processes crash before they accept a request, as without pidfd_open(2).
#[test]
fn a_warm_pool_whose_processes_crash_at_their_start_costs_one_message_and_no_time() {
    let code = TELLS_ITSELF.to_owned()
        + "
    os.register_at_fork(after_in_child=lambda: os._exit(3) if os.getppid() == BORN else None)
    ";
    let site = WarmSite::of("warm", "--queue 20", &code);
    site.ask();
    crate::support::web_servers::eventually(&format!("the pool gives up: {}", site.log()), || {
        site.log().contains("[W0712]")
    });
    site.await_no_process();
    let begin = std::time::Instant::now();
    for _ in 0..5 {
        let answer = site.ask();
        assert_eq!(answer.status, "200 OK", "{answer:?}");
    }
    assert!(begin.elapsed() < std::time::Duration::from_secs(20), "{:?}", begin.elapsed());
    assert_eq!(site.log().matches("[W0802]").count(), 1, "{}", site.log());
    assert_eq!(site.log().matches("[W0801]").count(), 0, "{}", site.log());
}

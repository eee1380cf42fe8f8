//! Web servers that have lost a client end the program and close its response: nobody's mistake,
//! and no message.

use std::{io, process::Stdio};

use rustix::process::Signal;

use crate::{
    support::{child_process::RunningProcess, web_servers::eventually},
    warm::WarmSite,
};

/// Works without an end, in different places.
const WORKS: &str = "
    import os, signal, time
    def work():
        if os.environ.get('DEAF'):
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        print('at work', os.environ.get('QUERY_STRING'))
        time.sleep(1000)
    if os.environ.get('QUERY_STRING') == 'loads':
        work()
    def application(environ, start_response):
        if environ['QUERY_STRING'] == 'first':
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'first']
        if environ['QUERY_STRING'] == 'begun':
            start_response('200 OK', [('Content-Type', 'text/plain')])(b'begun')
        work()
    ";

/// How the web server leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    CloseThenSignal,
    SignalThenClose,
}

#[test]
fn a_client_that_leaves_makes_no_message() {
    for mode in ["cold", "warm", "resident"] {
        let site = WarmSite::of(mode, "", WORKS);
        if mode != "cold" {
            site.response(site.request().env("QUERY_STRING", "first"), "");
            site.await_pools(1);
        }
        let places =
            if mode == "cold" { &["works", "begun", "loads"][..] } else { &["works", "begun"] };
        for dir in places {
            for deaf in ["", "1"] {
                for order in [Order::CloseThenSignal, Order::SignalThenClose] {
                    leaves(&site, dir, deaf, order);
                }
            }
        }
        let log = site.log();
        assert!(!log.contains("error[") && !log.contains("Traceback"), "{mode}: {log}");
        assert!(!log.contains("Fatal Python error"), "{mode}: {log}");
    }
}

#[track_caller]
fn leaves(site: &WarmSite, dir: &str, deaf: &str, order: Order) {
    let (reader, writer) = io::pipe().unwrap();
    let word = format!("at work {dir}\n");
    let before = site.log().matches(&word).count();
    let mut command = site.request();
    command.env("QUERY_STRING", dir).env("DEAF", deaf).stdin(Stdio::null()).stdout(writer);
    let running = RunningProcess::start(&mut command);
    // The command holds the other end of the pipe.
    drop(command);
    eventually("the application works", || site.log().matches(&word).count() > before);
    if order == Order::CloseThenSignal {
        drop(reader);
        running.signal(Signal::TERM);
    } else {
        running.signal(Signal::TERM);
        drop(reader);
    }
    let ended = running.end();
    assert_ne!(ended.code(), Some(0), "{dir} {deaf} {order:?}: {}", site.log());
}

#[test]
fn a_signal_of_another_process_is_named() {
    for mode in ["cold", "warm", "resident"] {
        let site = WarmSite::of(mode, "", WORKS);
        if mode != "cold" {
            site.response(site.request().env("QUERY_STRING", "first"), "");
            site.await_pools(1);
        }
        let running =
            RunningProcess::start(site.request().env("QUERY_STRING", "works").stdin(Stdio::null()));
        eventually("the application works", || site.log().contains("at work works\n"));
        running.signal(Signal::TERM);
        running.end();
        let log = site.log();
        assert_eq!(
            log.matches("error[W0606]: the request was stopped by SIGTERM").count(),
            1,
            "{mode}: {log}"
        );
    }
}

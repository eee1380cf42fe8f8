//! Timeouts of single requests, in every mode: by their path, and as the application asks for.

use crate::each_mode::{MODES, Mode, ServedApp};

/// Sleeps for a time, after it has asked for more time if its path says so.
const SLEEPS: &str = "
    import time
    def hang():
        # A thread that is not the main one is interrupted between two calls.
        while True:
            time.sleep(0.05)
    def application(environ, start_response):
        path = environ['PATH_INFO']
        query = environ.get('QUERY_STRING', '')
        if path.startswith('/more'):
            environ['wsgate.extend_timeout'](60)
            # A shorter time does not bring the deadline forward.
            environ['wsgate.extend_timeout'](0.5)
        if path == '/wrong':
            outcomes = []
            for value in (-1, float('nan'), 1e300, 'x', None):
                try:
                    environ['wsgate.extend_timeout'](value)
                except (TypeError, ValueError) as error:
                    outcomes.append(type(error).__name__)
            query = ' '.join(outcomes)
        if path.endswith('/sleep'):
            time.sleep(3)
        if path.endswith('/hang'):
            hang()
        if path == '/short':
            environ['wsgate.extend_timeout'](1.5)
            hang()
        start_response('200 OK', [('Content-Type', 'text/plain')])
        return [b'done ' + query.encode()]
    ";

fn in_modes(options: &[&str], assert: impl Fn(&mut ServedApp, Mode) + Sync) {
    std::thread::scope(|scope| {
        for mode in MODES {
            let assert = &assert;
            scope.spawn(move || assert(&mut ServedApp::start(mode, options, SLEEPS), mode));
        }
    });
}

fn status(served: &ServedApp, path: &str) -> String {
    served.request("GET", path, &[("SCRIPT_NAME", "")], b"").status
}

#[test]
fn a_request_may_ask_for_more_time_in_each_mode() {
    in_modes(&["--timeout", "2"], |served, mode| {
        assert_eq!(status(served, "/more/sleep"), "200 OK", "{mode:?}");
        assert_eq!(status(served, "/sleep"), "504 Gateway Timeout", "{mode:?}");
        assert_eq!(status(served, "/more/sleep"), "200 OK", "{mode:?}");
        let log = served.stop();
        assert_eq!(log.matches("the request took longer than 2 s").count(), 1, "{mode:?}: {log}");
    });
}

#[test]
fn a_request_that_has_asked_for_more_time_is_stopped_after_that() {
    in_modes(&["--timeout", "1"], |served, mode| {
        assert_eq!(status(served, "/short"), "504 Gateway Timeout", "{mode:?}");
        assert_eq!(status(served, "/wrong"), "200 OK", "{mode:?}");
        served.stop();
    });
}

#[test]
fn asking_for_more_time_has_no_effect_without_a_timeout_but_checks_its_argument() {
    in_modes(&[], |served, mode| {
        assert_eq!(served.ask("/more"), "done ", "{mode:?}");
        let expected = "done ValueError ValueError ValueError TypeError TypeError";
        assert_eq!(served.ask("/wrong"), expected, "{mode:?}");
        served.stop();
    });
}

#[test]
fn a_path_may_have_a_timeout_of_its_own_in_each_mode() {
    let longer = ["--timeout", "2", "--timeout-for", "/upload=60"];
    in_modes(&longer, |served, mode| {
        assert_eq!(status(served, "/upload/sleep"), "200 OK", "{mode:?}");
        assert_eq!(status(served, "/uploads/sleep"), "504 Gateway Timeout", "{mode:?}");
        served.stop();
    });
    let only = ["--timeout-for", "/quick=1"];
    in_modes(&only, |served, mode| {
        assert_eq!(status(served, "/quick/hang"), "504 Gateway Timeout", "{mode:?}");
        assert_eq!(status(served, "/sleep"), "200 OK", "{mode:?}");
        let log = served.stop();
        assert!(log.contains("the request took longer than 1 s"), "{mode:?}: {log}");
    });
}

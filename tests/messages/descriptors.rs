//! Applications that close, or put something in the place of, descriptors that are not theirs.

use crate::each_mode::{MODES, Mode, ServedApp, in_each_mode};

const CLOSES: &str = r#"
    import os

    def replace(first, last):
        null = os.open("/dev/null", os.O_RDWR)
        for number in range(first, last):
            try: os.fstat(number)
            except OSError: continue
            if number != null: os.dup2(null, number)

    def application(environ, start_response):
        what, _, number = environ["PATH_INFO"].strip("/").partition("/")
        if what == "range": os.closerange(3, 256)
        if what == "replace": replace(3, 256)
        if what == "all": os.closerange(0, 256)
        if what == "standard": os.closerange(0, 3)
        if what == "prints": print("printed " + "x" * 20, flush=True)
        if what == "one":
            try: os.close(int(number))
            except OSError: pass
        if what == "other":
            try: replace(int(number), int(number) + 1)
            except OSError: pass
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"ok"]
"#;

/// A whole response of the application's, or a page that says that it failed. Over FastCGI nobody
/// else has the connection: there the web server sees it closed.
#[track_caller]
fn is_valid(served: &ServedApp, mode: Mode, path: &str) {
    let response = served.request("GET", path, &[], b"");
    let is_ok = response.status == "200 OK" && response.body == b"ok" && response.exit.success();
    let is_page = ["500 Internal Server Error", "502 Bad Gateway"]
        .contains(&response.status.as_str())
        && response.text().ends_with("</html>\n");
    let is_closed = response.raw.is_empty()
        && matches!(mode, Mode::Preloaded(_) | Mode::NotPreloaded(_) | Mode::Lone);
    assert!(is_ok || is_page || is_closed, "{mode:?}: {path}: {response:?}");
}

#[test]
fn an_application_that_closes_our_descriptors_is_named_and_the_next_request_is_served() {
    // A lone worker has nobody that starts another.
    for mode in MODES.into_iter().filter(|&mode| mode != Mode::Lone) {
        for path in ["/range", "/replace"] {
            let mut served = ServedApp::start(mode, &[], CLOSES);
            is_valid(&served, mode, path);
            assert_eq!(served.ask("/served"), "ok", "{mode:?}: {path}");
            let log = served.stop();
            let is_named = ["W0610", "W0707"].iter().any(|code| log.contains(code));
            assert!(is_named, "{mode:?}: {path}: {log}");
            for wrong in ["W0999", "W0510", "os._exit"] {
                assert!(!log.contains(wrong), "{mode:?}: {path}: {log}");
            }
        }
    }
}

#[test]
fn every_descriptor_can_be_closed_and_no_request_waits_for_ever() {
    for mode in [Mode::Cold, Mode::Warm, Mode::Resident, Mode::Preloaded(1)] {
        let mut served = ServedApp::start(mode, &[], CLOSES);
        for number in 0..16 {
            for what in ["one", "other"] {
                is_valid(&served, mode, &format!("/{what}/{number}"));
                assert_eq!(served.ask("/served"), "ok", "{mode:?}: {what} {number}");
            }
        }
        let log = served.stop();
        assert!(!log.contains("W0999"), "{mode:?}: {log}");
    }
}

#[test]
fn connections_never_get_the_descriptors_of_standard_streams() {
    in_each_mode(CLOSES, |served, mode| {
        for _ in 0..3 {
            assert_eq!(served.ask("/standard"), "ok", "{mode:?}");
            assert_eq!(served.ask("/prints"), "ok", "{mode:?}: what is printed is in no response");
        }
        let log = served.stop();
        if matches!(mode, Mode::Preloaded(_) | Mode::NotPreloaded(_)) {
            assert!(log.contains("printed xxxx"), "{mode:?}: {log}");
        }
    });
}

#[test]
fn a_request_that_closes_everything_gets_a_page() {
    for mode in [Mode::Cold, Mode::Warm, Mode::Resident] {
        let served = ServedApp::start(mode, &[], CLOSES);
        let response = served.request("GET", "/all", &[], b"");
        assert!(response.status.starts_with("50"), "{mode:?}: {response:?}");
        assert_eq!(served.ask("/served"), "ok", "{mode:?}");
    }
}

const TAKES_THE_NUMBER: &str = r#"
    import os
    kept = []

    def application(environ, start_response):
        path = os.environ["OUT"] + "/db"
        if environ["PATH_INFO"] == "/take":
            os.close(2)
            kept.append(open(path, "wb+", buffering=0))
            kept[-1].write(b"a database")
            environ["wsgi.errors"].write("kept in the log\n")
            assert kept[-1].fileno() == 2
            raise ValueError("seen by those who read the log")
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [open(path, "rb").read()]
"#;

#[test]
fn a_file_that_gets_the_number_of_standard_error_holds_no_message() {
    in_each_mode(TAKES_THE_NUMBER, |served, mode| {
        let response = served.request("GET", "/take", &[], b"");
        assert_eq!(response.status, "500 Internal Server Error", "{mode:?}: {response:?}");
        assert_eq!(served.ask("/"), "a database", "{mode:?}");
        let log = served.stop();
        for word in ["kept in the log\n", "W0501", "ValueError: seen by those who read the log"] {
            assert!(log.contains(word), "{mode:?}: {word}: {log}");
        }
        // The next request, and the end of the process, wrote nothing there either.
        assert_eq!(served.written("db"), "a database", "{mode:?}");
    });
}

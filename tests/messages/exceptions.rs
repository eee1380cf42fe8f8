//! Exceptions that are hard to tell of.

use crate::each_mode::{Mode, ServedApp, in_each_mode};

/// An application that raises another exception for each path.
const RAISES: &str = r#"
    import sys

    class Text(Exception):
        def __init__(self, text): self.text = text
        def __str__(self): return self.text()

    def fails(): raise RuntimeError("of the text")
    def recurses(): return recurses()
    def exits(): sys.exit("of the text")
    class Subclass(str):
        def encode(self, *_): raise RuntimeError("of encode")
        def __len__(self): raise RuntimeError("of len")
        def __getitem__(self, _): raise RuntimeError("of getitem")

    def left(n):
        if n == 0: raise ValueError("at the bottom")
        right(n - 1)

    def right(n):
        if n == 0: raise ValueError("at the bottom")
        left(n - 1)

    def deep():
        sys.setrecursionlimit(30000)
        left(10000)

    def cycle():
        a, b = ValueError("cycle a"), KeyError("cycle b")
        a.__cause__, b.__cause__ = b, a
        raise a

    def chain():
        error = None
        for number in range(3000):
            new = ValueError("link %d" % number)
            new.__context__ = error
            error = new
        raise error

    def noted():
        error = ValueError("noted")
        error.__notes__ = ["a note", 3, Text(fails)]
        raise error

    def group():
        members = [ValueError("member %d" % n) for n in range(1000)]
        raise ExceptionGroup("of several", members + [Text(fails)])

    def wrong_syntax():
        error = SyntaxError("odd", ("file\udcff", 3, 99999, "text\n\u202e\x00" * 3))
        error.end_lineno, error.end_offset = "x", -5
        raise error

    def wrong_name():
        class Odd(Exception): pass
        Odd.__module__ = 3
        Odd.__qualname__ = "Odd\udcff" * 1000
        raise Odd("named")

    def of(error):
        def raises(): raise error
        return raises

    def application(environ, start_response):
        name = environ["PATH_INFO"]
        make = {
            "": lambda: None, "/ok": lambda: None,
            "/long": lambda: of(ValueError("begins" + "B" * 40000 + "ends"))(),
            "/lines": lambda: of(ValueError("begins" + "\nB" * 40000 + "\nends"))(),
            "/huge": lambda: of(ValueError("begins" + "x" * 100_000_000 + "ends"))(),
            "/surrogate": of(ValueError("text \udcff text")),
            "/fails": of(Text(fails)),
            "/recurses": of(Text(recurses)),
            "/exits": of(Text(exits)),
            "/number": of(Text(lambda: 3)),
            "/subclass": of(Text(lambda: Subclass("of a subclass"))),
            "/deep": deep,
            "/cycle": cycle,
            "/chain": chain,
            "/noted": noted,
            "/group": group,
            "/syntax": wrong_syntax,
            "/name": wrong_name,
        }[name]
        make()
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"ok"]
"#;

/// The parts of the message about each exception, in this order.
const SAYS: [(&str, &[&str]); 16] = [
    (
        "/long",
        &[
            "raised `ValueError: beginsBB",
            "Traceback",
            "in application",
            "ValueError: beginsBB",
            "BBends",
        ],
    ),
    (
        "/lines",
        &[
            "raised `ValueError: begins`",
            "Traceback",
            "in application",
            "ValueError: begins",
            "  ends",
        ],
    ),
    (
        "/huge",
        &[
            "raised `ValueError: beginsxx",
            "Traceback",
            "in application",
            "ValueError: beginsxx",
            "xxends",
        ],
    ),
    (
        "/surrogate",
        &["raised `ValueError: text \\udcff text`", "in raises", "ValueError: text \\udcff text"],
    ),
    ("/fails", &["raised `Text: <exception str() failed>`", "in raises", "Text: <"]),
    ("/recurses", &["raised `Text: <exception str() failed>`", "in raises", "Text: <"]),
    ("/exits", &["raised `Text: <exception str() failed>`", "in raises", "Text: <"]),
    ("/number", &["raised `Text: <exception str() failed>`", "in raises", "Text: <"]),
    ("/subclass", &["raised `Text: of a subclass`", "in raises", "Text: of a subclass"]),
    (
        "/deep",
        &[
            "raised `ValueError: at the bottom`",
            "in application",
            "are left out",
            "ValueError: at the bottom",
        ],
    ),
    (
        "/cycle",
        &[
            "raised `ValueError: cycle a`",
            "KeyError: 'cycle b'",
            "in application",
            "ValueError: cycle a",
        ],
    ),
    ("/chain", &["raised `ValueError: link 2999`", "in application", "ValueError: link 2999"]),
    ("/noted", &["raised `ValueError: noted`", "in application", "ValueError: noted"]),
    (
        "/group",
        &[
            "raised `ExceptionGroup: of several (1001 sub-exceptions)`",
            "in application",
            "member 1",
        ],
    ),
    ("/syntax", &["raised `SyntaxError: odd", "in application", "SyntaxError: "]),
    ("/name", &["raised `Odd\\udcffOdd", "in application", "Odd"]),
];

#[test]
fn an_exception_is_never_lost_and_its_text_is_limited() {
    in_each_mode(RAISES, |served, mode| {
        let paths = SAYS.iter().map(|(path, _)| *path);
        // This case takes as much memory and time as all others together.
        let paths: Vec<&str> = paths
            .filter(|&path| path != "/huge" || matches!(mode, Mode::Cold | Mode::Lone))
            .collect();
        for path in &paths {
            let response = served.request("GET", path, &[], b"");
            assert_eq!(response.status, "500 Internal Server Error", "{mode:?}: {path}");
            assert!(response.text().contains("Request id"), "{mode:?}: {path}");
        }
        assert_eq!(served.ask("/ok"), "ok", "{mode:?}");
        let log = served.stop();
        for (path, says) in SAYS.iter().filter(|(path, _)| paths.contains(path)) {
            let message = message(&log, &format!("GET /cgi-bin/app.wsgi{path} "))
                .or_else(|| message(&log, &format!("GET {path} ")))
                .unwrap_or_else(|| panic!("{mode:?}: no message about {path}: {log:.9000}"));
            let mut rest = message;
            for word in *says {
                let at = rest
                    .find(word)
                    .unwrap_or_else(|| panic!("{mode:?}: {path}: no `{word}` in {message}"));
                rest = &rest[at + word.len()..];
            }
            assert!(message.len() < 48_000, "{mode:?}: {path}: {} bytes", message.len());
        }
        assert!(!log.contains("W0999"), "{mode:?}: {log:.9000}");
    });
}

/// The message whose line `request:` has `request` in it.
fn message<'a>(log: &'a str, request: &str) -> Option<&'a str> {
    let end = log
        .match_indices("request: ")
        .find(|(at, _)| log[*at..].lines().next().unwrap().contains(request))?
        .0;
    Some(&log[log[..end].rfind("wsgate: error[W0501]")?..end])
}

#[test]
fn with_debug_the_error_page_shows_the_same() {
    let served = ServedApp::start(Mode::Cold, &["--debug"], RAISES);
    for (path, _) in SAYS {
        let text = served.request("GET", path, &[], b"").text();
        assert!(
            text.contains("in application") && text.ends_with("</html>\n"),
            "{path}: {text:.2000}"
        );
        assert!(text.len() < 100_000, "{path}: {} bytes", text.len());
    }
}

#[test]
fn an_exception_text_that_hangs_is_abandoned_at_the_deadline() {
    for mode in crate::each_mode::MODES {
        let mut served = ServedApp::start(
            mode,
            &["--timeout", "3"],
            r#"
            import time
            class Hangs(Exception):
                def __str__(self):
                    while True: time.sleep(0.01)
            def application(environ, start_response):
                if environ["PATH_INFO"] == "/hangs": raise Hangs
                start_response("200 OK", [("Content-Type", "text/plain")])
                return [b"ok"]
            "#,
        );
        let response = served.request("GET", "/hangs", &[], b"");
        assert!(response.status.starts_with("50"), "{mode:?}: {response:?}");
        assert_eq!(served.ask("/ok"), "ok", "{mode:?}");
        let log = served.stop();
        assert!(log.contains("Hangs") && log.contains("in application"), "{mode:?}: {log}");
    }
}

//! What loading has made of its process is what the requests of a pool find; streams are whole
//! again for the next.

use std::os::unix::net::UnixListener;

use crate::{
    support::{
        fastcgi_client::{Ask, Wire},
        pool::Setup,
        web_servers::eventually,
    },
    warm::state::CONFIGURES,
};

fn configures() -> Setup {
    Setup::new(CONFIGURES).variable("GONE", "1").variable("UNSET", "1")
}

#[test]
fn the_process_state_that_loading_has_set_stays_in_a_worker() {
    let mut states = Vec::new();
    for words in [["--preload", "yes"], ["--preload", "no"], ["--threads", "2"]] {
        let pool = configures().words(&words).start();
        let head = pool.ask(&Ask::get("/")).head();
        let state = head.fields.iter().find(|(name, _)| name == "X-State").unwrap().1.clone();
        assert!(
            state.starts_with("['/srv/trac', '/opt/bin:") && !state.contains("False"),
            "{words:?}: {state}"
        );
        // Threads beside the first have a decimal context of their own.
        states.push(if words[0] == "--threads" { state.replace(", 28,", ", 7,") } else { state });
        pool.stop();
    }
    let setup = configures();
    let path = setup.path("app.sock");
    let pool = setup.start_on(UnixListener::bind(&path).unwrap());
    let head = Wire::unix(&path).ask(&Ask::get("/")).head();
    states.push(head.fields.iter().find(|(name, _)| name == "X-State").unwrap().1.clone());
    drop(pool);
    assert!(states.iter().all(|state| *state == states[0]), "{states:#?}");
}

/// Does to the standard streams what the path says, and writes a line to each.
pub(crate) const STREAMS: &str = "
    import io, os, sys
    BORN = os.getpid()
    def application(environ, start_response):
        query = environ['QUERY_STRING']
        print('printed by', query)
        print('an error of', query, file=sys.stderr)
        environ['wsgi.errors'].write('written by %s\\n' % query)
        if sys.stdin.read():
            raise ValueError('there is something on standard input')
        for stream in sys.stdout, sys.stderr, environ['wsgi.errors']:
            found = stream.encoding, stream.errors, stream.line_buffering, stream.write_through
            if found != ('utf-8', 'backslashreplace', True, True):
                raise ValueError('the stream is set to %r' % (found,))
        if 'replace' in query:
            sys.stdout = sys.stderr = sys.stdin = io.StringIO()
        elif 'close' in query:
            sys.stdout.close()
            sys.stderr.close()
            environ['wsgi.errors'].close()
        elif 'wrap' in query:
            sys.stdout = io.TextIOWrapper(sys.stdout.detach(), encoding='ascii')
            sys.stderr.detach()
            environ['wsgi.errors'].detach()
            sys.stdin = io.StringIO('mine')
            sys.stdin.close()
        elif 'remove' in query:
            del sys.stdout, sys.stderr, sys.stdin
        elif 'half' in query:
            print('half a line of', query, end='')
            print('half an error of', query, end='', file=sys.stderr)
            sys.stderr.flush()
            environ['wsgi.errors'].write('half written by %s' % query)
        elif 'none' in query:
            sys.stdout = sys.stderr = sys.stdin = None
        elif 'set' in query:
            sys.stdout.reconfigure(encoding='ascii', errors='strict')
            sys.stderr.reconfigure(line_buffering=False, write_through=False)
            environ['wsgi.errors'].reconfigure(encoding='latin-1')
        elif 'shut' in query:
            sys.stdin.close()
        start_response('200 OK', [('Content-Type', 'text/plain')])
        return [('%d %d' % (BORN, os.getpid())).encode()]
    ";

/// What requests do.
pub(crate) const DEEDS: [&str; 9] =
    ["replace", "close", "wrap", "remove", "half", "none", "set", "shut", "last"];

/// Asserts that each request with these queries has written its lines, each by itself.
#[track_caller]
pub(crate) fn assert_lines(log: &str, queries: &[String]) {
    for query in queries {
        for line in ["printed by", "an error of", "written by"] {
            let line = format!("{line} {query}");
            assert_eq!(log.lines().filter(|found| *found == line).count(), 1, "`{line}`: {log}");
        }
        if query.contains("half") {
            for line in ["half a line of", "half an error of", "half written by"] {
                let line = format!("{line} {query}");
                assert_eq!(
                    log.lines().filter(|found| *found == line).count(),
                    1,
                    "`{line}`: {log}"
                );
            }
        }
    }
    assert!(log.ends_with('\n'), "{log}");
}

#[test]
fn changes_of_a_request_to_the_standard_streams_end_with_it() {
    for words in [["--threads", "1"], ["--preload", "no"]] {
        let pool = Setup::new(STREAMS).words(&words).start();
        let queries: Vec<String> =
            (0..3).flat_map(|round| DEEDS.map(|deed| format!("{deed}{round}"))).collect();
        for query in &queries {
            let answer =
                pool.ask(&Ask::get("/").without("QUERY_STRING").param("QUERY_STRING", query));
            assert_eq!(answer.head().status, 200, "{words:?} {query}: {}", pool.log());
        }
        assert_lines(&pool.stop(), &queries);
    }
}

#[test]
fn streams_that_one_thread_replaces_are_whole_again_when_no_request_is_served() {
    let pool = Setup::new(
        "
        import io, os, sys
        FIRST = sys.stdout
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            if environ['PATH_INFO'] == '/slow':
                sys.stdout = text = io.StringIO()
                os.write(2, b'at the gate\\n')
                gate = os.open(os.environ['GATE'], os.O_RDONLY)
                os.read(gate, 1)
                print('captured', end='')
                return [text.getvalue().encode()]
            return [str(sys.stdout is FIRST).encode()]
        ",
    )
    .words(&["--threads", "2"])
    .gated();
    let mut pool = pool.start();
    let mut slow = pool.connect();
    slow.send(&Ask::get("/slow").bytes());
    pool.await_log("at the gate");
    // The end of another request takes nothing from one that captures what it prints.
    assert_eq!(pool.ask(&Ask::get("/fast")).text(), "False");
    pool.open_gate();
    assert_eq!(slow.answer().text(), "captured");
    // The response may arrive before the end of its request, which restores the stream.
    eventually("the stream is restored", || pool.ask(&Ask::get("/after")).text() == "True");
    pool.stop();
}

#[test]
fn half_a_line_of_one_thread_is_no_part_of_anothers() {
    let pool = Setup::new(
        "
        import os
        def application(environ, start_response):
            path = environ['PATH_INFO']
            print('begun by', path, end='')
            if path == '/slow':
                os.write(2, b'at the gate\\n')
                gate = os.open(os.environ['GATE'], os.O_RDONLY)
                os.read(gate, 1)
            print(' and ended by', path, end='')
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'']
        ",
    )
    .words(&["--threads", "2"])
    .gated();
    let mut pool = pool.start();
    let mut slow = pool.connect();
    slow.send(&Ask::get("/slow").bytes());
    pool.await_log("at the gate");
    pool.ask(&Ask::get("/fast"));
    pool.await_log("begun by /fast and ended by /fast\n");
    pool.open_gate();
    slow.answer();
    pool.await_log("begun by /slow and ended by /slow\n");
    pool.stop();
}

#[test]
fn a_pool_is_mounted_where_its_option_says() {
    for preload in ["yes", "no"] {
        let pool = Setup::new(
            "
            FIRST = []
            def application(environ, start_response):
                names = ['SCRIPT_NAME', 'PATH_INFO', 'REQUEST_URI', 'HTTP_HOST', 'wsgi.url_scheme']
                FIRST.append(' '.join(environ.get(name, '-') for name in names))
                start_response('200 OK', [('Content-Type', 'text/plain')])
                return [(FIRST[0] + '|' + environ['SCRIPT_NAME'] + '|' + \
                environ['PATH_INFO']).encode()]
            ",
        )
        .words(&[
            "--script-name",
            "/app",
            "--warm-up",
            "https://www.example.org/w?x=y",
            "--preload",
            preload,
        ])
        .start();
        let ask = |script_name: &str, path: &str| {
            let ask = Ask::get(path).without("SCRIPT_NAME").param("SCRIPT_NAME", script_name);
            pool.ask(
                &ask.without("REQUEST_URI").param("REQUEST_URI", format!("{script_name}{path}")),
            )
            .text()
        };
        let first = "/app /w /app/w?x=y www.example.org https";
        assert_eq!(ask("", "/app/page"), format!("{first}|/app|/page"), "{preload}");
        assert_eq!(ask("/app", "/page"), format!("{first}|/app|/page"), "{preload}");
        assert_eq!(ask("", "/application"), format!("{first}||/application"), "{preload}");
        pool.stop();
    }
}

//! The requests of a pool find the process state that loading has set, and intact standard streams.

use std::os::unix::net::UnixListener;

use crate::{
    support::{
        fastcgi_client::{FastcgiConnection, FastcgiRequest},
        pool::PoolSetup,
        web_servers::eventually,
    },
    warm::state::CONFIGURES,
};

fn configures() -> PoolSetup {
    PoolSetup::new(CONFIGURES).variable("GONE", "1").variable("UNSET", "1")
}

#[test]
fn the_process_state_that_loading_has_set_stays_in_a_worker() {
    let mut states = Vec::new();
    for args in [["--preload", "yes"], ["--preload", "no"], ["--threads", "2"]] {
        let pool = configures().args(&args).start();
        let response = pool.ask(&FastcgiRequest::get("/")).valid();
        let state = response.fields.iter().find(|(name, _)| name == "X-State").unwrap().1.clone();
        assert!(
            state.starts_with("['/srv/trac', '/opt/bin:") && !state.contains("False"),
            "{args:?}: {state}"
        );
        // Threads beside the first have a decimal context of their own.
        states.push(if args[0] == "--threads" { state.replace(", 28,", ", 7,") } else { state });
        pool.stop();
    }
    let setup = configures();
    let path = setup.path("app.sock");
    let pool = setup.start_on(UnixListener::bind(&path).unwrap());
    let response = FastcgiConnection::unix(&path).ask(&FastcgiRequest::get("/")).valid();
    states.push(response.fields.iter().find(|(name, _)| name == "X-State").unwrap().1.clone());
    drop(pool);
    assert!(states.iter().all(|state| *state == states[0]), "{states:#?}");
}

/// Damages the standard streams as the query says, and writes a line to each.
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

/// The ways to damage the standard streams.
pub(crate) const DEEDS: [&str; 9] =
    ["replace", "close", "wrap", "remove", "half", "none", "set", "shut", "last"];

/// The lines that requests with these queries write to the log.
fn expected_lines(queries: &[String]) -> Vec<String> {
    let mut lines = Vec::new();
    for query in queries {
        lines.extend(["printed by", "an error of", "written by"].map(|it| format!("{it} {query}")));
        if query.contains("half") {
            let halves = ["half a line of", "half an error of", "half written by"];
            lines.extend(halves.map(|it| format!("{it} {query}")));
        }
    }
    lines
}

/// Returns whether each request with these queries has written its lines, the last one to its end.
pub(crate) fn has_all_lines(log: &str, queries: &[String]) -> bool {
    let lines: Vec<&str> = log.lines().collect();
    log.ends_with('\n') && expected_lines(queries).iter().all(|line| lines.contains(&line.as_str()))
}

/// Asserts that each request with these queries has written each of its lines once.
#[track_caller]
pub(crate) fn assert_lines(log: &str, queries: &[String]) {
    for line in expected_lines(queries) {
        assert_eq!(log.lines().filter(|found| *found == line).count(), 1, "`{line}`: {log}");
    }
    assert!(log.ends_with('\n'), "{log}");
}

#[test]
fn changes_of_a_request_to_the_standard_streams_end_with_it() {
    for args in [["--threads", "1"], ["--preload", "no"]] {
        let pool = PoolSetup::new(STREAMS).args(&args).start();
        let queries: Vec<String> =
            (0..3).flat_map(|round| DEEDS.map(|deed| format!("{deed}{round}"))).collect();
        for query in &queries {
            let response = pool.ask(
                &FastcgiRequest::get("/").without("QUERY_STRING").param("QUERY_STRING", query),
            );
            assert_eq!(response.valid().status, 200, "{args:?} {query}: {}", pool.log());
        }
        assert_lines(&pool.stop(), &queries);
    }
}

#[test]
fn streams_that_one_thread_replaces_are_whole_again_when_no_request_is_served() {
    let pool = PoolSetup::new(
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
    .args(&["--threads", "2"])
    .gated();
    let mut pool = pool.start();
    let mut slow = pool.connect();
    slow.send(&FastcgiRequest::get("/slow").bytes());
    pool.await_log("at the gate");
    // The end of another request takes nothing from one that captures what it prints.
    assert_eq!(pool.ask(&FastcgiRequest::get("/fast")).text(), "False");
    pool.open_gate();
    assert_eq!(slow.response().text(), "captured");
    // The response may arrive before the end of its request, which restores the stream.
    eventually("the stream is restored", || {
        pool.ask(&FastcgiRequest::get("/after")).text() == "True"
    });
    pool.stop();
}

#[test]
fn half_a_line_of_one_thread_is_no_part_of_anothers() {
    let pool = PoolSetup::new(
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
    .args(&["--threads", "2"])
    .gated();
    let mut pool = pool.start();
    let mut slow = pool.connect();
    slow.send(&FastcgiRequest::get("/slow").bytes());
    pool.await_log("at the gate");
    pool.ask(&FastcgiRequest::get("/fast"));
    pool.await_log("begun by /fast and ended by /fast\n");
    pool.open_gate();
    slow.response();
    pool.await_log("begun by /slow and ended by /slow\n");
    pool.stop();
}

#[test]
fn a_pool_is_mounted_where_its_option_says() {
    for preload in ["yes", "no"] {
        let pool = PoolSetup::new(
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
        .args(&[
            "--script-name",
            "/app",
            "--warm-up",
            "https://www.example.org/w?x=y",
            "--preload",
            preload,
        ])
        .start();
        let request = |script_name: &str, path: &str| {
            let request =
                FastcgiRequest::get(path).without("SCRIPT_NAME").param("SCRIPT_NAME", script_name);
            pool.ask(
                &request
                    .without("REQUEST_URI")
                    .param("REQUEST_URI", format!("{script_name}{path}")),
            )
            .text()
        };
        let first = "/app /w /app/w?x=y www.example.org https";
        assert_eq!(request("", "/app/page"), format!("{first}|/app|/page"), "{preload}");
        assert_eq!(request("/app", "/page"), format!("{first}|/app|/page"), "{preload}");
        assert_eq!(request("", "/application"), format!("{first}||/application"), "{preload}");
        pool.stop();
    }
}

//! `FCGI_STDERR`: what a request says in the error log, for the web server's log (FastCGI 1.0, 5.3
//! and 6.1).

use fastcgi_server::bodies::ProtocolStatus;

use crate::support::{
    assertions::complete_response,
    fastcgi_client::{FastcgiRequest, FastcgiResponse, Received},
    pool::{Pool, PoolSetup},
};

/// Writes to its log before the head, between blocks, and when all blocks are out.
const TALKS: &str = "
    def application(environ, start_response):
        errors = environ['wsgi.errors']
        path = environ['PATH_INFO']
        if path == '/silent':
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'response']
        return talk(path, errors, start_response)

    def talk(path, errors, start_response):
        errors.write('before the head\\n')
        if path == '/raises':
            raise ValueError('nothing has left')
        if path == '/much':
            for number in range(100000):
                errors.write('line %d\\n' % number)
        start_response('200 OK', [('Content-Type', 'text/plain')])
        yield b'one,'
        errors.write('between blocks\\n')
        errors.write('twice\\n')
        if path == '/cut':
            raise ValueError('the head has left')
        yield b'two'
        errors.write('at the end')
    ";

fn talking() -> Pool {
    PoolSetup::new(TALKS).args(&["--errors-to-server"]).start()
}

/// The contents of `FCGI_STDERR`, record by record.
fn stderr(response: &FastcgiResponse) -> Vec<String> {
    let records = response.said.iter().filter_map(|said| match said {
        Received::Stderr(_, bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        _ => None,
    });
    records.collect()
}

#[test]
fn f25_wsgi_errors_goes_to_stderr_and_the_response_to_stdout() {
    let pool = talking();
    let mut connection = pool.connect();
    connection.send(&FastcgiRequest::get("/").keep().id(0x0102).bytes());
    let records = connection.records();
    let kinds: Vec<_> =
        records.iter().map(|record| (record.header[1], record.content.len())).collect();
    // 6 is FCGI_STDOUT, 7 FCGI_STDERR, 3 FCGI_END_REQUEST (FastCGI 1.0, 8).
    assert_eq!(
        kinds[1..],
        [(7, 16), (7, 15), (7, 6), (6, 3), (7, 11), (6, 0), (7, 0), (3, 8)],
        "{records:?}"
    );
    assert_eq!(kinds[0].0, 6, "{records:?}");
    assert!(
        records.iter().all(|record| record.header[0] == 1 && record.header[2..4] == [1, 2]),
        "{records:?}"
    );
    let stdout: Vec<u8> = records
        .iter()
        .filter(|record| record.header[1] == 6)
        .flat_map(|r| r.content.clone())
        .collect();
    assert_eq!(complete_response(&stdout).body, b"one,two");
    assert_eq!(records[1].content, b"before the head\n");
    let log = pool.stop();
    for args in ["before the head\n", "between blocks\n", "twice\n", "at the end\n"] {
        assert_eq!(log.matches(args).count(), 1, "{args}: {log}");
    }
}

#[test]
fn f32_records_of_stdout_and_stderr_stand_among_each_other() {
    let pool = talking();
    let response = pool.ask(&FastcgiRequest::get("/"));
    let kinds: String = response
        .said
        .iter()
        .map(|said| match said {
            Received::Stdout(..) => 'o',
            Received::StdoutEnd(_) => 'O',
            Received::Stderr(..) => 'e',
            Received::StderrEnd(_) => 'E',
            _ => '.',
        })
        .collect();
    assert_eq!(kinds, "oeeeoeOE.", "{response:?}");
    assert_eq!(
        stderr(&response),
        ["before the head\n", "between blocks\n", "twice\n", "at the end\n"]
    );
    pool.stop();
}

#[test]
fn f33_an_empty_stderr_is_not_sent() {
    let pool = talking();
    let mut connection = pool.connect();
    assert_eq!(connection.ask(&FastcgiRequest::get("/silent").keep()).text(), "response");
    // After a request that did write, too.
    assert!(!stderr(&connection.ask(&FastcgiRequest::get("/").keep())).is_empty());
    assert_eq!(connection.ask(&FastcgiRequest::get("/silent").keep()).text(), "response");
    pool.stop();
}

#[test]
fn f51_errors_before_the_response_headers_wait_for_them_up_to_64_kib() {
    let pool = talking();
    let mut connection = pool.connect();
    connection.send(&FastcgiRequest::get("/much").keep().bytes());
    let response = connection.response();
    let Some(Received::Stdout(1, first)) = response.said.first() else { panic!("{response:?}") };
    assert!(first.starts_with(b"Status: 200 OK\r\n") && first.ends_with(b"one,"), "{response:?}");
    let said = stderr(&response).concat();
    assert!(said.starts_with("before the head\nline 0\nline 1\n"), "{said}");
    assert!((60_000..70_000).contains(&said.len()), "{}", said.len());
    assert_eq!(said.matches("the pool's own log has it").count(), 1, "{said}");
    // The buffer has room again for later errors.
    assert!(said.ends_with("between blocks\ntwice\nat the end\n"), "{said}");
    assert_eq!(connection.ask(&FastcgiRequest::get("/silent").keep()).text(), "response");
    let log = pool.stop();
    assert!(log.contains("line 99999\n"));
}

#[test]
fn f51_the_log_message_of_an_error_page_follows_its_headers() {
    let pool = talking();
    let mut connection = pool.connect();
    connection
        .send(&FastcgiRequest::get("/raises").param("UNIQUE_ID", "the_id_of_the_request").bytes());
    let response = connection.response();
    assert_eq!(response.end.protocol_status, ProtocolStatus::RequestComplete);
    assert!(
        matches!(&response.said[0], Received::Stdout(1, page) if page.starts_with(b"Status: 500 ")),
        "{response:?}"
    );
    let said = stderr(&response);
    assert_eq!((said.len(), said[0].as_str()), (2, "before the head\n"), "{said:?}");
    for args in [
        "wsgate: error[W0501]",
        "ValueError: nothing has left",
        "request: the_id_of_the_request GET /raises",
    ] {
        assert!(said[1].contains(args), "{said:?}");
    }
    connection.assert_closed();
    let log = pool.stop();
    assert_eq!(log.matches("W0501").count(), 1, "{log}");
}

#[test]
fn the_reason_of_a_cut_response_is_sent_before_the_connection_closes() {
    let pool = talking();
    let mut connection = pool.connect();
    connection.send(&FastcgiRequest::get("/cut").keep().bytes());
    let mut said = Vec::new();
    // The bytes after the last record are no record, which shows a web server the cut.
    while let Ok(Some(next)) = connection.try_next() {
        said.push(next);
    }
    let last = said.pop();
    assert!(
        matches!(&last, Some(Received::Stderr(1, message)) if message.starts_with(b"wsgate: \
            error[W0502]")),
        "{last:?}"
    );
    pool.stop();
}

#[test]
fn errors_after_a_complete_response_go_to_the_log_of_the_pool_alone() {
    let pool = PoolSetup::new(
        "
        class Response(list):
            def close(self):
                self.errors.write('when all is said\\n')

        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain'), ('Content-Length', '8')])
            response = Response([b'response'])
            response.errors = environ['wsgi.errors']
            return response
        ",
    )
    .args(&["--errors-to-server"])
    .start();
    let mut connection = pool.connect();
    for _ in 0..3 {
        assert_eq!(connection.ask(&FastcgiRequest::get("/").keep()).text(), "response");
    }
    let log = pool.stop();
    assert_eq!(log.matches("when all is said\n").count(), 3, "{log}");
}

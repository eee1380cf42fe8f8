//! Connections that the pool closes first: whatever the web server still sends, it gets the whole
//! response, and nobody waits for it.

use crate::support::{
    assertions::codes,
    fastcgi_client::{FastcgiConnection, FastcgiRequest, GET_VALUES, Received, record},
    pool::PoolSetup,
    web_servers::eventually,
};

/// Answers with as many bytes as the path says.
const SIZED: &str = "
    def application(environ, start_response):
        start_response('200 OK', [('Content-Type', 'text/plain')])
        return [b'x' * int(environ['PATH_INFO'][1:])]
    ";

/// Type of the records with a filter's file.
const DATA: u8 = 8;

/// A pool of one thread at a Unix socket, and at a TCP port.
fn setups() -> [PoolSetup; 2] {
    [PoolSetup::new(SIZED), PoolSetup::new(SIZED).listen(&["127.0.0.1:0"])]
}

/// Records that change nothing about a request when they follow it.
fn followers() -> Vec<Vec<u8>> {
    vec![
        record(DATA, 1, b""),
        record(GET_VALUES, 0, b"\x0f\0FCGI_MPXS_CONNS"),
        FastcgiRequest::get("/").id(2).bytes(),
        FastcgiRequest::get("/").stdin(b"more than CONTENT_LENGTH says"),
        FastcgiRequest::get("/").stdin(&vec![b'x'; 1_000_000]),
    ]
}

/// Asks for 3 MB, sends `behind` when the first of it is here, and reads on when that is sent.
#[track_caller]
fn whole_though_more_is_sent(mut connection: FastcgiConnection, behind: &[u8]) {
    connection.send(&FastcgiRequest::get("/3000000").bytes());
    let Some(Received::Stdout(1, first)) = connection.next() else { panic!("no response") };
    let sent = connection.send_beside(behind.to_vec());
    eventually("it is sent, or waits for room", || sent.is_finished() || connection.is_full());
    let length = first.len() + connection.response().stdout.len();
    assert!(length > 3_000_000, "{length}");
    sent.join().unwrap().expect("nobody closes the connection meanwhile");
    connection.assert_closed();
}

#[test]
fn a_large_response_arrives_whole_though_more_follows_its_request() {
    for setup in setups() {
        let pool = setup.start();
        for behind in followers() {
            whole_though_more_is_sent(pool.connect(), &behind);
        }
        pool.stop();
    }
}

#[test]
fn a_large_response_arrives_whole_though_its_worker_exits_and_more_is_sent_to_it() {
    for setup in setups() {
        let pool = setup.args(&["--max-requests", "1"]).start();
        for behind in followers() {
            whole_though_more_is_sent(pool.connect(), &behind);
        }
        pool.stop();
    }
}

#[test]
fn bytes_that_a_web_server_sends_after_a_response_are_no_error() {
    for setup in setups() {
        let pool = setup.start();
        let others = [
            FastcgiRequest::get("/").abort(),
            FastcgiRequest::get("/").bytes(),
            vec![b'x'; 1_000_000],
        ];
        for behind in followers().into_iter().chain(others) {
            let mut connection = pool.connect();
            assert_eq!(connection.ask(&FastcgiRequest::get("/9")).text(), "xxxxxxxxx");
            connection.send(&behind);
            connection.assert_closed();
        }
        pool.stop();
    }
}

#[test]
fn the_response_before_an_invalid_record_arrives_whole() {
    for setup in setups() {
        let pool = setup.start();
        let mut connection = pool.connect();
        let kept = FastcgiRequest::get("/100000").keep();
        connection.send(&kept.bytes());
        eventually("the response is here", || connection.has_more());
        connection.send(&vec![b'x'; 1_000_000]);
        assert_eq!(connection.response().text().len(), 100_000);
        connection.assert_closed();
        pool.stop();
    }
}

#[test]
fn a_connection_that_is_drained_keeps_nobody_from_being_served() {
    for setup in setups() {
        let pool = setup.start();
        let mut endless = pool.connect();
        endless.ask(&FastcgiRequest::get("/9"));
        let sends = endless.send_without_end();
        let mut silent = pool.connect();
        silent.ask(&FastcgiRequest::get("/9"));
        for _ in 0..10 {
            assert_eq!(pool.ask(&FastcgiRequest::get("/3000000")).text().len(), 3_000_000);
        }
        sends.join().unwrap().expect_err("it is not drained for ever");
        eventually("neither is kept for ever", || pool.accepted() == 0);
        pool.stop();
    }
}

#[test]
fn a_pool_that_is_asked_to_stop_drains_no_connection_for_long() {
    let pool = PoolSetup::new(SIZED).start();
    let silent: Vec<_> = (0..50).map(|_| pool.connect()).collect();
    for mut connection in silent {
        connection.ask(&FastcgiRequest::get("/9"));
    }
    let mut silent = pool.connect();
    silent.ask(&FastcgiRequest::get("/9"));
    pool.stop();
    silent.assert_closed();
}

#[test]
fn f39_more_of_a_body_than_its_content_length_is_dropped_while_a_response_is_sent_and_logged_once()
{
    let pool = PoolSetup::new(
        "
        def application(environ, start_response):
            body = b'' if environ['PATH_INFO'] == '/unread' else environ['wsgi.input'].read()
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [body + b'x' * 2_000_000]
        ",
    )
    .start();
    for path in ["/", "/unread", "/"] {
        for keep in [true, false] {
            let request = FastcgiRequest::post(path, "body")
                .body([&b"body"[..], &[b'y'; 2_000_000]].concat());
            let request = if keep { request.keep() } else { request };
            let mut connection = pool.connect();
            // mod_fcgid sends the whole request before it reads.
            connection.send_beside(request.bytes()).join().unwrap().unwrap();
            let text = connection.response().text();
            assert_eq!(text.len(), 2_000_000 + if path == "/" { 4 } else { 0 });
            assert_eq!(text.starts_with("body"), path == "/");
            if keep {
                assert_eq!(
                    connection.ask(&FastcgiRequest::get("/after").keep()).text().len(),
                    2_000_000
                );
            }
        }
    }
    let log = pool.stop();
    assert_eq!(log.matches("wsgate: warning[W0406]").count(), 1, "{log}");
}

#[test]
fn connections_that_a_web_server_does_not_close_keep_no_worker_longer_than_it_may_run() {
    let pool = PoolSetup::new(SIZED).args(&["--drain", "2"]).start();
    // A connection that is drained, and one with an incomplete request.
    let (mut drained, begun) = (pool.connect(), pool.connect());
    begun.send(&FastcgiRequest::get("/never").begin());
    assert!(!drained.ask(&FastcgiRequest::get("/5")).stdout.is_empty());
    let log = pool.stop();
    assert_eq!(codes(&log), [""; 0], "{log}");
}

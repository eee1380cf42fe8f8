//! Connections that hang are nobody else's business.

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread::{
        JoinHandle, {self},
    },
    time::Duration,
};

use crate::{
    pool::load::{Clients, compare, turn},
    support::{
        fastcgi_client::{FastcgiConnection, FastcgiRequest},
        pool::PoolSetup,
    },
};

/// Says so in the log before it reads its body.
const SAYS: &str = "
    import os
    def application(environ, start_response):
        path = environ['PATH_INFO']
        if path.startswith('/slow'):
            print('reads the body of', path)
        body = environ['wsgi.input'].read()
        start_response('200 OK', [('Content-Type', 'text/plain'), ('X-Pid', str(os.getpid()))])
        return [path.encode('latin-1') + b'|' + body]
    ";

/// A client that sends a byte a second until it is asked to hurry.
struct Slow {
    thread: JoinHandle<FastcgiConnection>,
    /// A channel without messages: dropping it asks the client to hurry.
    haste: Sender<()>,
}

impl Slow {
    fn start(connection: FastcgiConnection, bytes: Vec<u8>) -> Self {
        let (haste, reported): (_, Receiver<()>) = channel();
        let thread = thread::spawn(move || {
            let mut sent = 0;
            while sent < bytes.len()
                && reported.recv_timeout(Duration::from_secs(1)) == Err(RecvTimeoutError::Timeout)
            {
                connection.send(&bytes[sent..=sent]);
                sent += 1;
            }
            assert!(!connection.has_more(), "an answer to a part of a request");
            connection.send(&bytes[sent..]);
            connection
        });
        Self { thread, haste }
    }

    /// Sends the rest at once.
    fn make_haste(self) -> FastcgiConnection {
        drop(self.haste);
        self.thread.join().unwrap()
    }
}

#[test]
fn a_thousand_idle_connections_and_two_slow_clients_do_not_keep_others_from_being_served() {
    let _turn = turn();
    let mut pool = PoolSetup::new(SAYS).args(&["--workers", "2"]).start();
    let mut idle: Vec<FastcgiConnection> = (0..1000).map(|_| pool.connect()).collect();
    for (number, connection) in idle.iter_mut().enumerate() {
        let path = format!("/idle/{number}");
        assert_eq!(connection.ask(&FastcgiRequest::get(&path).keep()).text(), format!("{path}|"));
    }
    // One client is slow with its parameters, which occupies no worker. The other is slow with its
    // body, which occupies one of the two.
    let parameters =
        Slow::start(pool.connect(), FastcgiRequest::post("/parameters", "its body").bytes());
    let request = FastcgiRequest::post("/slow", "b".repeat(1000));
    let begun = pool.connect();
    begun.send(&request.before_body());
    pool.await_log("reads the body of /slow");
    let body =
        Slow::start(begun, [request.stdin(&b"b".repeat(1000)), request.end_of_stdin()].concat());
    let clients = Clients::start(
        &pool,
        8,
        || 0,
        |asked| match &asked.outcome {
            Ok(response) => compare(response, &format!("/|{}", asked.body)),
            Err(lost) => Err(format!("{lost:?}")),
        },
    );
    clients.each_answered(300);
    assert!(idle.iter().all(|connection| !connection.has_more()), "none of them is closed");
    clients.end();
    assert_eq!(body.make_haste().response().text(), format!("/slow|{}", "b".repeat(1000)));
    assert_eq!(parameters.make_haste().response().text(), "/parameters|its body");
    for connection in &mut idle {
        assert_eq!(connection.ask(&FastcgiRequest::get("/again").keep()).text(), "/again|");
    }
    pool.stop();
}

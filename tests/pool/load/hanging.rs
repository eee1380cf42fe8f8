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
        fastcgi_client::{Ask, Wire},
        pool::Setup,
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

/// A client that sends a byte a second until it is told to make haste.
struct Slow {
    thread: JoinHandle<Wire>,
    /// Nothing is ever sent: dropping it says so.
    haste: Sender<()>,
}

impl Slow {
    fn start(wire: Wire, bytes: Vec<u8>) -> Self {
        let (haste, told): (_, Receiver<()>) = channel();
        let thread = thread::spawn(move || {
            let mut sent = 0;
            while sent < bytes.len()
                && told.recv_timeout(Duration::from_secs(1)) == Err(RecvTimeoutError::Timeout)
            {
                wire.send(&bytes[sent..=sent]);
                sent += 1;
            }
            assert!(!wire.has_more(), "an answer to a part of a request");
            wire.send(&bytes[sent..]);
            wire
        });
        Self { thread, haste }
    }

    /// Sends the rest at once.
    fn make_haste(self) -> Wire {
        drop(self.haste);
        self.thread.join().unwrap()
    }
}

#[test]
fn a_thousand_idle_connections_and_two_slow_clients_do_not_keep_others_from_being_served() {
    let _turn = turn();
    let mut pool = Setup::new(SAYS).words(&["--workers", "2"]).start();
    let mut idle: Vec<Wire> = (0..1000).map(|_| pool.connect()).collect();
    for (number, wire) in idle.iter_mut().enumerate() {
        let path = format!("/idle/{number}");
        assert_eq!(wire.ask(&Ask::get(&path).keep()).text(), format!("{path}|"));
    }
    // One is slow with its parameters, which costs no worker, and one with its body, which holds
    // one of the two.
    let parameters = Slow::start(pool.connect(), Ask::post("/parameters", "its body").bytes());
    let ask = Ask::post("/slow", "b".repeat(1000));
    let begun = pool.connect();
    begun.send(&ask.before_body());
    pool.await_log("reads the body of /slow");
    let body = Slow::start(begun, [ask.stdin(&b"b".repeat(1000)), ask.end_of_stdin()].concat());
    let clients = Clients::start(
        &pool,
        8,
        || 0,
        |asked| match &asked.outcome {
            Ok(answer) => compare(answer, &format!("/|{}", asked.body)),
            Err(lost) => Err(format!("{lost:?}")),
        },
    );
    clients.each_answered(300);
    assert!(idle.iter().all(|wire| !wire.has_more()), "none of them is closed");
    clients.end();
    assert_eq!(body.make_haste().answer().text(), format!("/slow|{}", "b".repeat(1000)));
    assert_eq!(parameters.make_haste().answer().text(), "/parameters|its body");
    for wire in &mut idle {
        assert_eq!(wire.ask(&Ask::get("/again").keep()).text(), "/again|");
    }
    pool.stop();
}

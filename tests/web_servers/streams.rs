//! Responses that take their time, and clients that do not wait for the end.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    sync::mpsc::channel,
    time::Duration,
};

use crate::{
    support::web_servers::{HttpClient, WebServer, eventually, exists},
    web_servers::{behind_every_cgi_web_server, behind_every_fastcgi_web_server},
};

behind_every_cgi_web_server! {
    a_block_arrives_while_the_next_is_being_made
    a_client_that_disconnects_ends_the_application_and_its_processes
    a_complete_response_is_not_disturbed_when_the_server_disconnects
    a_response_is_complete_before_its_close_returns
    a_served_request_leaves_no_process_and_no_log_message
}

// The file `workers.rs` has the behaviour of persistent workers.
behind_every_fastcgi_web_server! {
    a_response_is_complete_before_its_close_returns
    a_block_arrives_while_the_next_is_being_made
}

fn a_block_arrives_while_the_next_is_being_made(web_server: &mut dyn WebServer) {
    let mut gate = web_server.site().fifo("gate");
    let mut answer = HttpClient::get(web_server.script("waits_between_blocks.wsgi")).stream();
    assert_eq!(answer.read_until("first\n"), "first\n");
    gate.write_all(b"go\n").unwrap();
    assert_eq!(answer.finish(), ("first\nsecond\n".to_owned(), true));
}

fn a_client_that_disconnects_ends_the_application_and_its_processes(
    web_server: &mut dyn WebServer,
) {
    let closed = web_server.site().fifo("closed");
    let mut answer = HttpClient::get(web_server.script("never_ends.wsgi")).stream();
    let seen = answer.read_until("\n");
    let pids: Vec<i32> =
        seen.lines().next().unwrap().split(' ').map(|pid| pid.parse().unwrap()).collect();
    assert!(pids.iter().all(|&pid| exists(pid)), "{pids:?}");
    answer.abort();

    assert_eq!(line_of(closed), "closed\n", "the body's close() is called");
    nothing_is_left(web_server);
    // A disconnect is no error.
    let log = web_server.stop();
    assert!(!log.contains("wsgate: error[") && !log.contains("Traceback"), "{log}");
}

/// Some servers kill a script once they have the bytes of its Content-Length, which is no failure.
fn a_complete_response_is_not_disturbed_when_the_server_disconnects(
    web_server: &mut dyn WebServer,
) {
    let (mut gate, closed) = (web_server.site().fifo("gate"), web_server.site().fifo("closed"));
    let mut answer =
        HttpClient::get(web_server.script("works_on_after_its_last_block.wsgi")).stream();
    answer.read_until("all\n");
    gate.write_all(b"go\n").unwrap();
    assert_eq!(line_of(closed), "closed\n", "the body's close() runs to its end");
    assert_eq!(answer.finish(), ("all\n".to_owned(), true));
    nothing_is_left(web_server);
    no_entry(&web_server.stop());
}

/// The web server then ends a CGI program, which does not harm `close()` either.
fn a_response_is_complete_before_its_close_returns(web_server: &mut dyn WebServer) {
    let (mut gate, closed) = (web_server.site().fifo("gate"), web_server.site().fifo("closed"));
    let response =
        HttpClient::get(web_server.script("works_on_after_its_last_block.wsgi")).stream();
    assert_eq!(response.finish(), ("all\n".to_owned(), true));
    gate.write_all(b"go\n").unwrap();
    assert_eq!(line_of(closed), "closed\n", "close() runs to its end");
}

fn a_served_request_leaves_no_process_and_no_log_message(web_server: &mut dyn WebServer) {
    for script in [
        "hello.wsgi",
        "flask.wsgi/",
        "environ.wsgi",
        "upload.wsgi",
        "redirects.wsgi",
        "flask.wsgi/moved",
    ] {
        let response = HttpClient::get(web_server.script(script)).run();
        assert!(matches!(response.status, 200 | 302), "{script}: {response:?}");
    }
    nothing_is_left(web_server);
    no_entry(&web_server.stop());
}

#[track_caller]
fn no_entry(log: &str) {
    for word in ["wsgate:", "Traceback", "terminated"] {
        assert!(!log.contains(word), "nothing has failed: {log}");
    }
}

fn nothing_is_left(web_server: &dyn WebServer) {
    eventually("no process of ours is left", || web_server.site().processes().is_empty());
}

/// The next bytes of the pipe; empty if none come.
pub(crate) fn line_of(mut pipe: File) -> String {
    let (sender, line) = channel();
    // The thread is not joined: without a connection it waits as long as the test binary runs.
    std::thread::spawn(move || {
        let mut bytes = [0; 64];
        let length = pipe.read(&mut bytes).unwrap();
        sender.send(String::from_utf8_lossy(&bytes[..length]).into_owned())
    });
    line.recv_timeout(Duration::from_secs(30)).unwrap_or_default()
}

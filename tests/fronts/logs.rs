//! What a pool sends for the log of the web server in front of it, in the words of that server.

use crate::front::{ApacheProxyFcgi, Client, Front, Nginx};

#[test]
fn nginx_logs_what_a_request_says() {
    logs_what_a_request_says(&mut Nginx::with_words(&["--errors-to-server"]), "FastCGI sent in stderr: \"");
}

#[test]
fn apache_logs_what_a_request_says() {
    logs_what_a_request_says(&mut ApacheProxyFcgi::with_words(&["--errors-to-server"]), "AH01071: Got error '");
}

/// `words` are those that the server puts before what it is told.
fn logs_what_a_request_says(front: &mut dyn Front, words: &str) {
    for _ in 0..3 {
        let page = Client::get(front.script("raises.wsgi")).run().expect(500);
        assert!(page.text().contains("<code>"), "the page of the pool itself: {page:?}");
        let page = Client::get(front.script("writes_to_errors.wsgi")).run().expect(200);
        assert_eq!(page.text(), "only this\n");
        Client::get(front.script("hello.wsgi")).run().expect(200);
    }
    let log = front.stop();
    let entries: Vec<_> = log.lines().filter(|line| line.contains(&format!("{words}wsgate: error[W0501]"))).collect();
    assert_eq!(entries.len(), 3, "{log}");
    for note in ["a note before the head", "a note amid the body"] {
        let told = log.lines().filter(|line| line.contains(words) && line.contains(note)).count();
        assert_eq!(told, 3, "{note}: {log}");
    }
    // Nothing else, and no complaint about the replies.
    assert!(!log.contains("[warn]") && !log.contains("prematurely") && !log.contains("malformed"), "{log}");
    assert!((6..=9).contains(&log.matches(words).count()), "{log}");
}

//! What is other behind a front whose workers stay: the application's failures are survived, not
//! only answered.
//!
//! Not asked of these fronts, and why:
//!
//! - that no process is left after a request: the worker stays;
//! - that only WSGI files can be asked for, of all but mod_fcgid: they serve one application at one
//!   address, no directory;
//! - which status a request gets that takes its worker along, or whose application cannot be
//!   loaded: that is the web server's own page, 500, 502 or 503.

use std::os::unix::fs::PermissionsExt as _;

use crate::{
    support::web_servers::{ApacheFcgid, HttpClient, WebServer, eventually, exists},
    web_servers::behind_every_fastcgi_web_server,
};

use crate::web_servers::streams::line_of;

/// Applications that fail and leave their worker as it was.
macro_rules! each_gets_its_page_and_the_worker_goes_on {
    ($($app:ident)*) => {
        $(fn $app(web_server: &mut dyn WebServer) {
            fails_and_goes_on(web_server, stringify!($app));
        })*
        behind_every_fastcgi_web_server! {
            $($app)*
            a_client_that_disconnects_ends_the_application_and_not_its_worker
            a_complete_response_continues_to_its_end
            served_requests_leave_no_log_message
            the_flags_of_wsgi_are_those_of_a_persistent_process
            an_application_that_cannot_be_loaded_is_reported
        }
    };
}

each_gets_its_page_and_the_worker_goes_on! {
    raises
    raises_in_first_block
    returns_str
    returns_none
    no_start_response
    injects_header
    recurses
    calls_sys_exit
}

fn fails_and_goes_on(web_server: &mut dyn WebServer, app: &str) {
    // More requests than workers.
    let pages = [(); 5]
        .map(|()| HttpClient::get(web_server.script(&format!("{app}.wsgi"))).run().expect(500));
    for page in &pages {
        assert!(page.header("content-type").starts_with("text/html"), "{page:?}");
        for word in ["Traceback", "secret", app, "/cgi-bin/", "File &quot;", "python"] {
            assert!(!page.text().contains(word), "the page has `{word}`: {page:?}");
        }
    }
    let log = web_server.stop();
    assert_eq!(
        log.matches("wsgate: error[W").count(),
        pages.len(),
        "a log message for each request: {log}"
    );
    assert_eq!(log.matches("hint: ").count(), pages.len(), "{log}");
    for page in &pages {
        let text = page.text();
        let id = text
            .split("<code>")
            .nth(1)
            .and_then(|rest| rest.split("</code>").next())
            .unwrap_or_default();
        assert!(!id.is_empty(), "the page names no request id: {text}");
        assert!(log.contains(id), "the log does not name request {id}: {log}");
    }
    assert!(!log.contains("End of script output before headers"), "{log}");
}

fn a_client_that_disconnects_ends_the_application_and_not_its_worker(
    web_server: &mut dyn WebServer,
) {
    for _ in 0..3 {
        let closed = web_server.site().fifo("closed");
        let mut answer = HttpClient::get(web_server.script("never_ends.wsgi")).stream();
        let seen = answer.read_until("\n");
        let worker: i32 = seen.lines().next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        answer.abort();
        assert_eq!(line_of(closed), "closed\n", "the body's close() is called");
        assert!(exists(worker), "worker {worker} has ended");
        std::fs::remove_file(web_server.site().path("var/closed")).unwrap();
    }
    // A disconnect is no error.
    let log = web_server.stop();
    assert!(!log.contains("wsgate: error[") && !log.contains("Traceback"), "{log}");
}

fn a_complete_response_continues_to_its_end(web_server: &mut dyn WebServer) {
    use std::io::Write as _;
    let (mut gate, closed) = (web_server.site().fifo("gate"), web_server.site().fifo("closed"));
    let mut answer =
        HttpClient::get(web_server.script("works_on_after_its_last_block.wsgi")).stream();
    answer.read_until("all\n");
    gate.write_all(b"go\n").unwrap();
    assert_eq!(line_of(closed), "closed\n", "the body's close() runs to its end");
    assert_eq!(answer.finish(), ("all\n".to_owned(), true));
    no_entry(&web_server.stop());
}

fn served_requests_leave_no_log_message(web_server: &mut dyn WebServer) {
    for script in [
        "hello.wsgi",
        "flask.wsgi/",
        "environ.wsgi",
        "upload.wsgi",
        "redirects.wsgi",
        "flask.wsgi/moved",
    ] {
        for _ in 0..3 {
            let response = HttpClient::get(web_server.script(script)).run();
            assert!(matches!(response.status, 200 | 302), "{script}: {response:?}");
        }
    }
    no_entry(&web_server.stop());
}

/// The log has only messages that pools start and stop.
#[track_caller]
fn no_entry(log: &str) {
    for word in ["wsgate: error[", "wsgate: warning[", "Traceback", "terminated"] {
        assert!(!log.contains(word), "nothing has failed: {log}");
    }
}

fn the_flags_of_wsgi_are_those_of_a_persistent_process(web_server: &mut dyn WebServer) {
    let seen =
        HttpClient::get(web_server.script("environ.wsgi?format=json")).run().expect(200).json();
    assert_eq!(seen["wsgi.run_once"], false);
    assert_eq!(seen["wsgi.multithread"], false);
    // Another process of the same application may be running, of the pool or of the web server.
    assert_eq!(seen["wsgi.multiprocess"], true);
}

fn an_application_that_cannot_be_loaded_is_reported(web_server: &mut dyn WebServer) {
    for (script, code) in [("raises_at_import.wsgi", "W0301"), ("missing_module.wsgi", "W0302")] {
        let response = HttpClient::get(web_server.script(script)).run();
        assert!((500..=504).contains(&response.status), "{response:?}");
        assert!(!response.text().contains("Traceback"), "{response:?}");
        eventually("the log has the cause", || {
            web_server.log().contains(&format!("wsgate: error[{code}]"))
        });
    }
}

#[test]
fn mod_fcgid_serves_code_that_has_changed() {
    let mut web_server = ApacheFcgid::start();
    let path = |name: &str| web_server.site().path("cgi-bin").join(name);
    let code = "import version
def application(environ, start_response):
    start_response('200 OK', [('Content-Type', 'text/plain')])
    return [version.VALUE.encode()]
";
    std::fs::write(path("version.py"), "VALUE = 'first'\n").unwrap();
    let wsgate = web_server.site().path("bin/wsgate");
    std::fs::write(path("versions.wsgi"), format!("#!{}\n{code}", wsgate.display())).unwrap();
    std::fs::set_permissions(path("versions.wsgi"), std::fs::Permissions::from_mode(0o755))
        .unwrap();
    let url = web_server.script("versions.wsgi");
    let version = || HttpClient::get(url.clone()).run().expect(200).text();
    for _ in 0..3 {
        assert_eq!(version(), "first");
    }
    for value in ["second", "the third"] {
        std::fs::write(path("version.py"), format!("VALUE = '{value}'\n")).unwrap();
        eventually(&format!("the {value} version is served"), || version() == value);
    }
    assert!(web_server.stop().contains("has changed; this worker exits"));
}

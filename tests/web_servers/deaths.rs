//! Applications that take their worker along. A process of mod_fcgid's or lighttpd's is theirs to
//! miss; a pool fills the place again and says what has happened.

use crate::{
    support::web_servers::{HttpClient, WebServer, eventually},
    web_servers::behind_every_pool_web_server,
};

behind_every_pool_web_server! {
    a_worker_that_crashes_with_a_request_is_replaced
    a_request_that_takes_too_long_is_answered_and_its_worker_goes_on
}

fn a_worker_that_crashes_with_a_request_is_replaced(web_server: &mut dyn WebServer) {
    for (script, how) in [
        ("segfaults.wsgi", "was killed by SIGSEGV"),
        ("kills_itself.wsgi", "was killed by SIGKILL"),
        ("calls_os_exit.wsgi", "exited with status"),
    ] {
        // More requests than workers.
        for times in 1..=3 {
            let response = HttpClient::get(web_server.script(script)).run();
            assert!((500..=504).contains(&response.status), "{response:?}");
            let messages = || {
                let log = web_server.log();
                log.lines()
                    .filter(|line| line.contains("wsgate: error[W0701]") && line.contains(how))
                    .count()
            };
            eventually("the log has a log message for each", || messages() == times);
        }
    }
    HttpClient::get(web_server.script("hello.wsgi")).run().expect(200);
}

fn a_request_that_takes_too_long_is_answered_and_its_worker_goes_on(
    web_server: &mut dyn WebServer,
) {
    // More requests than workers.
    for times in 1..=3 {
        let response = HttpClient::get(web_server.script("hangs.wsgi")).run().expect(504);
        assert!(!response.text().contains("Traceback"), "{response:?}");
        eventually("the log has a log message for each", || {
            web_server.log().matches("wsgate: error[W0604]").count() == times
        });
    }
    let log = web_server.stop();
    assert!(!log.contains("[W0701]"), "a worker has ended: {log}");
}

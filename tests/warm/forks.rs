//! Processes that the application forks in warm and resident processes.

use crate::{
    pool::forks::{APPLICATION, plainly},
    support::{assertions::codes, child_process::Gate, web_servers::eventually},
    warm::WarmSite,
};

/// A site in this mode, whose next request is served by its pool.
fn site(mode: &str) -> WarmSite {
    let site = WarmSite::of(mode, "", APPLICATION);
    site.response(site.request().env("PATH_INFO", "/"), "");
    site.await_pools(1);
    site
}

#[test]
fn a_child_of_the_application_and_its_programs_are_as_those_of_a_plain_process() {
    for mode in ["warm", "resident"] {
        let site = site(mode);
        for path in ["state", "signals", "exits", "work"] {
            let plain = plainly(path);
            for _ in 0..2 {
                let response =
                    site.response(site.request().env("PATH_INFO", format!("/{path}")), "");
                assert_eq!(response.text(), plain, "{mode}: {response:?}");
            }
        }
        let log = site.log();
        assert_eq!(codes(&log), [""; 0], "{log}");
    }
}

#[test]
fn an_object_that_ends_in_a_child_closes_no_file_of_the_child() {
    for mode in ["warm", "resident"] {
        let site = site(mode);
        for _ in 0..2 {
            let mut request = site.request();
            request
                .env("PATH_INFO", "/reuse")
                .env("REQUEST_METHOD", "POST")
                .env("CONTENT_LENGTH", "4");
            assert_eq!(site.response(&mut request, "body").text(), "0", "{mode}: {}", site.log());
        }
    }
}

#[test]
fn a_daemon_that_a_request_has_started_outlives_the_pool_and_holds_nothing_of_it() {
    for mode in ["warm", "resident"] {
        let site = site(mode);
        let gate = Gate::new(&site.dir.path("site"));
        let response =
            site.response(site.request().env("PATH_INFO", "/daemon").env("GATE", gate.path()), "");
        assert_eq!(response.text(), "started", "{response:?}");
        eventually("the daemon lives", || site.log().contains("the daemon has 0 sockets"));
        // The variable of the gate makes it the first request of another pool.
        site.await_pools(2);
        for socket in site.files(".sock") {
            site.wsgate(&["stop", socket.file_stem().unwrap().to_str().unwrap()]);
        }
        eventually("nothing but the daemon is left", || site.supervisors().is_empty());
        gate.open();
        site.await_no_process();
    }
}

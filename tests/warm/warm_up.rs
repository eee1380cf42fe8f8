//! `--warm-up`: the application has answered a request before anything was forked from it.

use std::fs;

use crate::{
    support::{
        assertions::{complete_response, first_line},
        probe::CgiResponse,
        web_servers::eventually,
    },
    warm::{WarmSite, Who},
};

/// Keeps what it was asked, and says so; does what the warm-up request asks for.
const KEEPS: &str = "
    import os, socket, sys, time
    BORN = os.getpid()
    SEEN = []
    KEPT = []
    def application(environ, start_response):
        path = environ['PATH_INFO']
        body = environ['wsgi.input'].read()
        SEEN.append(' '.join([environ['REQUEST_METHOD'], environ['HTTP_HOST'], path, \
        environ['QUERY_STRING'],
            environ['REMOTE_ADDR'], environ['wsgi.url_scheme'], environ.get('HTTP_USER_AGENT', \
            '-').split('/')[0],
            repr(body), str('QUERY_STRING' in os.environ), str(BORN == os.getpid())]))
        status = '200 OK'
        if path == '/raise':
            raise RuntimeError('on purpose')
        if path == '/exit':
            sys.exit(3)
        if path == '/wait':
            while True:
                time.sleep(100)
        if path == '/missing':
            status = '404 Not Found'
        if path == '/socket':
            KEPT.append(socket.socket())
        if path == '/import':
            import lazy
        if path == '/forks' and os.fork() == 0:
            raise SystemExit(0)
        lazy = sys.modules.get('lazy')
        start_response(status, [('Content-Type', 'text/plain'), ('X-Seen', '; '.join(SEEN[:-1])),
            ('X-Lazy', lazy.VALUE if lazy else '-')])
        return [('%d %d' % (BORN, os.getpid())).encode()]
    ";

/// The response of a process of a pool to its first request.
#[track_caller]
fn first_of_a_process(site: &WarmSite) -> CgiResponse {
    let mut found = None;
    eventually(&format!("a warm process answers: {}", site.log()), || {
        let response = site.ask();
        assert_eq!(complete_response(&response.raw).status, 200, "{response:?}");
        found = Some(response)
            .filter(|response| Who::of(response).is_warm() && !seen(response).contains(" -"));
        found.is_some()
    });
    found.unwrap()
}

/// The user agents of earlier requests. The requests of the tests have none.
fn seen(response: &CgiResponse) -> &str {
    response.header("X-Seen").unwrap_or_default()
}

#[test]
fn every_process_has_the_state_of_the_warm_up_request() {
    for mode in ["warm", "resident"] {
        let site = WarmSite::of(mode, "--warm-up /a%20b?c=d", KEEPS);
        let response = first_of_a_process(&site);
        assert_eq!(
            seen(&response),
            "GET example.org /a b c=d 127.0.0.1 http wsgate b'' False True",
            "{}",
            site.log()
        );
        assert!(!site.log().contains("W0311"), "{}", site.log());
        let site = WarmSite::of(mode, "--warm-up https://www.example.org:8443/x", KEEPS);
        let response = first_of_a_process(&site);
        assert_eq!(
            seen(&response),
            "GET www.example.org:8443 /x  127.0.0.1 https wsgate b'' False True"
        );
    }
}

#[test]
fn without_the_option_no_warm_up_request_is_made() {
    let site = WarmSite::new(KEEPS);
    assert_eq!(seen(&first_of_a_process(&site)), "");
}

#[test]
fn a_warm_up_request_that_fails_is_one_log_message_and_the_pool_serves() {
    for (path, why) in [
        ("/raise", "RuntimeError: on purpose"),
        ("/exit", "called `sys.exit`"),
        ("/missing", "answered with `404 Not Found`"),
        ("/wait", "took longer than 1 s"),
    ] {
        let site = WarmSite::with(&format!("--timeout 1 --warm-up {path}"), KEEPS);
        assert!(!seen(&first_of_a_process(&site)).is_empty(), "{path}: {}", site.log());
        let log = site.log();
        assert!(log.contains("warning[W0311]") && log.contains(why), "{path}: {log}");
        // The lines of what failed belong to that log message.
        let messages = log
            .lines()
            .filter(|line| first_line(line).is_some_and(|text| !text.starts_with("notice")));
        assert_eq!(messages.count(), 1, "{path}: {log}");
    }
}

#[test]
fn a_child_of_the_warm_up_request_is_no_template() {
    let site = WarmSite::with("--warm-up /forks", KEEPS);
    first_of_a_process(&site);
    for supervisor in site.supervisors() {
        assert_eq!(crate::pool::children(supervisor).len(), 1, "{}", site.log());
    }
    eventually("only a template and what waits is left", || site.processes().len() == 4);
}

#[test]
fn modules_that_the_warm_up_request_imports_are_watched() {
    let site = WarmSite::with("--warm-up /import", KEEPS);
    for value in ["one", "four", "seven"] {
        let draft = site.dir.file("site/lazy.draft", &format!("VALUE = {value:?}\n"));
        fs::rename(draft, site.dir.path("site/lazy.py")).unwrap();
        eventually(&format!("{value} is served: {}", site.log()), || {
            let response = first_of_a_process(&site);
            // The first of all was served before there was a pool, which has loaded it.
            response.header("X-Lazy") == Some(value)
        });
    }
}

#[test]
fn a_socket_that_the_warm_up_request_leaves_open_makes_each_process_load_by_itself() {
    let site = WarmSite::with("--warm-up /socket", KEEPS);
    let response = site.warm_up();
    assert!(!Who::of(&response).is_warm());
    eventually(&format!("a process that has loaded for itself answers: {}", site.log()), || {
        let response = site.ask();
        assert_eq!(complete_response(&response.raw).status, 200, "{response:?}");
        seen(&response).contains("/socket")
    });
    let log = site.log();
    assert!(
        log.contains("W0309")
            && log.contains("while it was loaded and answered its warm-up request"),
        "{log}"
    );
}

/// Gives the address that the first request of its process was made at.
const FIRST: &str = "
    import os
    BORN = os.getpid()
    FIRST = []
    def application(environ, start_response):
        names = ['SCRIPT_NAME', 'PATH_INFO', 'REQUEST_URI', 'HTTP_HOST', 'wsgi.url_scheme']
        FIRST.append(' '.join(environ[name] for name in names))
        start_response('200 OK', [('Content-Type', 'text/plain'), ('X-First', FIRST[0])])
        return [('%d %d' % (BORN, os.getpid())).encode()]
    ";

#[test]
fn the_warm_up_request_is_made_at_the_address_of_the_request_that_starts_the_pool() {
    for mode in ["warm", "resident"] {
        let site = WarmSite::of(mode, "--warm-up /w", FIRST);
        for (variables, first) in [
            (
                &[("REQUEST_URI", "/cgi-bin/app.wsgi")][..],
                "/cgi-bin/app.wsgi /w /cgi-bin/app.wsgi/w example.org http",
            ),
            // Rewritten: the application is mounted elsewhere, and has another pool there.
            (
                &[
                    ("REQUEST_URI", "/my%20shop/x"),
                    ("PATH_INFO", "/x"),
                    ("HTTPS", "on"),
                    ("HTTP_HOST", "shop.example:444"),
                ],
                "/my shop /w /my%20shop/w shop.example:444 https",
            ),
        ] {
            eventually(&format!("a warm process answers: {}", site.log()), || {
                let mut command = site.request();
                command.envs(variables.iter().copied());
                let response = site.response(&mut command, "");
                let is_warm = Who::of(&response).is_warm();
                assert!(!is_warm || response.header("X-First") == Some(first), "{response:?}");
                is_warm
            });
        }
        assert!(!site.log().contains("W0311"), "{}", site.log());
    }
}

#[test]
fn the_options_name_the_address_of_the_warm_up_request() {
    for (options, first) in [
        (
            "--warm-up https://www.example.org/app/w --script-name /app",
            "/app /w /app/w www.example.org https",
        ),
        (
            "--warm-up https://www.example.org/cgi-bin/app.wsgi",
            "/cgi-bin/app.wsgi  /cgi-bin/app.wsgi www.example.org https",
        ),
        ("--warm-up /w --script-name /app", "/app /w /app/w example.org http"),
    ] {
        let site = WarmSite::with(options, FIRST);
        let mut command = site.request();
        site.response(&mut command, "");
        eventually(&format!("a warm process answers: {}", site.log()), || {
            let response = site.ask();
            let is_warm = Who::of(&response).is_warm();
            assert!(
                !is_warm || response.header("X-First") == Some(first),
                "{options}: {response:?}"
            );
            is_warm
        });
    }
}

#[test]
fn a_resident_process_serves_one_address_of_the_application() {
    let site = WarmSite::of("resident", "", FIRST);
    for (script_name, pools) in [("/one", 1), ("/other", 2), ("/one", 2), ("/other", 2)] {
        eventually(&format!("a process of the pool serves {script_name}"), || {
            let mut command = site.request();
            command
                .env_remove("REQUEST_URI")
                .env("SCRIPT_NAME", script_name)
                .env("PATH_INFO", "/x");
            command.env("REQUEST_URI", format!("{script_name}/x"));
            let response = site.response(&mut command, "");
            let first = response.header("X-First").unwrap_or_default();
            assert!(first.starts_with(&format!("{script_name} /x ")), "{first}: {}", site.log());
            Who::of(&response).is_warm()
        });
        site.await_pools(pools);
    }
}

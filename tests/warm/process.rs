//! A process that serves a warm request is as a new CGI process.

use std::{
    collections::HashSet,
    fs::{
        File, {self},
    },
    io::Read as _,
    os::{fd::OwnedFd, unix::net::UnixStream},
    process::{Command, Stdio},
};

use crate::{
    support::{
        assertions::complete_response, child_process::RunningProcess, probe::CgiResponse,
        web_servers::eventually,
    },
    warm::{TELLS_ITSELF, WarmSite, Who},
};

/// Responds with the value of the Python expression in the query.
const EVALUATES: &str = "
    import os, signal, sys, random, threading
    BORN = os.getpid()
    COUNT = [0]
    def application(environ, start_response):
        COUNT[0] += 1
        value = eval(environ['QUERY_STRING'])
        start_response('200 OK', [('Content-Type', 'text/plain')])
        return [repr((BORN != os.getpid(), value)).encode()]
    ";

/// The value of `expression` in a warm process.
#[track_caller]
fn evaluate(site: &WarmSite, expression: &str, variables: &[(&str, &str)], body: &str) -> String {
    let mut found = None;
    eventually(&format!("a warm process evaluates: {}", site.log()), || {
        let mut command = site.request();
        command.env("QUERY_STRING", expression).envs(variables.iter().copied());
        let response = site.response(&mut command, body);
        assert_eq!(complete_response(&response.raw).status, 200, "{response:?}");
        let text = response.text();
        found =
            text.strip_prefix("(True, ").and_then(|rest| rest.strip_suffix(')')).map(str::to_owned);
        found.is_some()
    });
    found.unwrap()
}

/// The response of a cold process.
#[track_caller]
fn evaluate_cold(site: &WarmSite, expression: &str) -> String {
    let mut command = site.request();
    command.env("QUERY_STRING", expression).env("WSGATE_RUNTIME_DIR", "/proc/nowhere");
    site.response(&mut command, "").text()
}

#[test]
fn the_first_request_is_served_by_cold_cgi_and_the_next_by_forked_processes() {
    let site = WarmSite::new(TELLS_ITSELF);
    assert!(!Who::of(&site.warm_up()).is_warm());
    let responses: Vec<Who> =
        (0..8).map(|_| Who::of(&site.ask())).filter(|who| who.is_warm()).collect();
    assert!(responses.len() > 4, "{responses:?} {}", site.log());
    assert_eq!(
        responses.iter().map(|who| who.born).collect::<HashSet<_>>().len(),
        1,
        "{responses:?}"
    );
    assert_eq!(
        responses.iter().map(|who| who.pid).collect::<HashSet<_>>().len(),
        responses.len(),
        "{responses:?}"
    );
}

#[test]
fn environment_directory_and_umask_are_those_of_the_request() {
    let site = WarmSite::new(EVALUATES);
    site.warm_up();
    let names = "sorted(os.environ) == sorted(k.decode() for k in os.environb)";
    assert_eq!(evaluate(&site, names, &[], ""), "True");
    assert_eq!(
        evaluate(
            &site,
            "(os.environ.get('HTTP_X_ONE'), os.environ.get('HTTP_X_TWO'))",
            &[("HTTP_X_ONE", "1")],
            ""
        ),
        "('1', None)"
    );
    assert_eq!(
        evaluate(
            &site,
            "(os.environ.get('HTTP_X_ONE'), os.environ.get('HTTP_X_TWO'))",
            &[("HTTP_X_TWO", "2")],
            ""
        ),
        "(None, '2')"
    );
    let child = "__import__('subprocess').check_output(['/bin/sh', '-c', 'echo $HTTP_X_ONE; pwd'], \
        text=True).split()";
    let directory = site.dir.path("site").display().to_string();
    assert_eq!(
        evaluate(&site, child, &[("HTTP_X_ONE", "one")], ""),
        format!("['one', '{directory}']")
    );
    assert_eq!(evaluate(&site, "os.getcwd()", &[], ""), format!("'{directory}'"));
    let mask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    rustix::process::umask(mask);
    assert_eq!(
        evaluate(&site, "(os.umask(0), os.umask(0))[0]", &[], ""),
        mask.as_raw_mode().to_string()
    );
    assert_eq!(
        evaluate(&site, "'HTTP_PROXY' in os.environ", &[("HTTP_PROXY", "evil")], ""),
        "False"
    );
}

#[test]
fn nothing_of_a_request_is_left_for_the_next() {
    let site = WarmSite::new(EVALUATES);
    site.warm_up();
    for _ in 0..4 {
        let spoil = "(COUNT, os.environ.__setitem__('SPOILT', '1'), setattr(sys, 'spoilt', 1), \
            os.chdir('/'))[0]";
        assert_eq!(evaluate(&site, spoil, &[], ""), "[1]");
        assert_eq!(
            evaluate(
                &site,
                "('SPOILT' in os.environ, hasattr(sys, 'spoilt'), os.getcwd() == '/')",
                &[],
                ""
            ),
            "(False, False, False)"
        );
    }
}

#[test]
fn body_and_standard_streams_are_those_of_the_request() {
    let site = WarmSite::new(EVALUATES);
    site.warm_up();
    let length = [("REQUEST_METHOD", "POST"), ("CONTENT_LENGTH", "9")];
    assert_eq!(
        evaluate(&site, "environ['wsgi.input'].read()", &length, "some body"),
        "b'some body'"
    );
    assert_eq!(evaluate(&site, "sys.stdin.read()", &length, "some body"), "''");
    let says = "[print('printed'), print('to stderr', file=sys.stderr), \
        environ['wsgi.errors'].write('no end'), os.write(1, b'raw\\n')] and 1";
    assert_eq!(evaluate(&site, says, &[], ""), "1");
    // A line without an end is logged when the request is over, after its response.
    for text in ["printed", "to stderr", "no end", "raw"] {
        eventually(&format!("{text} is logged: {}", site.log()), || site.log().contains(text));
    }
}

#[test]
fn signals_random_numbers_and_descriptors_are_as_in_a_new_process() {
    let site = WarmSite::new(EVALUATES);
    site.warm_up();
    let handlers = "[signal.getsignal(s).__class__.__name__ for s in (signal.SIGCHLD, \
        signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)]";
    assert_eq!(
        format!("(False, {})", evaluate(&site, handlers, &[], "")),
        evaluate_cold(&site, handlers)
    );
    assert_eq!(evaluate(&site, "len(signal.pthread_sigmask(signal.SIG_BLOCK, []))", &[], ""), "0");
    let numbers: HashSet<String> =
        (0..4).map(|_| evaluate(&site, "random.random()", &[], "")).collect();
    assert_eq!(numbers.len(), 4, "{numbers:?}");
    assert_eq!(evaluate(&site, "threading.active_count()", &[], ""), "1");
    // Children of an application get the standard streams, and what the web server has left open by
    // itself.
    let open = "__import__('subprocess').check_output(['/bin/ls', '/proc/self/fd'], \
        close_fds=False, text=True).split()[:-1]";
    assert_eq!(format!("(False, {})", evaluate(&site, open, &[], "")), evaluate_cold(&site, open));
    assert_eq!(evaluate(&site, "os.getpgrp() == os.getpid()", &[], ""), "True");
}

#[test]
fn exit_handlers_run_after_each_request() {
    let site = WarmSite::new(
        "
        import atexit, os
        BORN = os.getpid()
        def application(environ, start_response):
            atexit.register(lambda: print('exit of %d' % os.getpid()))
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [('%d %d' % (BORN, os.getpid())).encode()]
        ",
    );
    site.warm_up();
    let who = Who::of(&site.ask());
    eventually("it is done", || site.log().contains(&format!("exit of {}", who.pid)));
}

#[test]
fn the_gateway_has_exited_when_the_response_ends() {
    for mode in ["warm", "resident"] {
        let site = WarmSite::new(TELLS_ITSELF);
        site.dir.script("site/app.wsgi", &format!("#!WSGATE --mode {mode}"), TELLS_ITSELF);
        site.warm_up();
        let mut warm = 0;
        while warm < 3 {
            let mut gateway = site.request().spawn().unwrap();
            drop(gateway.stdin.take());
            let mut response = Vec::new();
            gateway.stdout.take().unwrap().read_to_end(&mut response).unwrap();
            let status = gateway.try_wait().unwrap();
            let response = CgiResponse::parse(response, site.log(), gateway.wait().unwrap());
            if Who::of(&response).is_warm() {
                warm += 1;
                assert!(status.is_some_and(|status| status.success()), "{mode}: {status:?}");
            }
        }
    }
}

#[test]
fn a_response_ends_though_a_child_of_the_application_holds_its_socket() {
    let site = WarmSite::new(
        "
        import os
        BORN = os.getpid()
        def application(environ, start_response):
            gate = os.path.join(os.path.dirname(__file__), 'gate')
            if BORN != os.getpid() and os.fork() == 0:
                open(gate).read()
                os._exit(0)
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [('%d %d' % (BORN, os.getpid())).encode()]
        ",
    );
    assert!(Command::new("mkfifo").arg(site.dir.path("site/gate")).status().unwrap().success());
    site.warm_up();
    eventually("a warm process answers", || {
        // mod_cgid uses one socket for both directions.
        let (mut server, program) = UnixStream::pair().unwrap();
        let mut command = site.request();
        command.stdin(OwnedFd::from(program.try_clone().unwrap())).stdout(OwnedFd::from(program));
        let mut gateway = command.spawn().unwrap();
        drop(command);
        let mut response = Vec::new();
        server.read_to_end(&mut response).unwrap();
        Who::of(&CgiResponse::parse(response, site.log(), gateway.wait().unwrap())).is_warm()
    });
    // Lets the child go, which would wait for ever.
    File::options().write(true).open(site.dir.path("site/gate")).unwrap();
}

#[test]
fn large_bodies_go_both_ways_without_the_gateway() {
    let site = WarmSite::new(
        "
        import os
        BORN = os.getpid()
        def application(environ, start_response):
            body = environ['wsgi.input'].read()
            start_response('200 OK', [('Content-Type', 'text/plain'), ('X-Warm', str(BORN != \
            os.getpid()))])
            return [body]
        ",
    );
    site.warm_up();
    let body = "0123456789abcdef".repeat(1 << 17);
    let mut command = site.request();
    command.env("REQUEST_METHOD", "POST").env("CONTENT_LENGTH", body.len().to_string());
    let response: CgiResponse = site.response(&mut command, &body);
    assert_eq!((response.header("X-Warm"), response.body.len()), (Some("True"), body.len()));
    assert_eq!(response.text(), body);
}

#[test]
fn a_web_server_that_waits_for_the_end_of_standard_error_gets_it() {
    // mod_cgi waits for the end of standard error, which no process of the pool may hold open.
    let site = WarmSite::new(TELLS_ITSELF);
    let mut command = site.request();
    command.stderr(Stdio::piped());
    assert!(!Who::of(&site.response(&mut command, "")).is_warm());
    site.await_pools(1);
    let mut command = site.request();
    command.stderr(Stdio::piped());
    let mut running = RunningProcess::start(&mut command);
    running.give("");
    let ended = running.end();
    let log = fs::read_to_string(site.files(".log").remove(0));
    assert!(
        Who::of(&CgiResponse::parse(ended.stdout, ended.stderr.clone(), ended.status)).is_warm(),
        "{} {log:?}",
        ended.stderr
    );
}

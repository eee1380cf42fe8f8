//! The process managers and clients that come with FastCGI's own library and with lighttpd:
//! spawn-fcgi and cgi-fcgi.

use std::{fs, process::Command};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{
    probe::dedent,
    web_servers::{
        ApacheFcgid, HttpClient, LighttpdFastcgi, WebServer, WebSite, eventually, exists,
        wait_for_exit,
    },
};

/// A script that spawn-fcgi has started; ended with the test.
struct Spawned(i32);

impl Drop for Spawned {
    fn drop(&mut self) {
        if let Some(pid) = Pid::from_raw(self.0) {
            // The process may have exited by itself.
            let _ = kill_process(pid, Signal::TERM);
        }
    }
}

/// The output of cgi-fcgi for a `GET` of the application at `socket`.
fn cgi_fcgi(site: &WebSite, socket: &str, variables: &[(&str, &str)]) -> String {
    let mut command = site.as_server("cgi-fcgi");
    command.args(["-bind", "-connect", socket]).envs(variables.iter().copied());
    command
        .env("REQUEST_METHOD", "GET")
        .env("SCRIPT_NAME", "/app")
        .env("PATH_INFO", "/a b")
        .env("QUERY_STRING", "q=1");
    command
        .env("SERVER_NAME", "localhost")
        .env("SERVER_PORT", "80")
        .env("SERVER_PROTOCOL", "HTTP/1.1");
    let output = command.output().expect("cgi-fcgi: run tests/setup.sh");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// `command`, which spawn-fcgi starts with a listening socket at `socket` and is then the process
/// itself.
fn spawn_fcgi(site: &WebSite, socket: &str, script: &str) -> Spawned {
    let pid_file = site.path("var/pid");
    let mut command: Command = site.as_server("spawn-fcgi");
    command
        .arg("-s")
        .arg(socket)
        .arg("-P")
        .arg(&pid_file)
        .arg("--")
        .arg(site.path("cgi-bin").join(script));
    let output = command.output().expect("spawn-fcgi: run tests/setup.sh");
    assert!(output.status.success(), "{output:?}");
    Spawned(fs::read_to_string(pid_file).unwrap().trim().parse().unwrap())
}

#[test]
fn a_worker_of_spawn_fcgi_answers_cgi_fcgi_until_it_is_asked_to_stop() {
    let site = WebSite::new();
    let socket = site.path("var/hello.sock").display().to_string();
    let process = spawn_fcgi(&site, &socket, "hello.wsgi");
    for _ in 0..3 {
        let page = cgi_fcgi(&site, &socket, &[]);
        let (head, body) = page.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {page}"));
        assert_eq!(body, "Hello from WSGI\n");
        assert!(head.contains("Content-Type: text/plain; charset=utf-8"), "{head}");
    }
    kill_process(Pid::from_raw(process.0).unwrap(), Signal::TERM).unwrap();
    wait_for_exit(process.0);
}

/// Service supervisors run spawn-fcgi in the foreground.
#[test]
fn spawn_fcgi_may_stay_in_the_foreground() {
    let site = WebSite::new();
    let socket = site.path("var/hello.sock");
    let mut command = site.as_server("spawn-fcgi");
    command.arg("-n").arg("-s").arg(&socket).arg("--").arg(site.path("cgi-bin/hello.wsgi"));
    let mut child = command.spawn().expect("spawn-fcgi: run tests/setup.sh");
    let process = Spawned(child.id().cast_signed());
    eventually("the socket is there", || socket.exists());
    let page = cgi_fcgi(&site, &socket.display().to_string(), &[]);
    assert!(page.ends_with("\r\n\r\nHello from WSGI\n"), "{page}");
    drop(process);
    assert!(child.wait().unwrap().success());
}

#[test]
fn cgi_fcgi_passes_its_environment() {
    let site = WebSite::new();
    let socket = site.path("var/environ.sock").display().to_string();
    let _process = spawn_fcgi(&site, &socket, "environ.wsgi");
    let long = "x".repeat(20_000);
    let page =
        cgi_fcgi(&site, &socket, &[("HTTP_ACCEPT", "application/json"), ("HTTP_X_LONG", &long)]);
    let (_, body) = page.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {page}"));
    let seen: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!((&seen["SCRIPT_NAME"], &seen["PATH_INFO"]), (&"/app".into(), &"/a b".into()));
    assert_eq!(seen["QUERY_STRING"], "q=1");
    assert_eq!(seen["HTTP_X_LONG"], long.as_str());
}

#[test]
fn options_of_a_script_hold_for_the_worker_that_spawn_fcgi_starts() {
    let site = WebSite::new();
    let socket = site.path("var/options.sock").display().to_string();
    let script = fs::read_to_string(site.path("cgi-bin/environ.wsgi")).unwrap();
    let script = script.replacen('\n', " --timeout 20 --path var\n", 1);
    fs::write(site.path("cgi-bin/environ.wsgi"), script).unwrap();
    let _process = spawn_fcgi(&site, &socket, "environ.wsgi");
    let page = cgi_fcgi(&site, &socket, &[("HTTP_ACCEPT", "application/json")]);
    assert!(page.contains("cgi-bin/var\""), "{page}");
}

/// Waits in C code with the interpreter for itself if its query is `hang`, and tells its process
/// else.
const HANGS: &str = "
    import ctypes, os
    def application(environ, start_response):
        if environ['QUERY_STRING'] == 'hang':
            print('it hangs')
            libc, mutex = ctypes.PyDLL(None), ctypes.create_string_buffer(64)
            libc.pthread_mutex_lock(mutex)
            libc.pthread_mutex_lock(mutex)
        start_response('200 OK', [('Content-Type', 'text/plain')])
        return [str(os.getpid()).encode()]
    ";

/// Puts it beside the other scripts, with options on its `#!` line.
fn put_hanging(site: &WebSite, options: &str) {
    let script = site.path("cgi-bin/hello.wsgi");
    let sample = fs::read_to_string(&script).unwrap();
    let first = sample.lines().next().unwrap();
    // Writing the file keeps its mode.
    fs::write(&script, format!("{first} {options}\n{}", dedent(HANGS))).unwrap();
}

/// Asserts that a hang ends the worker, and that another is started in its place.
fn serves_again_after_a_hang(web_server: &mut dyn WebServer) {
    let url = web_server.script("hello.wsgi");
    let worker: i32 = HttpClient::get(&url).run().expect(200).text().parse().unwrap();
    let hung = HttpClient::get(format!("{url}?hang")).run();
    assert!(hung.status >= 500, "{hung:?}");
    // Its descriptors close before its process has exited, and a process without a parent is left
    // to `init`.
    eventually("it has ended", || !exists(worker));
    eventually("another is started", || {
        let response = HttpClient::get(&url).run();
        response.status == 200 && response.text() != worker.to_string()
    });
    let log = web_server.stop();
    assert!(log.contains("W0604") && log.contains("could not be interrupted"), "{log}");
    assert!(log.contains(" in application"), "the stacks: {log}");
}

#[test]
fn mod_fcgid_starts_another_worker_after_a_hang() {
    let mut web_server = ApacheFcgid::start();
    put_hanging(web_server.site(), "--timeout 1");
    serves_again_after_a_hang(&mut web_server);
}

#[test]
fn lighttpd_starts_another_worker_after_a_hang() {
    let mut web_server = LighttpdFastcgi::start();
    put_hanging(web_server.site(), "--timeout 1");
    serves_again_after_a_hang(&mut web_server);
}

#[test]
fn a_hanging_worker_that_mod_fcgid_asks_to_stop_logs_its_stack() {
    let web_server = ApacheFcgid::start();
    put_hanging(web_server.site(), "");
    let url = web_server.script("hello.wsgi");
    let worker: i32 = HttpClient::get(&url).run().expect(200).text().parse().unwrap();
    let hanging = std::thread::spawn(move || HttpClient::get(format!("{url}?hang")).run());
    eventually("the request has begun", || web_server.log().contains("it hangs"));
    kill_process(Pid::from_raw(worker).unwrap(), Signal::TERM).unwrap();
    eventually("it says where it is", || {
        let log = web_server.log();
        log.contains("W0611") && log.contains(" in application")
    });
    kill_process(Pid::from_raw(worker).unwrap(), Signal::KILL).unwrap();
    assert!(hanging.join().unwrap().status >= 500);
}

#[test]
fn a_worker_of_spawn_fcgi_exits_after_a_hang() {
    let site = WebSite::new();
    put_hanging(&site, "--timeout 1");
    let socket = site.path("var/hello.sock").display().to_string();
    let process = spawn_fcgi(&site, &socket, "hello.wsgi");
    let mut command = site.as_server("cgi-fcgi");
    command
        .args(["-bind", "-connect", &socket])
        .env("REQUEST_METHOD", "GET")
        .env("QUERY_STRING", "hang");
    let output = command.output().expect("cgi-fcgi: run tests/setup.sh");
    assert!(output.stdout.is_empty(), "{output:?}");
    wait_for_exit(process.0);
}

//! How a script is started, and what is true of the process it runs in: RFC 3875 4.1.4, 5, 7.2,
//! 9.8.

use std::{path::Path, process::Command};

use crate::support::{
    assertions::{complete_response, only_log_message},
    child_process,
    install_dir::InstallDir,
    probe::{Implementation, Probe},
};

/// Tells its working directory and the file that it stands in.
const WHERE: &str = "
    import os
    def application(environ, start_response):
        start_response('200 OK', [('Content-Type', 'text/plain')])
        return [os.getcwd().encode() + b' ' + __file__.encode()]
    ";

#[test]
fn c07_gateway_interface_tells_a_request_from_a_shell() {
    let dir = InstallDir::new();
    let script = dir.script("cgi-bin/app.wsgi", "#!WSGATE", WHERE);
    for interface in ["CGI/1.1", "CGI/1.0", "CGI/1.2", "CGI/2.0"] {
        let ended =
            child_process::run(dir.request(&script).env("GATEWAY_INTERFACE", interface), "");
        assert_eq!(complete_response(&ended.stdout).status, 200, "{interface}");
    }
    for interface in [None, Some(""), Some("FastCGI"), Some("cgi"), Some("XCGI/1.1")] {
        let mut command = dir.request(&script);
        match interface {
            Some(value) => command.env("GATEWAY_INTERFACE", value),
            None => command.env_remove("GATEWAY_INTERFACE"),
        };
        let ended = child_process::run(&mut command, "");
        let here = format!("{} {}", dir.path("cgi-bin").display(), script.display());
        assert_eq!(
            (ended.text(), ended.code()),
            (here, Some(0)),
            "the body alone for a shell, with {interface:?}"
        );
    }
}

#[test]
fn c26_a_script_whose_name_begins_with_nph_sends_a_whole_http_response() {
    let dir = InstallDir::new();
    let app = "
        def application(environ, start_response):
            if environ['PATH_INFO'] == '/fail':
                raise RuntimeError()
            start_response('203 Odd', [('Content-Type', 'text/plain')])
            return [b'body']
        ";
    let script = dir.script("cgi-bin/nph-app.wsgi", "#!WSGATE", app);
    let ended = child_process::run(&mut dir.request(&script), "");
    let expected = "HTTP/1.1 203 Odd\r\nConnection: close\r\nContent-Type: \
        text/plain\r\nContent-Length: 4\r\n\r\nbody";
    assert_eq!((ended.text().as_str(), ended.stderr.as_str()), (expected, ""));
    let ended = child_process::run(dir.request(&script).env("PATH_INFO", "/fail"), "");
    let beginning = "HTTP/1.1 500 Internal Server Error\r\nConnection: close\r\n";
    assert!(ended.text().starts_with(beginning), "{}", ended.text());
    only_log_message(&ended.stderr, "W0501");
    // The gateway's own pages, too.
    let broken = dir.script("cgi-bin/nph-broken.wsgi", "#!WSGATE --python /absent", "");
    let ended = child_process::run(&mut dir.request(&broken), "");
    assert!(ended.text().starts_with(beginning), "{}", ended.text());
}

#[test]
fn c38_the_working_directory_is_the_scripts_wherever_it_was_started_from() {
    let dir = InstallDir::new();
    let script = dir.script("cgi-bin/app.wsgi", "#!WSGATE", WHERE);
    let here = format!("{} {}", dir.path("cgi-bin").display(), script.display());
    for from in [Path::new("/"), &dir.path("cgi-bin"), &dir.path("bin")] {
        let ended = child_process::run(dir.request(&script).current_dir(from), "");
        assert_eq!(
            String::from_utf8(complete_response(&ended.stdout).body).unwrap(),
            here,
            "from {}",
            from.display()
        );
    }
}

#[test]
fn c40_a_script_that_is_named_by_a_relative_path_is_found() {
    // suexec starts a script by its bare name, in its directory.
    let dir = InstallDir::new();
    let script = dir.script("cgi-bin/app.wsgi", "#!WSGATE", WHERE);
    let here = format!("{} {}", dir.path("cgi-bin").display(), script.display());
    for (name, from) in
        [("./app.wsgi", "cgi-bin"), ("cgi-bin/app.wsgi", ""), ("../cgi-bin/app.wsgi", "bin")]
    {
        let mut command = Command::new(name);
        dir.describe(&mut command, &script);
        let ended = child_process::run(command.current_dir(dir.path(from)), "");
        let body = String::from_utf8(complete_response(&ended.stdout).body).unwrap();
        assert_eq!(body.split(' ').next(), here.split(' ').next(), "{name}");
        assert_eq!(
            std::fs::canonicalize(body.split(' ').nth(1).unwrap()).unwrap(),
            script,
            "{name}"
        );
    }
}

#[test]
fn c40_a_script_finds_its_own_modules_wherever_it_was_started_from() {
    let dir = InstallDir::new();
    dir.file("cgi-bin/neighbour.py", "NAME = b'neighbour'");
    dir.file("cgi-bin/lib/below.py", "NAME = b'below'");
    let app = "
        import below, neighbour
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [neighbour.NAME, b' ', below.NAME]
        ";
    let script = dir.script("cgi-bin/app.wsgi", "#!WSGATE --path lib", app);
    // A module of the same name where the request comes from must not be found.
    dir.file("elsewhere/neighbour.py", "NAME = b'wrong'");
    let ended = child_process::run(dir.request(&script).current_dir(dir.path("elsewhere")), "");
    assert_eq!(complete_response(&ended.stdout).body, b"neighbour below");
}

#[test]
fn c40_chdir_is_taken_from_the_script_on() {
    let dir = InstallDir::new();
    std::fs::create_dir_all(dir.path("cgi-bin/data")).unwrap();
    let script = dir.script("cgi-bin/app.wsgi", "#!WSGATE --chdir data", WHERE);
    let ended = child_process::run(dir.request(&script).current_dir("/"), "");
    let body = String::from_utf8(complete_response(&ended.stdout).body).unwrap();
    assert_eq!(body.split(' ').next(), Some(dir.path("cgi-bin/data").to_str().unwrap()));
}

#[test]
fn c38_several_options_on_the_first_line_arrive_as_several() {
    // The kernel hands them over as one argument.
    let dir = InstallDir::new();
    let app = "
        import os, sys
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [repr([os.environ.get('A'), os.environ.get('B'), sys.path[1]]).encode()]
        ";
    let expected = format!("['1', 'two words', '{}']", dir.path("cgi-bin/lib").display());
    for line in [
        "#!WSGATE --env A=1 --path lib --env 'B=two words'",
        "#! WSGATE   --env=A=1\t--path=lib   --env \"B=two words\"  ",
        "#!/usr/bin/env -S wsgate --env A=1 --path lib --env 'B=two words'",
    ] {
        let script = dir.script("cgi-bin/app.wsgi", line, app);
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin", dir.path("bin").display());
        let ended = child_process::run(dir.request(&script).env("PATH", path), "");
        assert_eq!(
            String::from_utf8(complete_response(&ended.stdout).body).unwrap(),
            expected,
            "{line}"
        );
    }
}

#[test]
fn c38_a_script_with_dos_line_ends_works_where_it_can_be_started() {
    let dir = InstallDir::new();
    let text = format!(
        "#!{} --env A=1\r\n{}",
        dir.wsgate().display(),
        WHERE.replace("    ", "").replace('\n', "\r\n")
    );
    let text = text.replace("start_response('", " start_response('").replace("return", " return");
    let script = dir.executable("cgi-bin/app.wsgi", text);
    // With arguments after the interpreter, the kernel takes the CR as part of them.
    let ended = child_process::run(&mut dir.request(&script), "");
    assert_eq!(complete_response(&ended.stdout).status, 200, "{}", ended.stderr);
    // Without arguments the web server cannot start the script. With a handler it can.
    let text = std::fs::read_to_string(&script).unwrap().replace(" --env A=1\r", "\r");
    let script = dir.executable("cgi-bin/other.wsgi", text);
    assert!(
        dir.request(&script).spawn().is_err(),
        "the kernel has learnt to take a CR for a line end"
    );
    let mut command = Command::new(dir.wsgate());
    dir.describe(&mut command, &script);
    let ended = child_process::run(command.arg(&script), "");
    assert_eq!(complete_response(&ended.stdout).status, 200, "{}", ended.stderr);
}

#[test]
fn c38_wrong_options_on_the_first_line_are_named_in_the_log_and_not_on_the_error_page() {
    let dir = InstallDir::new();
    for line in [
        "#!WSGATE --no-such-option",
        "#!WSGATE --timeout soon",
        "#!WSGATE word",
        "#!WSGATE --env 'A=1",
    ] {
        let script = dir.script("cgi-bin/app.wsgi", line, WHERE);
        let ended = child_process::run(&mut dir.request(&script), "");
        let page = complete_response(&ended.stdout);
        assert_eq!((page.status, ended.code()), (500, Some(0)), "{line}");
        assert!(!String::from_utf8(page.body).unwrap().contains("app.wsgi"));
        assert_eq!(crate::support::assertions::codes(&ended.stderr).len(), 1, "{}", ended.stderr);
        assert!(
            ended.stderr.contains("app.wsgi") && ended.stderr.contains("hint: "),
            "{}",
            ended.stderr
        );
    }
}

#[test]
fn c38_a_script_without_a_first_line_of_ours_gets_no_options() {
    // Its first line names another program, which may understand `--debug` in another way.
    let dir = InstallDir::new();
    let script = dir.executable(
        "cgi-bin/app.wsgi",
        "#!/usr/bin/python3 --debug\nraise RuntimeError('secret')\n",
    );
    let mut command = Command::new(dir.wsgate());
    dir.describe(&mut command, &script);
    let ended = child_process::run(&mut command, "");
    assert!(!String::from_utf8(complete_response(&ended.stdout).body).unwrap().contains("secret"));
    only_log_message(&ended.stderr, "W0301");
}

#[test]
fn c38_values_beyond_ascii_arrive_in_environ_as_latin_1_and_in_os_environ_as_pythons_own() {
    let app = "
        import os
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [repr(environ['HTTP_X'] + ' ' + str(os.environb[b'HTTP_X'])).encode()]
        ";
    let probe = Probe::new(app).variable("HTTP_X", b"caf\xc3\xa9\xff");
    for locale in ["C", "C.UTF-8", "POSIX", "de_DE.ISO-8859-1", "absent"] {
        let ended =
            child_process::run(probe.command(Implementation::Wsgate).env("LC_ALL", locale), "");
        let body = String::from_utf8(complete_response(&ended.stdout).body).unwrap();
        assert_eq!(body, "\"caf\u{c3}\u{a9}\u{ff} b'caf\\\\xc3\\\\xa9\\\\xff'\"", "{locale}");
    }
}

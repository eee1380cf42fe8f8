//! Machines that are busy or have nothing left.

use std::{
    fs::{
        File, Permissions, {self},
    },
    io::Read as _,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Command,
};

use crate::{
    guard::{page, page_of},
    support::{
        assertions::{codes, complete_response},
        child_process::{
            RunningProcess, piped, {self},
        },
        install_dir::InstallDir,
        probe::{Implementation, ORDINARY, Probe},
    },
};

const HELLO: &str = "
    def application(environ, start_response):
        body = environ['wsgi.input'].read()
        start_response('200 OK', [('Content-Type', 'text/plain')])
        return [environ['QUERY_STRING'].encode(), b' ', body]
    ";

#[test]
fn two_hundred_requests_at_once_get_each_its_own_response() {
    let probe = Probe::new(HELLO);
    let log_path = probe.directory().join("log");
    let log = File::create(&log_path).unwrap();
    let all: Vec<RunningProcess> = (0..200)
        .map(|number| {
            let mut command = probe.command(Implementation::Wsgate);
            command.env("QUERY_STRING", format!("n={number}")).env("REQUEST_METHOD", "POST");
            command.env(
                "CONTENT_LENGTH",
                if number % 50 == 7 { "-1".to_owned() } else { "1000".to_owned() },
            );
            let mut running =
                RunningProcess::start(piped(&mut command).stderr(log.try_clone().unwrap()));
            running.give(format!("{number:1000}"));
            running
        })
        .collect();
    for (number, running) in all.into_iter().enumerate() {
        let ended = running.end();
        let page = complete_response(&ended.stdout);
        assert_eq!(ended.code(), Some(0));
        if number % 50 == 7 {
            assert_eq!(page.status, 400);
        } else {
            assert_eq!(String::from_utf8(page.body).unwrap(), format!("n={number} {number:1000}"));
        }
    }
    let mut text = String::new();
    File::open(log_path).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(codes(&text), ["W0401"; 4], "{text}");
}

#[test]
fn a_gateway_that_may_open_no_more_files_gives_a_valid_response() {
    let dir = InstallDir::new();
    let script = dir.script("cgi-bin/app.wsgi", "#!WSGATE", HELLO);
    let mut valid = 0;
    for limit in 4..24 {
        let mut command = Command::new("prlimit");
        command.arg(format!("--nofile={limit}")).arg(&script);
        dir.describe(&mut command, &script);
        let ended = child_process::run(&mut command, "");
        if ended.code() == Some(127)
            || ended.stderr.contains("error while loading shared libraries")
        {
            // Too few for the program to be loaded at all.
            continue;
        }
        let page = complete_response(&ended.stdout);
        assert!([200, 500, 503].contains(&page.status), "{limit}: {ended:?}");
        assert_eq!(
            codes(&ended.stderr).len(),
            usize::from(page.status != 200),
            "{limit}: {}",
            ended.stderr
        );
        valid += 1;
    }
    assert!(valid > 10, "{valid}");
}

#[test]
fn an_application_that_may_have_no_more_memory_gets_a_valid_response() {
    let dir = InstallDir::new();
    let code = "
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'x' * 1000000000]
        ";
    let script = dir.script("cgi-bin/app.wsgi", "#!WSGATE", code);
    let mut command = Command::new("prlimit");
    command.arg("--as=600000000").arg(&script);
    dir.describe(&mut command, &script);
    assert!(page_of(&child_process::run(&mut command, ""), 500, "W0501").contains("MemoryError"));
}

#[test]
fn variables_that_leave_no_room_for_a_python_are_a_valid_response() {
    // The kernel bounds arguments and variables together. Between what a gateway can be started
    // with and what a python can lie the arguments of the latter.
    let probe = Probe::new(HELLO);
    let mut room = 0;
    let with = |length: usize| {
        let mut command = probe.command(Implementation::Wsgate);
        let full = length / 100_000;
        for number in 0..full {
            command.env(format!("HTTP_X_{number}"), "x".repeat(100_000));
        }
        command.env("HTTP_X_LAST", "x".repeat(length % 100_000));
        command
    };
    // The largest that can be started, by halves.
    let mut step = 4_000_000;
    while step >= 16 {
        let mut command = with(room + step);
        command.env("REQUEST_METHOD", "");
        match piped(&mut command).spawn() {
            Ok(mut child) => {
                child.kill().unwrap();
                child.wait().unwrap();
                room += step;
            }
            Err(error) => assert_eq!(error.raw_os_error(), Some(7), "{error}"),
        }
        step /= 2;
    }
    let ended = child_process::run(&mut with(room - 16), "");
    assert!(page_of(&ended, 500, "W0204").contains("Argument list too long"), "{}", ended.stderr);
    assert!(ended.stderr.contains("variables of the request are too large"), "{}", ended.stderr);
}

#[test]
fn a_python_that_cannot_be_started_is_named_with_its_cause() {
    let dir = InstallDir::new();
    let lost = dir.executable("bin/lost", "#!/nowhere/loader\n");
    let busy = dir.path("bin/busy");
    dir.install(Path::new("/bin/true"), "bin/busy", 0o755);
    let _writer = File::options().append(true).open(&busy).unwrap();
    for (python, args) in [
        (lost, ["No such file or directory", "is missing"]),
        (busy, ["Text file busy", "is being written"]),
    ] {
        let response = Probe::new(HELLO).python(&python).run();
        assert!(
            page(&response, 500, "W0204").contains(python.to_str().unwrap()),
            "{}",
            response.log
        );
        args.iter()
            .for_each(|word| assert!(response.log.contains(word), "no `{word}`: {}", response.log));
    }
}

#[test]
fn a_working_directory_that_nobody_may_enter_is_named_and_not_python() {
    if !rustix::process::getuid().is_root() {
        return;
    }
    let dir = InstallDir::new();
    fs::create_dir(dir.path("closed")).unwrap();
    fs::set_permissions(dir.path("closed"), Permissions::from_mode(0o700)).unwrap();
    let first_line = format!("#!WSGATE --chdir {}", dir.path("closed").display());
    let script = dir.script("cgi-bin/app.wsgi", &first_line, HELLO);
    let ended = child_process::run(&mut crate::guard::files::as_nobody(&dir, &script), "");
    page_of(&ended, 500, "W0204");
    assert!(ended.stderr.contains("its working directory"), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("closed` cannot be entered: Permission denied"),
        "{}",
        ended.stderr
    );
}

#[test]
fn a_request_with_nothing_but_its_method_is_served() {
    let probe = Probe::new(
        "
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [environ['PATH_INFO'].encode()]
        ",
    );
    let keep = ["GATEWAY_INTERFACE", "SCRIPT_FILENAME", "REQUEST_METHOD"];
    let mut command = probe.command(Implementation::Wsgate);
    for (name, _) in ORDINARY {
        if !keep.contains(&name) {
            command.env_remove(name);
        }
    }
    let ended = child_process::run(&mut command, "");
    assert_eq!(
        (complete_response(&ended.stdout).body.as_slice(), ended.stderr.as_str()),
        (&b"/"[..], "")
    );
}

// A variable with a NUL inside cannot be tested: the kernel ends each at its first.

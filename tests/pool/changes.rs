//! A pool that notices by itself that its code has changed.

use std::{
    fs::{self, File},
    os::unix::{
        fs::{FileExt as _, symlink},
        net::UnixListener,
    },
    path::Path,
    process::{Command, Stdio},
};

use crate::support::{
    artefacts,
    assertions::codes,
    child_process::RunningProcess,
    fastcgi_client::{FastcgiConnection, FastcgiRequest},
    pool::{Pool, PoolSetup, children},
    probe::{dedent, python},
    web_servers::eventually,
};

/// Every release has this length: an editor that saves in place is one write, never half a file.
const RELEASE_BYTES: usize = 400;

/// A release that answers with `word`, which is a Python expression.
fn release(word: &str) -> String {
    padded(&dedent(&format!(
        "
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [str({word}).encode()]
        "
    )))
}

/// Code with a comment behind it, as long as every release.
fn padded(code: &str) -> String {
    format!("{:#<RELEASE_BYTES$}\n", format!("{code}\n"))
}

/// Writes a release over that in the script of the pool, whose file stays the same.
fn edit_in_place(pool: &Pool, release: &str) {
    let script = File::options().write(true).open(pool.setup().path("app.wsgi")).unwrap();
    script.write_all_at(release.as_bytes(), 0).unwrap();
}

/// Waits until the pool answers with `word`.
#[track_caller]
fn await_response(pool: &Pool, word: &str) {
    eventually(&format!("the pool answers `{word}`"), || {
        pool.ask(&FastcgiRequest::get("/")).text() == word
    });
}

/// Stops a pool and asserts that no error was logged.
#[track_caller]
fn stop(pool: Pool) -> String {
    eventually("one template is left", || children(pool.pid()).len() == 1);
    let log = pool.stop();
    assert_eq!(codes(&log), [""; 0], "{log}");
    log
}

#[test]
fn a_script_that_is_edited_in_place_is_reloaded() {
    for preload in ["yes", "no"] {
        let pool =
            PoolSetup::new(&release("1")).args(&["--workers", "2", "--preload", preload]).start();
        pool.loaded_workers(2);
        for word in ["2", "three"] {
            edit_in_place(&pool, &release(&format!("'{word}'")));
            await_response(&pool, word);
            // A worker that is loading must not meet a file that is being written.
            eventually("one template is left", || children(pool.pid()).len() == 1);
        }
        let log = stop(pool);
        assert_eq!(log.matches("app.wsgi` has changed").count(), 2, "{log}");
    }
}

#[test]
fn a_script_that_another_file_replaces_is_reloaded() {
    let pool = PoolSetup::new(&release("1")).start();
    let path = pool.setup().path("app.wsgi");
    pool.setup().release(&release("2"));
    await_response(&pool, "2");
    // Gone for a while, which is no reason to load anything.
    let draft = pool.setup().path("draft");
    fs::write(&draft, release("3")).unwrap();
    fs::remove_file(&path).unwrap();
    await_response(&pool, "2");
    fs::rename(draft, &path).unwrap();
    await_response(&pool, "3");
    stop(pool);
}

/// A directory with a script that imports a module beside it.
fn directory(setup: &PoolSetup, name: &str) {
    let directory = setup.path(name);
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("beside.py"), format!("name = '{name}'\n")).unwrap();
    fs::write(directory.join("app.wsgi"), format!("import beside\n{}", release("beside.name")))
        .unwrap();
}

#[test]
fn a_link_that_leads_to_another_release_changes_the_script_and_the_modules_beside_it() {
    let setup = PoolSetup::new("");
    fs::remove_file(setup.path("app.wsgi")).unwrap();
    for name in ["first", "second", "third"] {
        directory(&setup, name);
    }
    let swap = |setup: &PoolSetup, name: &str| {
        symlink(name, setup.path("current.new")).unwrap();
        fs::rename(setup.path("current.new"), setup.path("current")).unwrap();
    };
    swap(&setup, "first");
    symlink("current/app.wsgi", setup.path("app.wsgi")).unwrap();
    let pool = setup.args(&["--workers", "2"]).start();
    await_response(&pool, "first");
    for name in ["second", "third", "first"] {
        swap(pool.setup(), name);
        await_response(&pool, name);
    }
    stop(pool);
}

#[test]
fn a_broken_edit_leaves_the_old_code_serving_until_it_is_mended() {
    let mut pool = PoolSetup::new(&release("1")).start();
    for (number, broken) in
        ["def application(:\n", "#!wsgate --no-such-option\n"].into_iter().enumerate()
    {
        edit_in_place(&pool, &padded(broken));
        pool.await_times("W0715", number + 1);
        await_response(&pool, "1");
    }
    edit_in_place(&pool, &release("2"));
    await_response(&pool, "2");
    let log = pool.stop();
    assert_eq!(codes(&log), ["W0301", "W0715", "W0103", "W0715"], "{log}");
}

#[test]
fn a_named_file_reloads_the_pool_when_it_is_created_or_touched() {
    let setup = PoolSetup::new(&release("drawn"));
    let code = fs::read_to_string(setup.path("app.wsgi")).unwrap();
    setup.release(&format!("import os\ndrawn = os.urandom(8).hex()\n{code}"));
    fs::create_dir(setup.path("tmp")).unwrap();
    let touched = setup.path("tmp/restart.txt");
    let directory = setup.path("releases");
    fs::create_dir(&directory).unwrap();
    let pool = setup.args(&["--reload-on", touched.to_str().unwrap()]);
    // An option of its own kind: it may come twice.
    let mut command = pool.command();
    command.arg("--reload-on").arg(&directory);
    let pool = pool.launch_as(&mut command);
    let mut before = pool.ask(&FastcgiRequest::get("/")).text();
    let mut changes = |what: &str| {
        eventually(&format!("the pool has reloaded after {what}"), || {
            let now = pool.ask(&FastcgiRequest::get("/")).text();
            let is_new = now != before;
            before = now;
            is_new
        });
    };
    fs::write(&touched, "").unwrap();
    changes("it was made");
    assert!(Command::new("touch").arg(&touched).status().unwrap().success());
    changes("it was touched");
    fs::create_dir(directory.join("one")).unwrap();
    changes("something came into a directory");
    eventually("one template is left", || children(pool.pid()).len() == 1);
    let log = pool.stop();
    // The file is created later, and might have been misspelt.
    assert_eq!(codes(&log), ["W0108"], "{log}");
    assert!(log.contains("/restart.txt` of --reload-on does not exist"), "{log}");
    assert!(
        log.contains("/restart.txt` has changed") && log.contains("/releases` has changed"),
        "{log}"
    );
}

#[test]
fn modules_are_watched_for_development_whether_they_are_imported_at_once_or_in_a_request() {
    for (preload, threads) in [("yes", "1"), ("auto", "2"), ("no", "1")] {
        let setup = PoolSetup::new(
            "
            import at_once
            def application(environ, start_response):
                import on_demand
                start_response('200 OK', [('Content-Type', 'text/plain')])
                return [at_once.word, b' ', on_demand.word]
            ",
        );
        // A rename: no request reads half a module.
        let write = |setup: &PoolSetup, name: &str, code: &str| {
            fs::write(setup.path("draft"), code).unwrap();
            fs::rename(setup.path("draft"), setup.path(name)).unwrap();
        };
        write(&setup, "at_once.py", "word = b'one'\n");
        write(&setup, "on_demand.py", "word = b'one'\n");
        let setup = setup.args(&["--workers", "2", "--preload", preload, "--threads", threads]);
        let mut command = setup.command();
        let mut pool = setup.launch_as(command.arg("--reload"));
        await_response(&pool, "one one");
        write(pool.setup(), "at_once.py", "word = b'other'\n");
        await_response(&pool, "other one");
        // The processes that noticed the change have exited, and their signals have arrived.
        pool.await_log("W0711");
        eventually("one template is left", || children(pool.pid()).len() == 1);
        // A worker of the new code imports the module before that changes.
        await_response(&pool, "other one");
        write(pool.setup(), "on_demand.py", "word = b'other'\n");
        // A worker that had not imported the module answers with the new code at once.
        pool.await_log("on_demand.py` has changed");
        pool.await_times("W0711", 2);
        await_response(&pool, "other other");
        eventually("one template is left", || children(pool.pid()).len() == 1);
        write(pool.setup(), "at_once.py", "raise RuntimeError\n");
        pool.await_log("W0715");
        await_response(&pool, "other other");
        write(pool.setup(), "at_once.py", "word = b'mended'\n");
        await_response(&pool, "mended other");
        eventually("one template is left", || children(pool.pid()).len() == 1);
        let log = pool.stop();
        assert!(
            log.contains("at_once.py` has changed") && log.contains("on_demand.py` has changed"),
            "{log}"
        );
        // Each process of the old code that notices the change later restarts an attempt to load
        // that has failed already.
        let codes = codes(&log);
        assert!(codes.iter().all(|code| ["W0301", "W0715"].contains(code)), "{log}");
        assert_eq!((codes.first(), codes.last()), (Some(&"W0301"), Some(&"W0715")), "{log}");
    }
}

#[test]
fn each_edit_is_logged_once_and_loaded_once_however_many_processes_notice_it() {
    let setup = PoolSetup::new(&release("'one'")).args(&["--workers", "4"]);
    let mut command = setup.command();
    let mut pool = setup.launch_as(command.arg("--reload"));
    await_response(&pool, "one");
    for edit in 2..=4 {
        // The supervisor, the template and each worker watch this file.
        edit_in_place(&pool, &release(&edit.to_string()));
        pool.await_times("W0711", edit - 1);
        await_response(&pool, &edit.to_string());
        // Processes of the old code watch it until they exit.
        eventually("one template is left", || children(pool.pid()).len() == 1);
    }
    let log = stop(pool);
    assert_eq!((log.matches("W0714").count(), log.matches("W0711").count()), (3, 3), "{log}");
}

#[test]
fn modules_are_watched_only_with_the_option() {
    let setup = PoolSetup::new(&format!("import beside\n{}", release("beside.word")));
    fs::write(setup.path("beside.py"), "word = 'one'\n").unwrap();
    let pool = setup.start();
    let worker = pool.workers(1)[0];
    fs::write(pool.setup().path("beside.py"), "word = 'other'\n").unwrap();
    // The pool notices this change, and loads the module, too. A process that watched the module
    // would have noticed first.
    let touched = Path::new(&pool.setup().path("app.wsgi")).to_owned();
    assert!(Command::new("touch").arg(touched).status().unwrap().success());
    await_response(&pool, "other");
    assert!(pool.workers(1)[0] != worker);
    let log = stop(pool);
    assert!(!log.contains("beside.py"), "{log}");
}

#[test]
fn a_worker_on_standard_input_gets_a_supervisor_if_its_code_is_to_be_watched() {
    let setup = PoolSetup::new(&release("1"));
    let socket = setup.path("app.sock");
    let mut command = Command::new(artefacts::gateway());
    command.args(["fastcgi", "--reload", "--python"]).arg(python()).arg(setup.path("app.wsgi"));
    command.env_clear().env("PATH", "/usr/bin:/bin").env("WSGATE_RUNTIME_DIR", setup.path("run"));
    let listener = UnixListener::bind(&socket).unwrap();
    command
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(listener)))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let running = RunningProcess::start(&mut command);
    let request = || FastcgiConnection::unix(&socket).ask(&FastcgiRequest::get("/")).text();
    assert_eq!(request(), "1");
    setup.release(&release("2"));
    eventually("the new code answers", || request() == "2");
    running.signal(rustix::process::Signal::TERM);
    assert_eq!(running.end().code(), Some(0));
}

/// Takes its version from an archive.
const ARCHIVED: &str = "
    import os, sys
    HERE = os.path.dirname(os.path.abspath(__file__))
    sys.path.insert(0, HERE + '/lib.zip')
    from helper import VALUE
    def application(environ, start_response):
        start_response('200 OK', [('Content-Type', 'text/plain'), ('X-Pid', str(os.getpid()))])
        return [VALUE.encode()]
    ";

/// Puts another archive in the place of that beside the application.
fn archive(directory: &Path, value: &str) {
    let code = format!(
        "import zipfile; zipfile.ZipFile('new.zip', 'w').writestr('helper.py', 'VALUE = {value:?}')"
    );
    let made = Command::new(python()).args(["-c", &code]).current_dir(directory).status().unwrap();
    assert!(made.success());
    fs::rename(directory.join("new.zip"), directory.join("lib.zip")).unwrap();
}

#[test]
fn an_archive_that_has_changed_is_loaded_again() {
    for preload in ["yes", "no"] {
        let setup = PoolSetup::new(ARCHIVED);
        archive(&setup.path(""), "one");
        let mut command = setup.command();
        command.args(["--reload", "--preload", preload]);
        let pool = setup.launch_as(&mut command);
        await_response(&pool, "one");
        archive(&pool.setup().path(""), "second");
        await_response(&pool, "second");
        pool.stop();
    }
}

#[test]
fn a_lone_worker_of_a_script_exits_when_its_code_changes_with_the_option() {
    for (options, variable, changes) in [
        ("--reload", "0", "helper.py"),
        ("", "1", "helper.py"),
        ("--reload-on restart.txt", "0", "restart.txt"),
        ("--reload-on restart.txt", "0", "app.wsgi"),
    ] {
        let dir = crate::support::install_dir::InstallDir::new();
        let code = "
            import helper
            def application(environ, start_response):
                start_response('200 OK', [('Content-Type', 'text/plain')])
                return [helper.VALUE.encode()]
            ";
        let first_line = format!("#!WSGATE {options}");
        let script = dir.script("site/app.wsgi", &first_line, code);
        dir.file("site/helper.py", "VALUE = 'one'");
        let socket = dir.path("site/app.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let start = || {
            let mut command = Command::new(&script);
            command.env_clear().env("PATH", "/usr/bin:/bin").env("WSGATE_RELOAD", variable);
            command.stdin(Stdio::from(std::os::fd::OwnedFd::from(listener.try_clone().unwrap())));
            RunningProcess::start(command.stdout(Stdio::null()).stderr(Stdio::piped()))
        };
        let worker = start();
        assert_eq!(
            FastcgiConnection::unix(&socket).ask(&FastcgiRequest::get("/")).text(),
            "one",
            "{options}"
        );
        match changes {
            "app.wsgi" => drop(dir.script(
                "site/app.wsgi",
                &first_line,
                &code.replace("helper.VALUE", "'second'"),
            )),
            _ => drop(dir.file(&format!("site/{changes}"), "VALUE = 'second'")),
        }
        let ended = worker.end();
        assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
        assert!(
            ended.stderr.contains("W0714") && ended.stderr.contains(changes),
            "{}",
            ended.stderr
        );
        // The process manager starts another.
        let worker = start();
        let expected = if changes == "restart.txt" { "one" } else { "second" };
        assert_eq!(
            FastcgiConnection::unix(&socket).ask(&FastcgiRequest::get("/")).text(),
            expected,
            "{options}"
        );
        drop(worker);
    }
}

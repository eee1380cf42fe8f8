//! Pools whose options stand in a file (`--config`).

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use rustix::process::geteuid;

use crate::support::{
    artefacts,
    child_process::run,
    fastcgi_client::FastcgiRequest,
    pool::{Pool, PoolSetup},
    probe::python,
};

/// An application that shows what its process was given.
const SHOWS: &str = "
    import os, resource
    def application(environ, start_response):
        start_response('200 OK', [('Content-Type', 'text/plain')])
        mask = os.umask(0)
        os.umask(mask)
        shown = [
            oct(mask), os.nice(0), resource.getrlimit(resource.RLIMIT_NOFILE),
            resource.getrlimit(resource.RLIMIT_CORE)[0], 4242 in os.getgroups(),
            os.environ.get('FIRST'), os.environ.get('SECOND'), os.getcwd().rsplit('/', 1)[-1],
        ]
        return ['|'.join(map(str, shown)).encode()]
    ";

/// The command that starts a pool whose file has this text.
pub(super) fn command(setup: &PoolSetup, text: &str, args: &[&str]) -> Command {
    let file = setup.path("site.toml");
    let user = if geteuid().is_root() { "user = \"root\"\n" } else { "" };
    fs::write(&file, format!("python = {:?}\n{user}{text}", python())).unwrap();
    let mut command = Command::new(artefacts::gateway());
    command
        .args(["fastcgi", "--config"])
        .arg(file)
        .args(args)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("WSGATE_RUNTIME_DIR", setup.path("run"))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn start(text: &str, args: &[&str]) -> Pool {
    let setup = PoolSetup::new(SHOWS);
    fs::create_dir(setup.path("work")).unwrap();
    let mut command = command(&setup, text, args);
    setup.launch_as(&mut command)
}

#[test]
fn a_pool_has_the_application_and_the_options_of_its_file() {
    let groups = if geteuid().is_root() { "supplementary-group = [4242]" } else { "" };
    let text = format!(
        r#"
        # Comments and the order of keys do not matter.
        workers = 1
        app = "app.wsgi"
        listen = ["unix:app.sock"]
        socket-mode = 0o600
        chdir = "work"
        umask = "027"
        nice = 3
        rlimit = {{ nofile = "512:512", core = 0 }}
        access-log = "access.log"
        {groups}

        [env]
        FIRST = "of the file"
        SECOND = 2
        "#
    );
    let pool = start(&text, &[]);
    let has_group = if geteuid().is_root() { "True" } else { "False" };
    let expected = format!("0o27|3|(512, 512)|0|{has_group}|of the file|2|work");
    assert_eq!(pool.ask(&FastcgiRequest::get("/")).text(), expected);
    let socket = fs::metadata(pool.socket()).unwrap();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&socket.permissions()) & 0o777, 0o600);
    let access_log = pool.setup().path("access.log");
    // The name of the file is the name of the pool.
    let status = pool.run_wsgate(&["status", "site"]);
    assert_eq!(status.code(), Some(0), "{}", status.stderr);
    pool.run_wsgate(&["stop", "site"]);
    let (ended, _setup) = pool.end_and_leave();
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    assert!(fs::read_to_string(access_log).unwrap().contains("GET /"));
}

#[test]
fn an_option_of_the_command_line_replaces_the_one_of_the_file() {
    let text = r#"
        app = "no-such-file.wsgi"
        workers = 3
        listen = ["unix:other.sock"]
        nice = 3
        name = "of-the-file"
        [[env]]
        name = "FIRST"
        value = "of the file"
        [[env]]
        name = "SECOND"
        value = "of the file"
        "#;
    let setup = PoolSetup::new(SHOWS);
    let listen = format!("unix:{}", setup.path("app.sock").display());
    let app = setup.path("app.wsgi");
    let args = ["--max", "1", "--nice=5", "--env", "FIRST=of the line", "--listen", &listen];
    let mut command = command(&setup, text, &args);
    let pool = setup.launch_as(command.arg(app));
    let shown = pool.ask(&FastcgiRequest::get("/")).text();
    assert!(shown.contains("|5|"), "{shown}");
    assert!(shown.contains("|of the line|of the file|"), "{shown}");
    assert!(!pool.setup().path("other.sock").exists());
    pool.run_wsgate(&["stop", "of-the-file"]);
    assert_eq!(pool.end().code(), Some(0));
}

#[test]
fn a_wrong_file_is_named_with_its_line_and_no_pool_starts() {
    let setup = PoolSetup::new(SHOWS);
    for (text, sentence) in [
        ("", "names no application"),
        (
            "app = \"app.wsgi\"\nworker = 2",
            "line 4: unknown key `worker`; the nearest is `workers`",
        ),
        ("app = \"app.wsgi\"\nmode = \"warm\"", "line 4: unknown key `mode`"),
        ("app = \"app.wsgi\"\nhelp = true", "line 4: unknown key `help`"),
        ("app = \"app.wsgi\"\nconfig = \"x\"", "line 4: unknown key `config`"),
        ("app = \"app.wsgi\"\n\nworkers = 0", "line 5: "),
        ("app = \"app.wsgi\"\nworkers = \"four\"", "line 4: "),
        ("app = \"app.wsgi\"\nworkers = [1, 2]", "line 4: `workers` takes one value, not a list"),
        ("app = \"app.wsgi\"\nworkers = true", "line 4: the value of `workers` must be text"),
        ("app = \"app.wsgi\"\ndebug = \"yes\"", "line 4: `debug` must be `true` or `false`"),
        ("app = \"app.wsgi\"\nlisten = [[\"a\"]]", "line 4: the value of `listen` must be text"),
        ("app = \"app.wsgi\"\nlisten = \"nowhere\"", "line 4: "),
        ("app = \"app.wsgi\"\nrlimit = { files = 1 }", "line 4: "),
        ("app = \"app.wsgi\"\n[[env]]\nname = \"A\"", "line 4: `[[env]]` needs the key `value`"),
        ("app = \"app.wsgi\"\n[[workers]]\ncount = 1", "line 4: `workers` takes values"),
        ("app = \"app.wsgi\"\nworkers = 1\nmax = 2", "--max"),
        ("app = \"app.wsgi\"\nmin = 1", "--max"),
        ("app = \"app.wsgi\"\nworkers = 1\nworkers = 2", "line 5: `workers` stands here twice"),
        (
            "timeout = 5\n[[timeout]]\npath = \"/a\"\nseconds = 5",
            "`timeout` stands here twice\nhint: give each key once; beside `timeout`",
        ),
        ("app = \"app.wsgi\"\n[env]\n\"A=B\" = \"x\"", "line 4: `A=B` cannot be a name"),
        ("app = \"app.wsgi\"\nname = \"unclosed", "line 4: "),
        ("app = \"a\\u0000b\"", "line 3: `app` has a NUL character"),
        ("app = 1979-05-27", "line 3: the value of `app` must be text"),
    ] {
        let ended = run(&mut command(&setup, text, &[]), "");
        assert_eq!(ended.code(), Some(78), "{text}: {}", ended.stderr);
        assert!(ended.stderr.contains("site.toml"), "{text}: {}", ended.stderr);
        // Without root, the file has a line less.
        let shift = usize::from(!geteuid().is_root());
        let shifted = (3..6).fold(sentence.to_owned(), |text, line| {
            text.replace(&format!("line {line}:"), &format!("line {}:", line - shift))
        });
        assert!(ended.stderr.contains(&shifted), "{text}: {}", ended.stderr);
    }
}

#[test]
fn an_error_of_the_file_is_exit_code_78_and_one_of_the_command_line_2() {
    let setup = PoolSetup::new(SHOWS);
    let good = "app = \"app.wsgi\"\nlisten = \"unix:app.sock\"\n";
    let wrong = format!("{good}workers = 0\n");
    let contradictory = format!("{good}min = 4\nmax = 2\n");
    for (text, args, expected) in [
        (&wrong, &[][..], 78),
        (&wrong, &["--name", "x"], 78),
        (&contradictory, &[], 78),
        (&contradictory, &["--name", "x"], 78),
        (&good.to_owned(), &["--no-such-option"], 2),
        (&good.to_owned(), &["--workers", "0"], 2),
    ] {
        let ended = run(&mut command(&setup, text, args), "");
        assert_eq!(ended.code(), Some(expected), "{text} {args:?}: {}", ended.stderr);
    }
}

#[test]
fn the_path_of_the_application_is_shown_without_dots() {
    let setup = PoolSetup::new(SHOWS);
    fs::create_dir(setup.path("work")).unwrap();
    let text = "app = \"./work/../app.wsgi\"\nlisten = \"unix:./work/../app.sock\"\nworkers = 1\n";
    let mut command = command(&setup, text, &[]);
    let pool = setup.launch_as(&mut command);
    pool.ask(&FastcgiRequest::get("/"));
    let text = pool.run_wsgate(&["status"]).text();
    let app = format!("site {} pid ", pool.setup().path("app.wsgi").display());
    let socket = format!(" at unix:{}: 1 worker, ", pool.setup().path("app.sock").display());
    assert!(text.starts_with(&app) && text.contains(&socket), "{text}");
    pool.stop();
}

#[test]
fn a_limit_for_some_paths_stands_beside_the_limit_of_all() {
    let text = r#"
        app = "app.wsgi"
        listen = "unix:app.sock"
        workers = 1
        timeout = 1000
        [[timeout-for]]
        path = "/slow"
        seconds = 1
        "#;
    let setup = PoolSetup::new(
        "
        import time
        def application(environ, start_response):
            if environ['PATH_INFO'] == '/slow':
                time.sleep(1000)
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'fine']
        ",
    );
    let mut command = command(&setup, text, &[]);
    let pool = setup.launch_as(&mut command);
    assert_eq!(pool.ask(&FastcgiRequest::get("/")).text(), "fine");
    assert_eq!(pool.ask(&FastcgiRequest::get("/slow")).valid().status, 504);
    pool.run_wsgate(&["stop", "site"]);
    assert_eq!(pool.end().code(), Some(0));
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let setup = PoolSetup::new(SHOWS);
    fs::write(setup.path("latin.toml"), b"app = \"caf\xe9.wsgi\"\n").unwrap();
    fs::write(setup.path("long.toml"), vec![b'#'; 2 << 20]).unwrap();
    let in_setup = |name: &str| setup.path(name).display().to_string();
    for (path, sentence) in [
        ("/no/such/file.toml".to_owned(), "No such file"),
        ("/dev/null".to_owned(), "not a regular file"),
        ("/".to_owned(), "not a regular file"),
        (in_setup("latin.toml"), "UTF-8"),
        (in_setup("long.toml"), "longer than"),
    ] {
        let mut command = Command::new(artefacts::gateway());
        command.args(["fastcgi", "--config", &path]).env_clear();
        let ended = run(&mut command, "");
        assert_eq!(ended.code(), Some(78), "{path}: {}", ended.stderr);
        assert!(ended.stderr.contains(sentence), "{path}: {}", ended.stderr);
        let name = Path::new(&path).display().to_string();
        assert!(ended.stderr.contains(&name), "{path}: {}", ended.stderr);
    }
}

#[test]
fn a_limit_that_the_kernel_refuses_is_named() {
    let setup = PoolSetup::new(SHOWS);
    let text = "app = \"app.wsgi\"\nlisten = \"unix:app.sock\"\n";
    let file = setup.path("limits.toml");
    fs::write(&file, format!("{text}rlimit = {{ nofile = \"99999999999999\" }}\n")).unwrap();
    let mut command = Command::new(artefacts::gateway());
    command.args(["fastcgi", "--config"]).arg(file).env_clear();
    let ended = run(&mut command, "");
    assert_eq!(ended.code(), Some(78), "{}", ended.stderr);
    assert!(ended.stderr.contains("--rlimit nofile=99999999999999 cannot be applied"));
}

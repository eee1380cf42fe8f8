//! `--env-file`: environment variables of an application in a file.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    process::{Command, Stdio},
};

use crate::support::{
    artefacts,
    child_process::{ExitedProcess, run},
    fastcgi_client::FastcgiRequest,
    pool::PoolSetup,
    probe::{dedent, python},
    web_servers::eventually,
};

use super::config_file;

/// An application that shows some variables.
const SHOWS: &str = "
    import os
    def application(environ, start_response):
        start_response('200 OK', [('Content-Type', 'text/plain')])
        return ['|'.join(os.environ.get(name, '-') for name in 'ABCD').encode()]
    ";

#[test]
fn a_pool_has_the_variables_of_its_files_and_reads_them_again_at_a_reload() {
    let setup = PoolSetup::new(SHOWS);
    fs::write(setup.path("first.env"), "# secrets\nA=first\nB='of the file'\nC=first\n").unwrap();
    fs::write(setup.path("second.env"), "\nexport C = \"second\\n\"\n").unwrap();
    let text = "app = \"app.wsgi\"\nlisten = \"unix:app.sock\"\nworkers = 1\n\
                env-file = [\"first.env\", \"second.env\"]\n[env]\nB = \"of the table\"\n";
    let mut command = config_file::command(&setup, text, &["--env", "D=of the line"]);
    let pool = setup.launch_as(&mut command);
    let shown = || pool.ask(&FastcgiRequest::get("/")).text();
    assert_eq!(shown(), "first|of the table|second\n|of the line");
    fs::write(pool.setup().path("first.env"), "A=changed\n").unwrap();
    assert_eq!(pool.run_wsgate(&["reload", "site"]).code(), Some(0));
    eventually("the changed file counts", || shown().starts_with("changed|"));
    fs::write(pool.setup().path("second.env"), "A=b\nC\n").unwrap();
    let ended = pool.run_wsgate(&["reload", "site"]);
    assert_eq!(ended.code(), Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("second.env`, line 2: the line has no `=`"), "{}", ended.stderr);
    assert!(shown().starts_with("changed|"));
    pool.stop();
}

/// `wsgate` with `args`, from the directory of `setup`.
fn wsgate(setup: &PoolSetup, args: &[&str]) -> ExitedProcess {
    let mut command = Command::new(artefacts::gateway());
    command.args(args).arg("--python").arg(python()).arg("app.wsgi").stdin(Stdio::null());
    command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", "/nonexistent");
    run(command.current_dir(setup.path(".")), "")
}

#[test]
fn one_request_from_the_shell_and_a_check_have_the_variables() {
    let setup = PoolSetup::new(SHOWS);
    fs::write(setup.path("site.env"), "A=1\nB=\"2\"\n").unwrap();
    let ended = wsgate(&setup, &["call", "--env-file", "site.env", "--env", "B=3"]);
    assert_eq!((ended.code(), ended.text().as_str()), (Some(0), "1|3|-|-"), "{}", ended.stderr);
    setup.release(&format!("import os\nos.environ['A']\n{}", dedent(SHOWS)));
    let ended = wsgate(&setup, &["check", "--env-file", "site.env"]);
    assert_eq!(ended.code(), Some(0), "{}{}", ended.text(), ended.stderr);
}

#[test]
fn a_file_that_cannot_be_used_is_named_with_the_reason() {
    let setup = PoolSetup::new(SHOWS);
    let write = |name: &str, bytes: &[u8]| fs::write(setup.path(name), bytes).unwrap();
    write("latin.env", b"A=caf\xe9\n");
    write("nul.env", b"A=1\nB=a\0b\n");
    write("name.env", b"\n1A=secret\n");
    write("reserved.env", b"A=1\n\nLISTEN_FDS=1\n");
    write("quote.env", b"A=\"secret\n");
    write("long.env", &vec![b'#'; 2 << 20]);
    write("open.env", b"A=1\n");
    fs::set_permissions(setup.path("open.env"), fs::Permissions::from_mode(0o666)).unwrap();
    for (name, sentence) in [
        ("missing.env", "missing.env` of --env-file: No such file"),
        (".", "it is not a regular file"),
        ("latin.env", "UTF-8"),
        ("nul.env", "nul.env`, line 2: the value of `B` has a NUL character"),
        ("name.env", "name.env`, line 2: `1A` is not the name of a variable"),
        ("reserved.env", "reserved.env`, line 3: `LISTEN_FDS` belongs to"),
        ("quote.env", "quote.env`, line 1: the value of `A` has no closing quote"),
        ("long.env", "it is longer than"),
        ("open.env", "all users of this machine may write it"),
    ] {
        for command in ["call", "fastcgi"] {
            let listen: &[&str] =
                if command == "call" { &[] } else { &["--listen", "127.0.0.1:0"] };
            let ended = wsgate(&setup, &[&[command, "--env-file", name], listen].concat());
            assert_eq!(ended.code(), Some(78), "{command} {name}: {}", ended.stderr);
            assert!(ended.stderr.contains(sentence), "{command} {name}: {}", ended.stderr);
            assert!(!ended.stderr.contains("secret"), "{command} {name}: {}", ended.stderr);
        }
    }
}

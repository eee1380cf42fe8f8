//! Listening sockets that cannot be opened: the hint follows the cause, and no socket that may be
//! in use is replaced.

use std::{
    fs,
    net::TcpListener,
    os::unix::{
        fs::{FileTypeExt as _, PermissionsExt as _},
        net::{UnixDatagram, UnixListener, UnixStream},
    },
    process::Stdio,
};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, listen, socket};

use crate::{
    pool::{
        ECHO,
        privileges::{self, as_user},
    },
    support::{
        artefacts,
        child_process::{piped, run},
        pool::PoolSetup,
        probe::python,
    },
};

/// The message of a pool that cannot listen at `address`, or with `args`.
#[track_caller]
fn refused(setup: PoolSetup, args: &[&str]) -> String {
    let ended = run(setup.args(args).command().stdin(Stdio::piped()), "");
    assert_eq!(ended.code(), Some(78), "{args:?}: {}", ended.stderr);
    assert_eq!(ended.stderr.matches("\nhint: ").count(), 1, "{}", ended.stderr);
    ended.stderr
}

#[track_caller]
fn assert_says(message: &str, texts: &[&str]) {
    for text in texts {
        assert!(message.contains(text), "no `{text}` in {message}");
    }
}

#[test]
fn the_hint_about_a_unix_socket_follows_the_cause() {
    let setup = PoolSetup::new(ECHO);
    let path = setup.path("app.sock");
    let _listener = UnixListener::bind(path).unwrap();
    assert_says(&refused(setup, &[]), &["W0720", "already in use", "hint: stop the server"]);

    let setup = PoolSetup::new(ECHO);
    fs::write(setup.path("app.sock"), "").unwrap();
    assert_says(&refused(setup, &[]), &["W0720", "is not a socket", "hint: move the file away"]);

    for (path, texts) in [
        ("absent/app.sock", ["its directory does not exist", "hint: create the directory `"]),
        ("app.wsgi/app.sock", ["is not a directory", "hint: a part of the path"]),
    ] {
        let setup = PoolSetup::new(ECHO);
        let address = format!("unix:{}", setup.path(path).display());
        let message = refused(setup.listen(&[&address]), &[]);
        assert_says(&message, &["W0720", texts[0], texts[1]]);
    }
    let setup = PoolSetup::new(ECHO).args(&["--socket-owner", "no-such-user"]);
    assert_says(&refused(setup, &[]), &["W0722", "`no-such-user`", "hint: `getent passwd`"]);
}

#[test]
fn the_hint_about_permissions_names_the_user_and_the_directory() {
    let Some(setup) = privileges::setup(ECHO) else { return };
    let start = |args: &[&str]| {
        let mut command = as_user(privileges::ANOTHER, artefacts::gateway());
        command.args(["fastcgi", "--python"]).arg(python()).args(args);
        command.arg(setup.path("app.wsgi")).env_clear().env("PATH", "/usr/bin:/bin");
        run(piped(&mut command), "").stderr
    };
    let listen = format!("unix:{}", setup.path("theirs/app.sock").display());
    let directory = format!("write in the directory `{}`", setup.path("theirs").display());
    let user = format!("let user {}", privileges::ANOTHER);
    assert_says(&start(&["--listen", &listen]), &["W0720", &user, &directory]);
    let open = setup.path("open");
    privileges::theirs(&open, privileges::ANOTHER);
    let listen = format!("unix:{}", open.join("app.sock").display());
    let message = start(&["--listen", &listen, "--socket-owner", "root"]);
    assert_says(&message, &["W0720", "cannot set the owner", "only root may give"]);
    assert_eq!(fs::read_dir(open).unwrap().count(), 0, "nothing is left");
}

#[test]
fn the_hint_about_a_tcp_address_follows_the_cause() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let used = listener.local_addr().unwrap().to_string();
    for (address, hint) in [
        (used.as_str(), "hint: another server listens there"),
        ("192.0.2.1:9000", "hint: this machine does not have the address"),
        ("no-such-host.invalid:9000", "hint: write an IP address"),
    ] {
        let message = refused(PoolSetup::new(ECHO).listen(&[address]), &[]);
        assert_says(&message, &["W0720", &format!("`{address}`"), hint]);
    }
}

#[test]
fn a_socket_that_may_be_in_use_is_never_replaced() {
    // A server whose accept queue is full.
    let setup = PoolSetup::new(ECHO);
    let path = setup.path("app.sock");
    let full = socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    bind(&full, &SocketAddrUnix::new(&path).unwrap()).unwrap();
    listen(&full, 0).unwrap();
    let _waiting = UnixStream::connect(&path).unwrap();
    assert_says(&refused(setup, &[]), &["W0720", "already in use"]);

    // A server of datagrams, such as that of the system's log.
    let setup = PoolSetup::new(ECHO);
    let path = setup.path("app.sock");
    let datagrams = UnixDatagram::bind(&path).unwrap();
    assert_says(&refused(setup, &[]), &["W0720", "already in use"]);
    drop(datagrams);
}

#[test]
fn a_socket_that_this_user_may_not_connect_to_is_left_alone() {
    let Some(setup) = privileges::setup(ECHO) else { return };
    let directory = setup.path("shared");
    privileges::theirs(&directory, privileges::ANOTHER);
    let path = directory.join("app.sock");
    let _listener = UnixListener::bind(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let mut command = as_user(privileges::ANOTHER, artefacts::gateway());
    command.args(["fastcgi", "--python"]).arg(python());
    command.arg(format!("--listen=unix:{}", path.display())).arg(setup.path("app.wsgi"));
    let ended = run(piped(command.env_clear().env("PATH", "/usr/bin:/bin")), "");
    assert_eq!(ended.code(), Some(78), "{}", ended.stderr);
    assert_says(&ended.stderr, &["W0720", "cannot tell whether", "hint: if no server uses"]);
    assert!(fs::metadata(&path).unwrap().file_type().is_socket());
    assert!(UnixStream::connect(path).is_ok());
}

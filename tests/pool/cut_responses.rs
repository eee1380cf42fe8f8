//! How a response that is not whole ends on the wire, which depends on who is to understand it.

use std::{fs, os::unix::net::UnixListener};

use crate::support::{
    fastcgi_client::{FastcgiConnection, FastcgiRequest},
    pool::PoolSetup,
};

/// Ends during its response in the way that the path names.
const ENDS: &str = "
    def application(environ, start_response):
        start_response('200 OK', [('Content-Type', 'text/plain'), ('Content-Length', '100')])
        yield b'begun'
        if environ['PATH_INFO'] == '/raises':
            raise RuntimeError
    ";

/// All bytes of the response, to the end of the connection.
fn bytes(mut connection: FastcgiConnection, path: &str, software: &str) -> Vec<u8> {
    connection.send(&FastcgiRequest::get(path).keep().param("SERVER_SOFTWARE", software).bytes());
    connection.rest()
}

#[test]
fn an_incomplete_response_ends_with_bytes_that_are_no_record() {
    let pool = PoolSetup::new(ENDS).start();
    for path in ["/raises", "/is-short"] {
        for software in
            ["nginx/1.22.1", "Apache/2.4.71 (Debian)", "lighttpd/1.4.69", "Caddy/v2.6.2", ""]
        {
            let bytes = bytes(pool.connect(), path, software);
            assert!(bytes.ends_with(b"begun\0\0\0\0\0\0\0\0"), "{path}, {software}: {bytes:?}");
        }
    }
    let log = pool.stop();
    assert_eq!((log.matches("[W0502]").count(), log.matches("[W0504]").count()), (5, 5), "{log}");
}

#[test]
fn behind_mod_fcgid_an_incomplete_response_ends_regularly_with_another_status() {
    let directory = tempfile::tempdir().unwrap();
    for (name, is_of_fcgid) in
        [("4711.0", true), ("4711", false), ("4711.0.sock", false), ("app.sock", false)]
    {
        let socket = directory.path().join(name);
        let pool = PoolSetup::new(ENDS).start_on(UnixListener::bind(&socket).unwrap());
        for path in ["/raises", "/is-short"] {
            let bytes = bytes(
                FastcgiConnection::unix(&socket),
                path,
                "Apache/2.4.71 (Debian) mod_fcgid/2.3.9",
            );
            let ended = bytes.ends_with(
                b"begun\x01\x06\0\x01\0\0\0\0\x01\x03\0\x01\0\x08\0\0\0\0\0\x01\0\0\0\0",
            );
            let broken = bytes.ends_with(b"begun\0\0\0\0\0\0\0\0");
            assert_eq!((ended, broken), (is_of_fcgid, !is_of_fcgid), "{name}, {path}: {bytes:?}");
        }
        pool.stop();
        fs::remove_file(socket).unwrap();
    }
}

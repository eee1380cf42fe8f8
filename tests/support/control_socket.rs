//! Control sockets of pools that mean harm.

use std::{
    io::Write as _,
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    thread,
    time::Duration,
};

/// A control socket whose every connection is handled so.
pub(crate) fn control(directory: &Path, name: &str, handle: fn(UnixStream)) {
    let listener = UnixListener::bind(directory.join(format!("{name}.pool"))).unwrap();
    // Threads end with the tests.
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || handle(stream));
        }
    });
}

/// Keeps the connection, and sends nothing.
pub(crate) fn says_nothing(_stream: UnixStream) {
    thread::sleep(Duration::from_secs(600));
}

/// Sends an answer without an end.
pub(crate) fn says_too_much(mut stream: UnixStream) {
    while stream.write_all(&[b'['; 4096]).is_ok() {}
}

/// Sends a byte from time to time.
pub(crate) fn says_little_for_ever(mut stream: UnixStream) {
    while stream.write_all(b" ").is_ok() {
        thread::sleep(Duration::from_millis(200));
    }
}

/// Sends what is no status.
pub(crate) fn says_garbage(mut stream: UnixStream) {
    let _ = stream.write_all(b"{\"name\": 4}\x1b[2J");
}

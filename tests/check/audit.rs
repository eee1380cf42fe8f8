//! The import audit's table in `docs/imports.md`, row by row.

use std::os::unix::net::UnixDatagram;

use crate::{check::CheckSite, support::probe::dedent};

/// Processes that are forked may share it.
const FORKED: &str = "fit: ";
/// Forked processes would share the open file.
const EACH: &str = "forked processes share what is open";
/// The resource is exclusive.
const ONE: &str = "one process at a time may have that";

/// Code of a module, what is said of it, and the verdict.
const TABLE: &[(&str, &str, &str)] = &[
    // Threads and child processes.
    (
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()",
        "started 1 thread",
        EACH,
    ),
    (
        "import atexit, os, subprocess\nthe = subprocess.Popen(['sleep', \
            '60'])\natexit.register(the.kill)",
        "(line 2) started the process `sleep`, which is still running",
        EACH,
    ),
    (
        "
        import atexit, os, subprocess
        os.environ['PATH'] += ':/nowhere' * 60
        the = subprocess.Popen(['sleep', '60'])
        atexit.register(the.kill)
        ",
        "module `app.db` (line 4) started the process `sleep`",
        EACH,
    ),
    (
        "import os\nif os.fork() == 0:\n  os._exit(0)\nimport time\ntime.sleep(.1)",
        "nothing is left",
        FORKED,
    ),
    // Sockets.
    (
        "import socket\nserver = socket.create_server(('127.0.0.1', 0))\nthe = \
            socket.create_connection(server.getsockname())",
        "connected to `127.0.0.1:",
        ONE,
    ),
    ("import socket\nthe = socket.create_server(('127.0.0.1', 0))", "listens at `127.0.0.1:", ONE),
    (
        "import socket\nthe = socket.create_server(('127.0.0.1', 0), reuse_port=True)",
        "listens at `127.0.0.1:",
        EACH,
    ),
    (
        "import socket\nthe = socket.socket(socket.AF_UNIX)\nthe.bind('\\0wsgate-lock')",
        "at `@wsgate-lock`",
        ONE,
    ),
    ("import socket\nthe = socket.socket()", "a socket without an address", EACH),
    ("import socket\na, b = socket.socketpair()", "nothing is left", FORKED),
    ("import socket\na = socket.socketpair()[0]", "connected to another process", EACH),
    (
        "import socket\nthe = socket.socket(type=socket.SOCK_DGRAM)",
        "a socket without an address",
        FORKED,
    ),
    (
        "import socket\nthe = socket.socket(type=socket.SOCK_DGRAM)\nthe.sendto(b'', ('127.0.0.1', \
            9))",
        "at `0.0.0.0:",
        FORKED,
    ),
    (
        "import socket\nthe = socket.socket(type=socket.SOCK_DGRAM)\nthe.bind(('127.0.0.1', 0))",
        "at `127.0.0.1:",
        ONE,
    ),
    (
        "import socket\nthe = socket.socket(type=socket.SOCK_DGRAM)\nthe.connect(('127.0.0.1', 9))",
        "connected to `127.0.0.1:9`",
        EACH,
    ),
    (
        "import socket\nthe = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)",
        "opened a socket, ",
        EACH,
    ),
    // Locks.
    (
        "import fcntl\nthe = open('lock', 'a')\nfcntl.flock(the, fcntl.LOCK_EX)",
        "lock` and locked it",
        ONE,
    ),
    (
        "import fcntl\nthe = open('lock', 'a')\nfcntl.flock(the, fcntl.LOCK_SH)",
        "lock` and locked it",
        EACH,
    ),
    (
        "import fcntl\nthe = open('lock', 'a')\nfcntl.lockf(the, fcntl.LOCK_EX)",
        "lock` and locked it",
        ONE,
    ),
    (
        "import fcntl, struct\nthe = open('lock', 'a')\nfcntl.fcntl(the, 37, \
            struct.pack('hhqqi4x', 1, 0, 0, 0, 0))",
        "lock` and locked it",
        ONE,
    ),
    (
        "import fcntl, os\nthe = os.open('.', os.O_RDONLY)\nfcntl.flock(the, fcntl.LOCK_EX)",
        "locked `",
        ONE,
    ),
    // Files.
    ("the = open('data', 'w')", "data` to write to it", ONE),
    ("the = open('data', 'w+b')", "data` to write to it", ONE),
    ("the = open('app.log', 'a')", "app.log` to append to it", FORKED),
    ("the = open(__file__)", "to read it, at a position that processes share", EACH),
    (
        "import os\nthe = os.open(__file__, os.O_RDONLY)\nos.pread(the, 4, 0)",
        "nothing is left",
        FORKED,
    ),
    (
        "import mmap\nfile = open(__file__, 'rb')\nthe = mmap.mmap(file.fileno(), 0, \
            access=mmap.ACCESS_READ)\nfile.close()",
        "nothing is left",
        FORKED,
    ),
    ("import tempfile\nthe = tempfile.TemporaryFile()", "(deleted)` to write to it", EACH),
    ("import tempfile\nthe = tempfile.NamedTemporaryFile()", "` to write to it", EACH),
    ("import os\nthe = os.open('.', os.O_RDONLY)", "nothing is left", FORKED),
    ("the = open('/dev/urandom', 'rb')", "nothing is left", FORKED),
    (
        "the = open('/dev/net/tun') if __import__('os').path.exists('/nowhere') else None",
        "nothing is left",
        FORKED,
    ),
    // Databases.
    (
        "import sqlite3\nthe = sqlite3.connect('db')\nthe.execute('create table if not exists t \
            (c)')",
        "opened the SQLite database `",
        EACH,
    ),
    (
        "
        import sqlite3
        the = sqlite3.connect('db')
        the.execute('pragma journal_mode=wal')
        the.execute('create table if not exists t (c)')
        the.execute('select * from t').fetchall()
        ",
        "opened the SQLite database `",
        EACH,
    ),
    (
        "
        import sqlite3
        the = sqlite3.connect('db', isolation_level=None)
        the.execute('pragma journal_mode=delete')
        the.execute('create table if not exists t (c)')
        the.execute('begin exclusive')
        ",
        "` and locked it",
        ONE,
    ),
    // Memory.
    (
        "import mmap\nthe = mmap.mmap(-1, 4096)",
        "(line 2) mapped shared memory, `/dev/zero (deleted)`",
        EACH,
    ),
    (
        "import mmap\nthe = mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)",
        "nothing is left",
        FORKED,
    ),
    (
        "
        import mmap
        file = open('metrics', 'a+b')
        file.truncate(4096)
        the = mmap.mmap(file.fileno(), 4096)
        file.close()
        ",
        "metrics` and mapped it into memory that processes share",
        EACH,
    ),
    ("import multiprocessing\nthe = multiprocessing.Lock()", "nothing is left", FORKED),
    // Other kernel objects behind descriptors.
    ("import select\nthe = select.epoll()", "`anon_inode:[eventpoll]`", EACH),
    ("import asyncio\nthe = asyncio.new_event_loop()", "`anon_inode:[eventpoll]`", EACH),
    ("import ctypes\nthe = ctypes.CDLL(None).eventfd(0, 0)", "`anon_inode:[eventfd]`", EACH),
    ("import ctypes\nthe = ctypes.CDLL(None).timerfd_create(1, 0)", "`anon_inode:[timerfd]`", EACH),
    ("import ctypes\nthe = ctypes.CDLL(None).inotify_init()", "`anon_inode:inotify`", EACH),
    ("import os\nthe = os.pidfd_open(os.getpid())", "nothing is left", FORKED),
    // Programs.
    (
        "import subprocess, time\nthe = subprocess.Popen(['false'])\ntime.sleep(0.2)",
        "started the process `false`, which has exited and was not waited for",
        EACH,
    ),
    (
        "import subprocess, time\nsubprocess.Popen(['false'])\ntime.sleep(0.2)",
        "nothing is left",
        FORKED,
    ),
    // Pipes.
    ("import os\nthe = os.pipe()", "nothing is left", FORKED),
    ("import os\nother, the = os.pipe()\nos.close(other)", "opened one end of a pipe", EACH),
    (
        "import multiprocessing\nthe = multiprocessing.Queue()",
        "(line 2) opened a connection of `multiprocessing`",
        EACH,
    ),
    (
        "import multiprocessing\nthe = multiprocessing.Pipe()",
        "opened a connection of `multiprocessing`",
        EACH,
    ),
    (
        "import concurrent.futures\nthe = concurrent.futures.ProcessPoolExecutor(2)",
        "opened a connection of `multiprocessing`",
        EACH,
    ),
    (
        "import os\nos.mkfifo('fifo')\nthe = os.open('fifo', os.O_RDONLY | \
            os.O_NONBLOCK)\nos.unlink('fifo')",
        "opened the named pipe `",
        EACH,
    ),
    ("import os\nos.mkfifo('fifo')\nthe = os.open('fifo', os.O_RDWR)", "fifo`, descriptor ", EACH),
];

#[test]
fn every_row_of_the_table_is_judged_as_it_says() {
    // Several rows run at a time, each in its own directory.
    std::thread::scope(|scope| {
        for rows in TABLE.chunks(TABLE.len().div_ceil(4)) {
            scope.spawn(move || {
                for &(module, said, verdict) in rows {
                    let reported = CheckSite::new().fitness(&dedent(module));
                    assert!(
                        reported.contains(said) && reported.contains(verdict),
                        "{module}\n{reported}"
                    );
                    assert_eq!(
                        verdict == FORKED,
                        reported.starts_with(FORKED),
                        "{module}\n{reported}"
                    );
                }
            });
        }
    });
}

#[test]
fn a_logger_that_is_connected_to_the_systems_log_may_be_shared() {
    let site = CheckSite::new();
    let _log = UnixDatagram::bind(site.dir.path("site/log.sock")).unwrap();
    let reported = site
        .fitness("import logging.handlers\nhandler = logging.handlers.SysLogHandler('log.sock')");
    assert!(
        reported.starts_with("fit: module `app.db` (line 2) opened a socket, descriptor "),
        "{reported}"
    );
    assert!(reported.contains("/site/log.sock`\n"), "{reported}");
}

#[test]
fn the_system_log_server_is_no_second_process() {
    let site = CheckSite::new();
    let reported = site.fitness(
        "
        import atexit, os, socket
        log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        log.bind('log.sock')
        os.unlink('log.sock')
        ",
    );
    assert!(reported.contains(": at `log.sock`") && reported.contains(ONE), "{reported}");
}

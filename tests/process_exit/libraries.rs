//! Exit handlers of C libraries and objects of extension modules when a process exits.

use std::fs;

use crate::{
    each_mode::{Mode, in_each_mode},
    support::web_servers::eventually,
};

#[test]
fn write_ahead_logs_of_sqlite_are_closed() {
    let code = "
        import os, sqlite3, threading
        OUT, KEPT = os.environ['OUT'], threading.local()
        def application(environ, start_response):
            KEPT.database = sqlite3.connect('%s/db%d-%d' % (OUT, os.getpid(), \
            threading.get_ident()), isolation_level=None)
            KEPT.database.execute('pragma journal_mode=wal')
            KEPT.database.execute('create table if not exists t (c)')
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'x']
        ";
    in_each_mode(code, |served, mode| {
        for _ in 0..4 {
            served.ask("/");
        }
        let log = served.stop();
        let names = || -> Vec<_> {
            fs::read_dir(served.out(""))
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect()
        };
        let is_ended = || !names().iter().any(|name| name.ends_with("-wal"));
        eventually(&format!("{mode:?}: {:?}", names()), is_ended);
        assert!(
            names().iter().any(|name| name.starts_with("db")) && !log.contains("Error"),
            "{mode:?}: {log}"
        );
    });
}

#[test]
fn exit_handlers_of_libraries_in_c_run_once() {
    let code = "
        import ctypes, os
        OUT, C = os.environ['OUT'], ctypes.CDLL(None)
        C.strdup.restype = ctypes.c_void_p
        def at_exit(path):
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT))
            unlink = ctypes.cast(C.unlink, ctypes.c_void_p)
            C['__cxa_atexit'](unlink, ctypes.c_void_p(C.strdup(path.encode())), None)
        def application(environ, start_response):
            at_exit('%s/request-%d' % (OUT, os.getpid()))
            kept = os.path.exists(OUT + '/import-%d' % LOADED)
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'kept' if kept else b'gone']
        LOADED = os.getpid()
        at_exit(OUT + '/import-%d' % LOADED)
        ";
    in_each_mode(code, |served, mode| {
        for _ in 0..3 {
            assert_eq!(served.ask("/"), "kept", "{mode:?}: no process runs what is the template's");
        }
        served.stop();
        let left = || fs::read_dir(served.out("")).unwrap().count();
        eventually(&format!("{mode:?}: all handlers have run"), || left() == 0);
    });
}

#[test]
fn objects_of_an_import_are_finalised_once() {
    let code = "
        import os, tempfile
        OUT = os.environ['OUT']
        class Made:
            def __del__(self, write=os.write, open=os.open, flags=os.O_WRONLY | os.O_CREAT | \
            os.O_APPEND):
                write(open(OUT + '/finalised', flags), b'/\\n')
        made = Made()
        with tempfile.NamedTemporaryFile(dir=OUT, delete=False) as file:
            pass
        temporary = tempfile._TemporaryFileWrapper(open(file.name, 'a'), file.name)
        def application(environ, start_response):
            exists = os.path.exists(temporary.name)
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'kept' if exists else b'gone']
        ";
    in_each_mode(code, |served, mode| {
        for _ in 0..3 {
            assert_eq!(served.ask("/"), "kept", "{mode:?}");
        }
        served.stop();
        let loads = match mode {
            Mode::Cold => 3,
            // The first request was served cold, and the template has the other.
            Mode::Warm | Mode::Resident => 2,
            _ => 1,
        };
        let left = || fs::read_dir(served.out("")).unwrap().count();
        let finalised = || served.written("finalised").lines().count();
        eventually(&format!("{mode:?}: {} times", finalised()), || {
            (finalised(), left()) == (loads, 1)
        });
    });
}

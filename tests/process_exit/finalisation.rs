//! Unwritten data is written, and what cleans up after itself does so.

use crate::{
    each_mode::{Mode, ServedApp, in_each_mode},
    support::{
        probe::{Probe, python},
        web_servers::eventually,
    },
};

/// How many requests are made of each mode.
const REQUESTS: usize = 3;

/// Asks `served` three times, ends it, and waits until the file `name` has as many lines.
#[track_caller]
fn ask_and_stop(served: &mut ServedApp, mode: Mode) -> String {
    for _ in 0..REQUESTS {
        served.ask("/");
    }
    let log = served.stop();
    assert!(!log.contains("error["), "{mode:?}: {log}");
    log
}

/// Lines that the three requests have written to the file `name`. Data of a process that has served
/// one request may come after the response.
#[track_caller]
fn await_lines(served: &ServedApp, name: &str, mode: Mode) {
    let lines = || served.written(name).lines().filter(|line| *line == "/").count();
    eventually(&format!("{mode:?}: `{name}` is complete: {:?}", served.written(name)), || {
        lines() >= REQUESTS
    });
    assert_eq!(lines(), REQUESTS, "{mode:?}: {name}");
}

#[test]
fn files_that_an_import_has_opened_are_written() {
    let code = "
        import csv, io, os
        OUT = os.environ['OUT']
        text = open(OUT + '/text', 'a')
        binary = open(OUT + '/binary', 'ab')
        rows = csv.writer(open(OUT + '/rows', 'a'))
        wrapped = io.TextIOWrapper(open(OUT + '/wrapped', 'ab'))
        os_level = os.fdopen(os.open(OUT + '/os', os.O_WRONLY | os.O_CREAT | os.O_APPEND), 'w')
        def application(environ, start_response):
            path = environ['PATH_INFO']
            text.write(path + '\\n')
            binary.write(path.encode() + b'\\n')
            rows.writerow([path])
            wrapped.write(path + '\\n')
            os_level.write(path + '\\n')
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'x']
        ";
    in_each_mode(code, |served, mode| {
        ask_and_stop(served, mode);
        for name in ["text", "binary", "rows", "wrapped", "os"] {
            await_lines(served, name, mode);
        }
    });
}

#[test]
fn buffered_output_of_an_import_is_written_once_for_each_importing_process() {
    let code = "
        import os
        text = open(os.environ['OUT'] + '/text', 'a')
        text.write('imported\\n')
        def application(environ, start_response):
            text.write(environ['PATH_INFO'] + '\\n')
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'x']
        ";
    in_each_mode(code, |served, mode| {
        ask_and_stop(served, mode);
        await_lines(served, "text", mode);
        let imports = served.written("text").lines().filter(|line| *line == "imported").count();
        let expected = match mode {
            Mode::Cold => REQUESTS,
            // The first request was served cold, and the template has the other.
            Mode::Warm | Mode::Resident => 2,
            _ => 1,
        };
        assert_eq!(imports, expected, "{mode:?}");
    });
}

#[test]
fn files_that_requests_leave_open_are_flushed() {
    let code = "
        import bz2, gzip, io, lzma, os
        OUT, KEPT = os.environ['OUT'], []
        class Rows:
            def __init__(self, path):
                self.path, self.rows = path, []
            def __del__(self):
                descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
                os.write(descriptor, ''.join(self.rows).encode())
        class Shouts(io.TextIOBase):
            def __init__(self, stream):
                self.stream, self.held = stream, ''
            def write(self, text):
                self.held += text
            def flush(self):
                if self.held:
                    self.stream.write(self.held)
                    self.held = ''
                    self.stream.flush()
        class Raw(io.RawIOBase):
            def __init__(self, path):
                self.path = path
            def writable(self):
                return True
            def write(self, data):
                descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
                return os.write(descriptor, data)
        def generator(path, line):
            try:
                yield
            finally:
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
                os.write(descriptor, line.encode())
        def application(environ, start_response):
            line = environ['PATH_INFO'] + '\\n'
            for name, stream in [
                ('text', open(OUT + '/text', 'a')),
                ('gz', gzip.open(OUT + '/gz', 'at')),
                ('bz2', bz2.open(OUT + '/bz2', 'at')),
                ('xz', lzma.open(OUT + '/xz', 'at')),
                ('shouts', Shouts(open(OUT + '/shouts', 'a'))),
            ]:
                stream.write(line)
                KEPT.append(stream)
            raw = io.BufferedWriter(Raw(OUT + '/raw'))
            raw.write(line.encode())
            rows = Rows(OUT + '/rows')
            rows.rows.append(line)
            suspended = generator(OUT + '/generator', line)
            next(suspended)
            KEPT.extend([raw, rows, suspended])
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'x']
        ";
    in_each_mode(code, |served, mode| {
        ask_and_stop(served, mode);
        let unpacked = [("gz", "gzip"), ("bz2", "bz2"), ("xz", "lzma")];
        for (name, module) in unpacked {
            let print = format!(
                "import {module}, sys; sys.stdout.write({module}.open(sys.argv[1], 'rt').read())"
            );
            let lines = || {
                let mut command = std::process::Command::new(python());
                let ended = crate::support::child_process::run(
                    command.args(["-c", &print]).arg(served.out(name)),
                    "",
                );
                ended.text().lines().filter(|line| *line == "/").count()
            };
            eventually(&format!("{mode:?}: {name} is complete"), || lines() == REQUESTS);
        }
        for name in ["text", "shouts", "raw", "rows", "generator"] {
            await_lines(served, name, mode);
        }
    });
}

#[test]
fn databases_and_archives_that_requests_leave_open_are_complete() {
    let code = "
        import dbm, dbm.dumb, os, shelve, zipfile
        OUT, KEPT = os.environ['OUT'], []
        def application(environ, start_response):
            if environ['PATH_INFO'] == '/':
                name = '%s/%d-%d' % (OUT, os.getpid(), len(KEPT))
                # A database of SQLite may not be closed by another thread, as everywhere.
                shelf = shelve.Shelf(dbm.dumb.open(name + '-shelf', 'c'), writeback=True)
                shelf['list'] = []
                shelf['list'].append('kept')
                database = dbm.open(name + '-dbm', 'c')
                database['key'] = 'kept'
                dumb = dbm.dumb.open(name + '-dumb', 'c')
                dumb['key'] = 'kept'
                archive = zipfile.ZipFile(name + '-zip', 'w')
                archive.writestr('name', 'kept')
                KEPT.extend([shelf, database, dumb, archive])
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'x']
        ";
    let reads = "
import dbm, dbm.dumb, glob, os, shelve, sys, zipfile
os.chdir(sys.argv[1])
names = {name.rsplit('-', 1)[0] for name in glob.glob('*-zip')}
for name in names:
    print(shelve.Shelf(dbm.dumb.open(name + '-shelf', 'r'))['list'][0])
    print(dbm.open(name + '-dbm')['key'].decode())
    print(dbm.dumb.open(name + '-dumb', 'r')['key'].decode())
    print(zipfile.ZipFile(name + '-zip').read('name').decode())
";
    in_each_mode(code, |served, mode| {
        ask_and_stop(served, mode);
        let kept = || {
            // Which database `dbm` takes depends on the version.
            let mut command = std::process::Command::new(python());
            let ended = crate::support::child_process::run(
                command.args(["-c", reads]).arg(served.out("")),
                "",
            );
            ended.text().lines().filter(|line| *line == "kept").count()
        };
        eventually(&format!("{mode:?}: all databases are complete"), || kept() == 4 * REQUESTS);
    });
}

#[test]
fn temporary_files_of_requests_are_deleted() {
    let code = "
        import os, tempfile
        OUT, KEPT = os.environ['OUT'], []
        def application(environ, start_response):
            KEPT.append(tempfile.NamedTemporaryFile(dir=OUT))
            KEPT.append(tempfile.TemporaryDirectory(dir=OUT))
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'x']
        ";
    in_each_mode(code, |served, mode| {
        ask_and_stop(served, mode);
        let left = || std::fs::read_dir(served.out("")).unwrap().count();
        eventually(&format!("{mode:?}: no temporary file is left"), || left() == 0);
    });
}

#[test]
fn a_process_with_a_daemon_thread_writes_its_files_too() {
    let code = "
        import os, threading
        text = open(os.environ['OUT'] + '/text', 'a')
        def application(environ, start_response):
            text.write(environ['PATH_INFO'] + '\\n')
            threading.Thread(target=threading.Event().wait, daemon=True).start()
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'x']
        ";
    in_each_mode(code, |served, mode| {
        ask_and_stop(served, mode);
        await_lines(served, "text", mode);
    });
}

#[test]
fn a_failing_finaliser_is_logged_and_stops_no_other() {
    let code = "
        import os
        OUT, KEPT = os.environ['OUT'], []
        class Fails:
            def __del__(self):
                raise ValueError('from __del__')
        def application(environ, start_response):
            text = open(OUT + '/text', 'a')
            text.write(environ['PATH_INFO'] + '\\n')
            KEPT.extend([Fails(), text])
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'x']
        ";
    in_each_mode(code, |served, mode| {
        let log = ask_and_stop(served, mode);
        await_lines(served, "text", mode);
        assert!(log.contains("ValueError: from __del__"), "{mode:?}: {log}");
    });
}

#[test]
fn a_finaliser_that_hangs_costs_a_log_message_and_no_process() {
    let code = "
        import threading
        class Hangs:
            def __del__(self):
                threading.Event().wait()
        def application(environ, start_response):
            global hangs
            hangs = Hangs()
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'x']
        ";
    let response = Probe::new(code).options(&["--timeout", "3"]).run();
    assert_eq!((response.status.as_str(), response.text().as_str()), ("200 OK", "x"));
    let message = crate::support::assertions::only_log_message(&response.log, "W0607");
    assert!(message.contains("3 s"), "{}", response.log);
}

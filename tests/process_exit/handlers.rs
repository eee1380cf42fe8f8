//! Exit handlers: each runs once, in the process that has registered it.

use crate::{
    each_mode::{MODES, Mode, ServedApp},
    support::web_servers::eventually,
};

/// Registers handlers in every way there is, while the application is loaded and in requests. Each
/// writes what it is to a file.
const REGISTERS: &str = "
    import atexit, os, tempfile, weakref
    import multiprocessing.util
    OUT, KEPT = os.environ['OUT'], []
    def note(what):
        descriptor = os.open(OUT + '/notes', os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(descriptor, ('%s\\n' % what).encode())
    class Thing:
        pass
    def register(when):
        atexit.register(note, 'atexit ' + when)
        thing = Thing()
        weakref.finalize(thing, note, 'finalize ' + when)
        multiprocessing.util.Finalize(thing, note, ('multiprocessing ' + when,), exitpriority=1)
        KEPT.append(thing)
    register('import')
    os.register_at_fork(after_in_child=lambda: register('fork'))
    TEMPORARY = tempfile.TemporaryDirectory(dir=OUT)
    def only_the_handler_refers_to_it():
        directory = tempfile.TemporaryDirectory(dir=OUT)
        atexit.register(directory.cleanup)
        return directory.name
    SOLE = only_the_handler_refers_to_it()
    def application(environ, start_response):
        register('request')
        start_response('200 OK', [('Content-Type', 'text/plain')])
        return [b'%d%d' % (os.path.isdir(TEMPORARY.name), os.path.isdir(SOLE))]
    ";

#[test]
fn handlers_of_an_import_run_once_and_those_of_requests_in_their_processes() {
    for mode in MODES {
        let mut served = ServedApp::start(mode, &[], REGISTERS);
        for _ in 0..3 {
            assert_eq!(served.ask("/"), "11", "{mode:?}: directories made by the import are there");
        }
        served.stop();
        // The first request of warm applications was served cold.
        let (imports, requests) = match mode {
            Mode::Cold => (3, 3),
            Mode::Warm | Mode::Resident => (2, 4),
            _ => (1, 3),
        };
        for kind in ["atexit", "finalize", "multiprocessing"] {
            let notes = |when: &str| {
                let note = format!("{kind} {when}");
                served.written("notes").lines().filter(|line| *line == note).count()
            };
            eventually(&format!("{mode:?}: {kind}: {}", served.written("notes")), || {
                (notes("import"), notes("request")) == (imports, requests)
            });
        }
        // Hooks run after the fork, so that what they register is the new process's.
        if matches!(mode, Mode::Warm | Mode::Resident | Mode::Preloaded(_)) {
            let processes = match mode {
                Mode::Warm => 3,
                _ => 1,
            };
            for kind in ["atexit", "finalize", "multiprocessing"] {
                let note = format!("{kind} fork");
                let notes = served.written("notes").lines().filter(|line| *line == note).count();
                assert!(notes >= processes, "{mode:?}: {note}: {}", served.written("notes"));
            }
        }
        let left = || std::fs::read_dir(served.out("")).unwrap().count();
        eventually(&format!("{mode:?}: the directories of the import are deleted"), || left() == 1);
    }
}

#[test]
fn handlers_run_in_the_reverse_order_of_their_registration_after_threads_have_ended() {
    let code = "
        import atexit, concurrent.futures, logging.handlers, os, threading
        OUT = os.environ['OUT']
        def note(what):
            descriptor = os.open(OUT + '/notes', os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.write(descriptor, ('%s\\n' % what).encode())
        executor = concurrent.futures.ThreadPoolExecutor(1)
        logger = logging.getLogger('buffered')
        logger.propagate = False
        def application(environ, start_response):
            if environ['PATH_INFO'] == '/':
                atexit.register(note, 'first registered')
                atexit.register(note, 'last registered')
                threading.Thread(target=lambda: (threading.Event().wait(0.1), \
                note('thread'))).start()
                executor.submit(note, 'executor')
                file = logging.FileHandler(OUT + '/log')
                logger.addHandler(logging.handlers.MemoryHandler(1000, target=file))
                logger.error('logged')
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'x']
        ";
    for mode in MODES {
        let mut served = ServedApp::start(mode, &[], code);
        served.ask("/");
        served.stop();
        let complete =
            || served.written("notes").lines().count() == 4 && served.written("log") == "logged\n";
        eventually(&format!("{mode:?}: all is noted: {:?}", served.written("notes")), complete);
        let notes = served.written("notes");
        let mut notes: Vec<&str> = notes.lines().collect();
        assert_eq!(notes.split_off(2), ["last registered", "first registered"], "{mode:?}");
        notes.sort_unstable();
        assert_eq!(notes, ["executor", "thread"], "{mode:?}");
    }
}

#[test]
fn an_exit_handler_that_hangs_costs_a_log_message_and_no_process() {
    let code = "
        import atexit, threading
        atexit.register(threading.Event().wait)
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'x']
        ";
    let response = crate::support::probe::Probe::new(code).options(&["--timeout", "3"]).run();
    assert_eq!((response.status.as_str(), response.text().as_str()), ("200 OK", "x"));
    crate::support::assertions::only_log_message(&response.log, "W0607");
}

#[test]
fn a_thread_that_does_not_exit_keeps_no_process_beyond_its_timeout() {
    let code = "
        import threading
        def application(environ, start_response):
            threading.Thread(target=threading.Event().wait).start()
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'x']
        ";
    let response = crate::support::probe::Probe::new(code).options(&["--timeout", "2"]).run();
    assert_eq!((response.status.as_str(), response.text().as_str()), ("200 OK", "x"));
    crate::support::assertions::only_log_message(&response.log, "W0607");
}

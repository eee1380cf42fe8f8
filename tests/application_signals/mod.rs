//! Signal handlers and threads of the application, which those of the engine do not disturb.

use crate::each_mode::in_each_mode;

#[test]
fn signal_handlers_installed_by_an_import_are_called() {
    let code = "
        import os, signal, time
        came = []
        numbers = [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGCHLD, \
        signal.SIGWINCH]
        for number in numbers:
            signal.signal(number, lambda number, frame: came.append(number))
        def application(environ, start_response):
            del came[:]
            for number in numbers:
                os.kill(os.getpid(), number)
                end = time.monotonic() + 10
                while number not in came and time.monotonic() < end:
                    time.sleep(0.001)
            missing = [number.name for number in numbers if number not in came]
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [repr(missing).encode()]
        ";
    in_each_mode(code, |served, mode| {
        for _ in 0..2 {
            assert_eq!(served.ask("/"), "[]", "{mode:?}");
        }
    });
}

#[test]
fn stacks_are_written_to_the_file_that_an_import_registered_for_a_signal() {
    // The file is open for appending, so that processes may share it.
    let code = "
        import faulthandler, os, signal, time
        numbers = [signal.SIGUSR1, signal.SIGCHLD, signal.SIGHUP]
        stacks = open(os.environ['OUT'] + '/stacks', 'a')
        for number in numbers:
            faulthandler.register(number, file=stacks)
        def application(environ, start_response):
            written = []
            for number in numbers:
                before = os.fstat(stacks.fileno()).st_size
                os.kill(os.getpid(), number)
                # With threads another one may be interrupted.
                end = time.monotonic() + 10
                while os.fstat(stacks.fileno()).st_size == before and time.monotonic() < end:
                    time.sleep(0.001)
                if os.fstat(stacks.fileno()).st_size > before:
                    written.append(number.name)
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [repr(written).encode()]
        ";
    in_each_mode(code, |served, mode| {
        assert_eq!(served.ask("/"), "['SIGUSR1', 'SIGCHLD', 'SIGHUP']", "{mode:?}");
    });
}

#[test]
fn threads_started_by_at_fork_hooks_block_no_signal() {
    let code = "
        import os, queue, signal, threading
        asked, answers = queue.Queue(), queue.Queue()
        def answer():
            while True:
                asked.get()
                answers.put(signal.pthread_sigmask(signal.SIG_BLOCK, []))
        def start():
            global thread
            thread = threading.Thread(target=answer, daemon=True)
            thread.start()
        thread = None
        os.register_at_fork(after_in_child=start)
        def application(environ, start_response):
            if not thread:
                start()
            asked.put(None)
            blocked = answers.get(timeout=10)
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [repr(sorted(blocked)).encode()]
        ";
    in_each_mode(code, |served, mode| assert_eq!(served.ask("/"), "[]", "{mode:?}"));
}

#[test]
fn threads_have_the_stack_size_that_an_import_has_set() {
    let code = "
        import ctypes, threading
        threading.stack_size(1 << 26)
        C = ctypes.CDLL(None)
        C.pthread_self.restype = ctypes.c_void_p
        def look(found):
            attributes, size = ctypes.create_string_buffer(64), ctypes.c_size_t()
            C.pthread_getattr_np(ctypes.c_void_p(C.pthread_self()), attributes)
            C.pthread_attr_getstacksize(attributes, ctypes.byref(size))
            found.append(size.value >> 20)
        def application(environ, start_response):
            found = []
            thread = threading.Thread(target=look, args=(found,))
            thread.start()
            thread.join()
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'%d MiB' % found[0]]
        ";
    // The C library takes a part of it for itself.
    in_each_mode(code, |served, mode| {
        assert!(["63 MiB", "64 MiB"].contains(&&*served.ask("/")), "{mode:?}")
    });
}

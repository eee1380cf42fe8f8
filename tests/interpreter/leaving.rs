//! How a process is left: everything that a Python program does at its end, and the response not a
//! moment later than it is made.

use crate::support::{
    child_process::{RunningProcess, piped},
    install_dir::InstallDir,
    probe::{Probe, python},
};

#[test]
fn exit_handlers_of_a_program_run() {
    let code = "
        import atexit, sys, threading
        atexit.register(print, 'at exit')
        def application(environ, start_response):
            def late(event=threading.Event()):
                event.wait(0.05)
                print('thread')
            threading.Thread(target=late).start()
            sys.stdout.write('no line end; ')
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'x']
        ";
    let response = Probe::new(code).run();
    // An unfinished line ends with its request.
    assert_eq!(response.log, "no line end; \nthread\nat exit\n");
}

#[test]
fn c37_the_response_ends_when_it_is_complete_not_when_the_process_exits() {
    let dir = InstallDir::new();
    let gate = dir.fifo("gate");
    let code = format!(
        "
        import threading
        def application(environ, start_response):
            threading.Thread(target=lambda: print('went on', open({gate:?}).read())).start()
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'early']
        "
    );
    let line = format!("#!WSGATE --python {}", python().display());
    let script = dir.script("site/app.wsgi", &line, &code);
    let mut running = RunningProcess::start(piped(&mut dir.request(&script)));
    // The thread waits for us, and with it the process; the web server has its response already.
    assert!(running.await_end_of_output().ends_with(b"early"));
    std::fs::write(&gate, "afterwards").unwrap();
    let ended = running.end();
    assert_eq!((ended.stderr.as_str(), ended.code()), ("went on afterwards\n", Some(0)));
}

#[test]
fn a_child_of_the_application_gets_neither_body_nor_response() {
    let code = "
        import os, subprocess
        def application(environ, start_response):
            listing = 'import os; print([os.readlink(\"/proc/self/fd/%s\" % n) for n in \
            os.listdir(\"/proc/self/fd\") if int(n) > 2])'
            out = subprocess.run(['python3', '-c', listing], stdout=subprocess.PIPE, \
            close_fds=False).stdout
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [out, os.readlink('/proc/self/fd/0').encode()]
        ";
    let response = Probe::new(code).post("a body").run();
    let text = response.text();
    assert!(
        !text.contains("pipe:") && !text.contains("socket:") && !text.contains("memfd:"),
        "{text}"
    );
    assert!(text.ends_with("/dev/null"), "{text}");
}

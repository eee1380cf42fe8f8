//! A process that an import forks, and that comes back from the import, is no second template,
//! worker or response.

use crate::{
    each_mode::in_each_mode,
    support::{assertions::codes, web_servers::eventually},
};

#[test]
fn a_child_that_returns_from_an_import_serves_nothing_and_runs_no_exit_handler() {
    for waits in ["os.waitpid(child, 0)", "pass"] {
        let code = format!(
            "
            import atexit, os
            OUT = os.environ['OUT']
            def note(what):
                descriptor = os.open(OUT + '/notes', os.O_WRONLY | os.O_CREAT | os.O_APPEND)
                os.write(descriptor, ('%s\\n' % what).encode())
            STARTED = os.getpid()
            atexit.register(lambda: note('ours' if os.getpid() == STARTED else 'of a child'))
            child = os.fork()
            if child:
                {waits}
            def application(environ, start_response):
                start_response('200 OK', [('Content-Type', 'text/plain')])
                return [b'served']
            "
        );
        in_each_mode(&code, |served, mode| {
            for _ in 0..3 {
                assert_eq!(served.ask("/"), "served", "{mode:?}");
            }
            let log = served.stop();
            assert!(!codes(&log).is_empty(), "{mode:?}: {log}");
            assert!(codes(&log).iter().all(|code| *code == "W0608"), "{mode:?}: {log}");
            eventually(&format!("{mode:?}: exit handlers have run"), || {
                served.written("notes").contains("ours")
            });
            assert!(
                !served.written("notes").contains("of a child"),
                "{mode:?}: {}",
                served.written("notes")
            );
        });
    }
}

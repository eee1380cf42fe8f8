//! A FastCGI pool as web servers and administrators see it: records over its socket, signals, processes, and the log.
//!
//! Every test starts a pool of its own and is its web server. Rows of the conformance table stand in `starting`, `framing`,
//! `connections`, `requests` and `hostile`; the life of the processes in the other files.

mod connections;
mod ending;
mod endurance;
mod framing;
mod hostile;
mod process;
mod reloading;
mod requests;
mod separation;
mod starting;
mod wire;
mod workers;

/// Answers with its process id, its path and its body.
const ECHO: &str = "
    import os
    def application(environ, start_response):
        body = environ['wsgi.input'].read()
        start_response('200 OK', [('Content-Type', 'text/plain'), ('X-Pid', str(os.getpid()))])
        return [environ['PATH_INFO'].encode('latin-1') + b'|' + body]
    ";

/// Waits at the gate `GATE` if its path is `/slow`, and says so in the log first. Reads its body at the end if at all.
const GATED: &str = "
    import os
    def application(environ, start_response):
        path = environ['PATH_INFO']
        if path.startswith('/slow'):
            print('at the gate:', path)
            gate = os.open(os.environ['GATE'], os.O_RDONLY)
            os.read(gate, 1)
            os.close(gate)
        body = environ['wsgi.input'].read()
        start_response('200 OK', [('Content-Type', 'text/plain'), ('X-Pid', str(os.getpid()))])
        return [path.encode('latin-1') + b'|' + body]
    ";

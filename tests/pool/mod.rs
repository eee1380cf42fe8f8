//! A FastCGI pool as web servers and administrators see it: records over its socket, signals,
//! processes, and the log.
//!
//! Every test starts a pool of its own and is its web server. Rows of the conformance table stand
//! in `starting`, `inherited`, `framing`, `connections`, `requests`, `aborts` and `hostile`; the
//! life of the processes in the other files.

mod aborted_requests;
mod accepting_thread;
mod access_log;
mod access_log_failures;
mod changes;
mod commands;
mod config_file;
mod config_reload;
mod connection_queue;
mod connections;
mod control;
mod counters;
mod cut_responses;
mod deadlines;
mod dormant;
mod dynamic;
mod ending;
mod env_file;
mod environment;
mod files_of_root;
mod filter;
pub(crate) mod forks;
mod framing;
mod hostile;
mod inherited;
mod lingering_close;
mod listening;
pub(crate) mod load;
mod load_failures;
mod logs;
mod lone_worker;
mod missing_rights;
mod notify;
mod orphans;
mod outliving;
mod output;
mod preloading;
mod privileges;
mod queue_limits;
mod random_state;
mod records;
mod reloading;
mod remembered_variables;
mod replacing;
mod request_times;
mod requests;
mod separation;
mod signals;
mod slow_log;
mod stacks;
mod starting;
pub(crate) mod state;
mod status;
mod status_page;
mod stderr;
mod stopped_readers;
mod stopped_supervisors;
mod telemetry;
mod threads;
mod timeouts;
pub(crate) mod titles;
mod top;
mod unavailable;
mod unfinished_requests;
mod units;
mod upgrades;
mod upgrading;
mod workers;

use crate::support::assertions::only_log_message;
pub(crate) use crate::support::pool::{Pool, PoolSetup, children};

/// Answers with its process id, its path and its body.
pub(crate) const ECHO: &str = "
    import os
    def application(environ, start_response):
        body = environ['wsgi.input'].read()
        start_response('200 OK', [('Content-Type', 'text/plain'), ('X-Pid', str(os.getpid()))])
        return [environ['PATH_INFO'].encode('latin-1') + b'|' + body]
    ";

/// Waits at the gate `GATE` if its path is `/slow`, and says so in the log first. Reads its body at
/// the end if at all.
pub(crate) const GATED: &str = "
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

/// Says in the log how its body was read, how its blocks were sent, and that it was closed.
const TELLS: &str = "
    class Blocks:
        def __init__(self, path, count):
            self.path, self.left = path, count
        def __iter__(self):
            return self
        def __next__(self):
            self.left -= 1
            if self.left < 0:
                raise StopIteration
            return b'x' * 1000
        def close(self):
            print('closed', self.path)

    def application(environ, start_response):
        path = environ['PATH_INFO']
        print('begun', path)
        if 'body' in path:
            try:
                print('read', path, len(environ['wsgi.input'].read()))
            except Exception as error:
                print('not read', path, type(error).__name__, isinstance(error, OSError))
                if 'raise' in path:
                    raise
        start_response('200 OK', [('Content-Type', 'text/plain')])
        return Blocks(path, 2 if 'short' in path else 10 ** 9)
    ";

//! The permanent codes of log messages. `docs/errors.md` lists each with its severity, its cause
//! and what to do about it.

use std::fmt;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal,)*) => {
        /// Permanent code of a log message, by its cause.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u16)]
        pub enum Code { $($(#[$doc])* $name = $number,)* }

        impl Code {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$name,)*];
        }
    };
}

codes! {
    /// The web server did not set `SCRIPT_FILENAME`, and no `#!` line has started wsgate.
    NoScript = 101,
    /// The script does not exist, is not a file, or is not readable.
    UnreadableScript = 102,
    /// An option on the `#!` line is unknown or wrong.
    BadScriptOptions = 103,
    /// A client requested the wsgate program itself, not a script.
    CalledDirectly = 104,
    /// An argument or a setting is wrong.
    BadSetting = 105,
    /// The virtualenv does not exist, cannot be entered, is no virtualenv, or its Python is
    /// missing.
    BadVenv = 201,
    /// The interpreter does not exist or cannot be executed.
    BadPython = 202,
    /// The engine was not found.
    NoEngine = 203,
    /// Python could not be started.
    NoProcess = 204,
    /// Python exited before it had loaded the engine.
    PythonEnded = 205,
    /// Python cannot run or load the engine, or the engine is of another build.
    UnfitEngine = 206,
    /// The engine needs a newer glibc than this system has.
    OldGlibc = 207,
    /// The application raised an exception while it was loaded.
    ImportRaised = 301,
    /// A module was not found.
    ModuleNotFound = 302,
    /// The file defines neither `application` nor `app`, or the object is not callable.
    NoCallable = 303,
    /// The application called `sys.exit` while it was loaded.
    ExitAtImport = 304,
    /// The application was not loaded within its timeout.
    LoadTimedOut = 305,
    /// A process of a pool has been loading the application for 30 s, and goes on.
    LoadsLong = 306,
    /// With `--preload yes`: loading the application started threads in the template process.
    ThreadsAtImport = 307,
    /// With `--preload yes`: loading the application left something open that processes must not
    /// share.
    OpenAtImport = 308,
    /// Loading the application left something open or running that processes must not share, so
    /// each worker loads the application.
    NotPreloaded = 309,
    /// Loading the application leaves something open that only one process at a time may have, so
    /// warm CGI is not used.
    OneProcessOnly = 310,
    /// The `--warm-up` request failed, exceeded its time limit, or got a status of 400 or more.
    WarmUpFailed = 311,
    /// A variable of the request is malformed, or variables are too many or too long.
    BadRequest = 401,
    /// A client of a pool's socket sent bytes that are not FastCGI, or that break its rules.
    BadRecord = 402,
    /// The start of a request did not arrive within `--header-timeout`.
    HeaderTimedOut = 403,
    /// A worker has reached its limit of connections or file descriptors, or of incomplete
    /// requests.
    TooManyConnections = 404,
    /// A client connected from an address that `FCGI_WEB_SERVER_ADDRS` does not list.
    RefusedAddress = 405,
    /// The request body is longer than `CONTENT_LENGTH`.
    SurplusBody = 406,
    /// The application raised an exception.
    ApplicationRaised = 501,
    /// The application raised an exception after the response headers had been sent.
    RaisedAfterHeaders = 502,
    /// The response breaks PEP 3333.
    BadResponse = 503,
    /// The response body is shorter than its `Content-Length`.
    BodyTooShort = 504,
    /// The response body is longer than its `Content-Length`.
    BodyTooLong = 505,
    /// The response has a body and no `Content-Type`.
    NoContentType = 506,
    /// A response with status 204, 205 or 304 has a body.
    UnwantedBody = 507,
    /// A response with status 200 has a `Location`.
    LocationLeftOut = 508,
    /// `close()` of the response raised an exception.
    CloseRaised = 509,
    /// The response could not be written, although the client is connected.
    NotWritten = 510,
    /// Python exited before it had answered.
    ProcessEnded = 601,
    /// Python exited after the response headers had been sent.
    EndedAfterHeaders = 602,
    /// Python was killed by a signal before it had answered.
    ProcessKilled = 603,
    /// The request exceeded `--timeout`.
    TimedOut = 604,
    /// A request over FastCGI exceeds `--slow`.
    SlowRequest = 605,
    /// A signal stopped the request.
    Terminated = 606,
    /// A process did not exit in time after its last request.
    ExitTimedOut = 607,
    /// A child process that the application forked returned from the application.
    ChildReturned = 608,
    /// A request, or loading the application, left a timer running.
    TimerLeft = 609,
    /// The application closed descriptors of wsgate's, or replaced them.
    DescriptorsLost = 610,
    /// A worker without a supervisor received SIGTERM some seconds ago, and its request goes on.
    StillRuns = 611,
    /// A worker without a supervisor received SIGTERM and still runs after `--drain`.
    DrainTimedOut = 612,
    /// A worker of a pool crashed, exited or was killed.
    WorkerDied = 701,
    /// A worker exited while it loaded the application.
    WorkerLoadFailed = 702,
    /// The template process of a pool crashed or exited, or did not exit when asked.
    TemplateDied = 703,
    /// A worker could not be forked.
    ForkFailed = 704,
    /// A worker that had served its last request did not exit, and was killed.
    WorkerNotExiting = 705,
    /// A worker could not start a thread.
    NoThread = 706,
    /// A worker cannot accept connections any more.
    CannotAccept = 707,
    /// A worker is replaced: it has reached `--max-requests`, `--max-age` or `--max-rss`.
    WorkerReplaced = 708,
    /// A pool starts to serve.
    PoolReady = 710,
    /// New code is loaded and serves.
    PoolReloaded = 711,
    /// A pool stops.
    PoolEnds = 712,
    /// Another build of wsgate was installed.
    EngineReplaced = 713,
    /// A watched file has changed, and the pool loads new code.
    ChangeSeen = 714,
    /// New code could not be loaded at a reload.
    ReloadFailed = 715,
    /// A pool with `--min 0` is idle, and has no Python process.
    PoolIdle = 716,
    /// A request was refused because the pool has no worker.
    NoWorkerServes = 717,
    /// A listening socket cannot be opened.
    BadListener = 720,
    /// A service manager passed a socket that no `--listen` names.
    SocketLeft = 721,
    /// A pool cannot serve as the user of `--user`.
    NotThatUser = 722,
    /// Root started a pool without `--user`.
    ServesAsRoot = 723,
    /// Root would create a socket or log where another user could redirect it.
    UntrustedPath = 724,
    /// The control socket could not be created.
    NoControlSocket = 730,
    /// The service manager's socket in `NOTIFY_SOCKET` cannot be reached.
    NotifyFailed = 731,
    /// A supervisor received a signal without a meaning for pools.
    StraySignal = 732,
    /// The access log cannot be written.
    AccessNotLogged = 740,
    /// A log could not be reopened.
    LogNotReopened = 741,
    /// The logs were reopened.
    LogsReopened = 742,
    /// Messages were lost, since the reader of the error log had stopped.
    MessagesLost = 743,
    /// A request could not be passed to the warm pool, and falls back to cold CGI.
    ServedCold = 801,
    /// No warm pool can be started, or a warm pool failed to start.
    NoWarmPool = 802,
    /// The application's files cannot be watched, so warm CGI is not used.
    NotWatched = 803,
    /// All processes of the warm pool were busy for longer than `--queue`.
    PoolFull = 804,
    /// A warm pool has reached `--warm-age` and stops.
    WarmPoolOld = 805,
    /// No server is running at the address of `--via`, or the user may not connect.
    NoServer = 901,
    /// The FastCGI server refused the request.
    Refused = 902,
    /// The connection ended before the response was complete, or the application reported a
    /// failure.
    ResponseCut = 903,
    /// The server did not send FastCGI, or sent no valid CGI response.
    NoResponse = 904,
    /// No pool with that name runs as this user, several do, or the pool does not answer.
    NoPool = 905,
    /// A bug in wsgate.
    Internal = 999,
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "W{:04}", *self as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_sorted_and_no_number_stands_twice() {
        let mut numbers: Vec<u16> = Code::ALL.iter().map(|&code| code as u16).collect();
        numbers.dedup();
        assert_eq!(numbers.len(), Code::ALL.len());
        assert!(numbers.is_sorted());
    }
}

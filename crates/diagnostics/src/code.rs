//! The permanent codes of log messages, each with its severity. `docs/errors.md` lists each with
//! its cause and what to do about it.

use std::fmt;

/// Severity of a log message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The request failed.
    Error,
    /// The request went on.
    Warning,
    /// Nothing is wrong.
    Notice,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Notice => "notice",
        })
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal: $severity:ident,)*) => {
        /// Permanent code of a log message, by its cause.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u16)]
        pub enum Code { $($(#[$doc])* $name = $number,)* }

        impl Code {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The severity of all messages with this code.
            pub const fn severity(self) -> Severity {
                match self { $(Self::$name => Severity::$severity,)* }
            }
        }
    };
}

codes! {
    /// The web server did not set `SCRIPT_FILENAME`, and no `#!` line has started wsgate.
    NoScript = 101: Error,
    /// The script does not exist, is not a file, or is not readable.
    UnreadableScript = 102: Error,
    /// An option on the `#!` line is unknown or wrong.
    BadScriptOptions = 103: Error,
    /// A client requested the wsgate program itself, not a script.
    CalledDirectly = 104: Error,
    /// An argument or a setting is wrong.
    BadSetting = 105: Error,
    /// The file of `--error-log` cannot be opened.
    ErrorLogNotOpened = 106: Warning,
    /// Clients may be able to fetch the file of `--error-log`.
    ErrorLogExposed = 107: Warning,
    /// A path of `--path` or `--reload-on` does not exist.
    MissingPath = 108: Warning,
    /// The virtualenv does not exist, cannot be entered, is no virtualenv, or its Python is
    /// missing.
    BadVenv = 201: Error,
    /// The interpreter does not exist, cannot be executed, or is no Python.
    BadPython = 202: Error,
    /// The engine was not found.
    NoEngine = 203: Error,
    /// Python could not be started.
    NoProcess = 204: Error,
    /// Python exited before it had loaded the engine, or has not loaded it in time.
    PythonEnded = 205: Error,
    /// Python cannot run or load the engine, or the engine is of another build.
    UnfitEngine = 206: Error,
    /// The engine needs a newer glibc than this system has.
    OldGlibc = 207: Error,
    /// The application raised an exception while it was loaded.
    ImportRaised = 301: Error,
    /// A module was not found.
    ModuleNotFound = 302: Error,
    /// The file defines neither `application` nor `app`, or the object is not callable.
    NoCallable = 303: Error,
    /// The application called `sys.exit` while it was loaded.
    ExitAtImport = 304: Error,
    /// The application was not loaded within its timeout.
    LoadTimedOut = 305: Error,
    /// A process of a pool has been loading the application for 30 s, and goes on.
    LoadsLong = 306: Warning,
    /// With `--preload yes`: loading the application started threads in the template process.
    ThreadsAtImport = 307: Warning,
    /// With `--preload yes`: loading the application left something open that processes must not
    /// share.
    OpenAtImport = 308: Warning,
    /// Loading the application left something open or running that processes must not share, so
    /// each worker loads the application.
    NotPreloaded = 309: Notice,
    /// Loading the application leaves something open that only one process at a time may have, so
    /// warm CGI is not used.
    OneProcessOnly = 310: Warning,
    /// The `--warm-up` request failed, exceeded its time limit, or got a status of 400 or more.
    WarmUpFailed = 311: Warning,
    /// Loading the application leaves something open that only one process at a time may have, and
    /// the pool has more workers.
    OneWorkerOnly = 312: Warning,
    /// The function of `--after-fork` failed.
    AfterForkFailed = 313: Error,
    /// A variable of the request is malformed, or variables are too many or too long.
    BadRequest = 401: Error,
    /// A client of a pool's socket sent bytes that are not FastCGI, or that break its rules.
    BadRecord = 402: Error,
    /// The start of a request did not arrive within `--header-timeout`.
    HeaderTimedOut = 403: Warning,
    /// A worker has reached its limit of connections or file descriptors, or of incomplete
    /// requests.
    TooManyConnections = 404: Warning,
    /// A client connected from an address that `FCGI_WEB_SERVER_ADDRS` does not list.
    RefusedAddress = 405: Warning,
    /// The request body is longer than `CONTENT_LENGTH`.
    SurplusBody = 406: Warning,
    /// The application raised an exception.
    ApplicationRaised = 501: Error,
    /// The application raised an exception after the response headers had been sent.
    RaisedAfterHeaders = 502: Error,
    /// The response breaks PEP 3333.
    BadResponse = 503: Error,
    /// The response body is shorter than its `Content-Length`.
    BodyTooShort = 504: Error,
    /// The response body is longer than its `Content-Length`.
    BodyTooLong = 505: Error,
    /// The response has a body and no `Content-Type`.
    NoContentType = 506: Warning,
    /// A response with status 204, 205 or 304 has a body.
    UnwantedBody = 507: Warning,
    /// A response with status 200 has a `Location`.
    LocationLeftOut = 508: Warning,
    /// `close()` of the response raised an exception.
    CloseRaised = 509: Error,
    /// The response could not be written, although the client is connected.
    NotWritten = 510: Error,
    /// The web server cannot send a file in place of the application.
    FileNotOffloaded = 511: Warning,
    /// Python exited before it had answered.
    ProcessEnded = 601: Error,
    /// Python exited after the response headers had been sent.
    EndedAfterHeaders = 602: Error,
    /// Python was killed by a signal before it had answered.
    ProcessKilled = 603: Error,
    /// The request exceeded `--timeout`.
    TimedOut = 604: Error,
    /// A request over FastCGI exceeds `--slow`.
    SlowRequest = 605: Warning,
    /// A signal stopped the request.
    Terminated = 606: Error,
    /// A process did not exit in time after its last request.
    ExitTimedOut = 607: Error,
    /// A child process that the application forked returned from the application.
    ChildReturned = 608: Warning,
    /// A request, or loading the application, left a timer running.
    TimerLeft = 609: Warning,
    /// The application closed descriptors of wsgate's, or replaced them.
    DescriptorsLost = 610: Error,
    /// A worker without a supervisor received SIGTERM some seconds ago, and its request goes on.
    StillRuns = 611: Warning,
    /// A worker without a supervisor received SIGTERM and still runs after `--drain`.
    DrainTimedOut = 612: Error,
    /// A worker of a pool crashed, exited or was killed.
    WorkerDied = 701: Error,
    /// A worker exited while it loaded the application.
    WorkerLoadFailed = 702: Error,
    /// The template process of a pool crashed or exited, or could not be started.
    TemplateDied = 703: Error,
    /// A worker could not be forked.
    ForkFailed = 704: Error,
    /// A worker that had served its last request did not exit, and was killed.
    WorkerNotExiting = 705: Warning,
    /// A worker could not start a thread.
    NoThread = 706: Warning,
    /// A worker cannot accept connections any more.
    CannotAccept = 707: Error,
    /// A worker is replaced: it has reached `--max-requests`, `--max-age` or `--max-rss`.
    WorkerReplaced = 708: Notice,
    /// A process of `--mode warm` was killed by SIGKILL, as when a client disconnects.
    WorkerKilled = 709: Warning,
    /// A pool starts to serve.
    PoolReady = 710: Notice,
    /// New code is loaded and serves.
    PoolReloaded = 711: Notice,
    /// A pool stops.
    PoolEnds = 712: Notice,
    /// Another build of wsgate was installed.
    EngineReplaced = 713: Notice,
    /// A watched file has changed, and the pool loads new code.
    ChangeSeen = 714: Notice,
    /// New code could not be loaded at a reload.
    ReloadFailed = 715: Error,
    /// A pool with `--min 0` is idle, and has no Python process.
    PoolIdle = 716: Notice,
    /// A request was refused because the pool has no worker.
    NoWorkerServes = 717: Error,
    /// A template process did not exit when asked, and was killed.
    TemplateNotExiting = 718: Warning,
    /// The limits of processes or memory hold fewer workers than an option sets.
    LimitsTooLow = 719: Warning,
    /// A listening socket cannot be opened.
    BadListener = 720: Error,
    /// A service manager passed a socket that no `--listen` names.
    SocketLeft = 721: Warning,
    /// A pool cannot serve as the user of `--user`.
    NotThatUser = 722: Error,
    /// Root started a pool without `--user`.
    ServesAsRoot = 723: Warning,
    /// Root would create a socket or log where another user could redirect it.
    UntrustedPath = 724: Error,
    /// `FCGI_WEB_SERVER_ADDRS` lists IP addresses, so that no client may connect to a Unix socket
    /// of the pool.
    NobodyMayConnect = 725: Warning,
    /// A pool has fewer workers than its default, because of the limits of processes or memory.
    FewerWorkers = 726: Notice,
    /// Another build of wsgate has taken over a pool.
    Upgraded = 727: Notice,
    /// A pool could not be upgraded, and goes on with its own build.
    UpgradeFailed = 728: Error,
    /// A reload cannot change an option of the pool.
    NeedsRestart = 729: Warning,
    /// The control socket could not be created.
    NoControlSocket = 730: Warning,
    /// The service manager's socket in `NOTIFY_SOCKET` cannot be reached.
    NotifyFailed = 731: Warning,
    /// A supervisor received a signal without a meaning for pools.
    StraySignal = 732: Warning,
    /// A worker was killed with its requests, since it was asked to stop and they took too long.
    RequestKilled = 733: Warning,
    /// Clients of other machines can connect to a pool, and no variable says which may.
    EveryoneMayConnect = 734: Warning,
    /// The access log cannot be written.
    AccessNotLogged = 740: Warning,
    /// A log could not be reopened.
    LogNotReopened = 741: Warning,
    /// The logs were reopened.
    LogsReopened = 742: Notice,
    /// Messages were lost, since the reader of the error log had stopped.
    MessagesLost = 743: Warning,
    /// The file of `--slow-log` cannot be written.
    SlowNotLogged = 744: Warning,
    /// A request of a FastCGI pool was refused because all workers were busy for too long.
    QueueFull = 750: Error,
    /// A monitor starts to answer.
    MonitorReady = 760: Notice,
    /// The program `wsgate-http` was not found, or cannot be started.
    NoHttpProgram = 761: Error,
    /// The token of a monitor is missing or cannot be used.
    BadToken = 762: Error,
    /// Clients that send no request use all connections of a monitor.
    MonitorBusy = 763: Warning,
    /// `wsgate serve` starts to serve.
    ServeReady = 770: Notice,
    /// Other machines can reach `wsgate serve`.
    ServeExposed = 771: Warning,
    /// Files are not watched for changes.
    NotAllWatched = 772: Warning,
    /// The browser of `wsgate serve --open` cannot be started.
    NoBrowser = 773: Warning,
    /// A program of `wsgate serve --cgi` cannot be started, or has sent no CGI response.
    CgiFailed = 774: Error,
    /// A request could not be passed to the warm pool, and falls back to cold CGI.
    ServedCold = 801: Warning,
    /// No warm pool can be started, or the last one failed to start.
    NoWarmPool = 802: Warning,
    /// The application's files cannot be watched, so warm CGI is not used.
    NotWatched = 803: Error,
    /// All processes of the warm pool were busy for longer than `--queue`.
    PoolFull = 804: Error,
    /// A warm pool has reached `--warm-age` and stops.
    WarmPoolOld = 805: Notice,
    /// A warm pool failed to start.
    WarmPoolFailed = 806: Error,
    /// No server is running at the address of `--via`, or the user may not connect.
    NoServer = 901: Error,
    /// The FastCGI server refused the request.
    Refused = 902: Error,
    /// The connection ended before the response was complete, or the application reported a
    /// failure.
    ResponseCut = 903: Error,
    /// The server did not send FastCGI, or sent no valid CGI response.
    NoResponse = 904: Error,
    /// No pool with that name runs as this user, several do, or the pool does not answer.
    NoPool = 905: Error,
    /// `wsgate status`: this user runs no pool.
    NoPools = 906: Notice,
    /// `wsgate stacks`: a process has not answered.
    NoStacks = 907: Error,
    /// `wsgate call`: an option of curl is ignored.
    OptionIgnored = 910: Notice,
    /// `wsgate call -L`: the application is not asked for the URL of a redirect.
    NotFollowed = 911: Warning,
    /// `wsgate call --fail`: the status of the response is 400 or more.
    FailedStatus = 912: Error,
    /// `wsgate call --compressed`: the response has an encoding that wsgate does not know.
    UnknownEncoding = 913: Warning,
    /// A bug in wsgate.
    Internal = 999: Error,
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

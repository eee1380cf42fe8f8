//! Files, environment variables, signals and exit codes that several man pages list.

/// A term and its explanation.
pub(super) type Term = (&'static str, &'static str);

/// The exit codes of every command.
pub(super) const EXIT_STATUS: &[Term] = &[
    ("0", "success; in CGI, a complete response was sent, even an error page"),
    ("1", "failure: what the command was asked for failed"),
    ("2", "usage error: the command line is wrong on every machine"),
    ("70", "internal error: a bug in wsgate"),
    ("78", "configuration error: a setting does not fit this machine or a file"),
    ("130", "interrupted (Ctrl-C)"),
];

pub(super) const APP_FILES: &[Term] = &[
    (
        ".venv, venv",
        "Beside the script or above it: a virtualenv that is used without --venv and --python.",
    ),
    ("../lib/wsgate/libwsgate_engine.so", "The engine, relative to the program wsgate."),
];

pub(super) const RELOAD_FILES: &[Term] = &[(
    "tmp/restart.txt",
    "Beside the script: a change of this file stops the warm pool of --mode warm or resident, and \
     the next request starts another.",
)];

pub(super) const WARM_FILES: &[Term] =
    &[("warm-*.sock, warm-*.log", "In the runtime directory: the socket and log of a warm pool.")];

pub(super) const RUNTIME_FILES: &[Term] = &[
    (
        "$XDG_RUNTIME_DIR/wsgate, /run/wsgate/user-UID, /tmp/wsgate-UID",
        "The runtime directory of a user, with the control sockets of pools: the first of these \
         that the user alone can enter.",
    ),
    ("/run/wsgate", "The directory where root makes runtime directories for pools with --user."),
];

pub(super) const INIT_FILES: &[Term] = &[
    ("DIR/app.wsgi", "The script that the web server runs."),
    ("DIR/.htaccess", "The rules of Apache for DIR."),
    ("~/wsgate-apps/NAME", "The sample, and the log of the script."),
];

pub(super) const APP_ENVIRONMENT: &[Term] = &[
    (
        "VIRTUAL_ENV",
        "The virtualenv that is used without --venv and --python, unless wsgate is installed in a \
         virtualenv.",
    ),
    ("PATH", "The directories in which python3 is looked up."),
    ("WSGATE_ENGINE", "The path of the engine."),
    ("WSGATE_RUNTIME_DIR", "The runtime directory: an absolute path, of mode 0700."),
    (
        "PYTHONPYCACHEPREFIX",
        "The directory of .pyc files. Without it wsgate chooses one where the user cannot write \
         beside the sources.",
    ),
];

pub(super) const POOL_ENVIRONMENT: &[Term] = &[
    (
        "WSGATE_RELOAD",
        "With 1, a worker on standard input without a supervisor exits when its code changes.",
    ),
    (
        "FCGI_WEB_SERVER_ADDRS",
        "Addresses of the web servers that may connect, separated by commas (FastCGI 1.0, 3.2).",
    ),
    ("LISTEN_FDS, LISTEN_PID, LISTEN_FDNAMES", "Sockets that systemd passes."),
    ("NOTIFY_SOCKET, WATCHDOG_USEC, WATCHDOG_PID", "How the pool reports its state to systemd."),
];

pub(super) const CLIENT_ENVIRONMENT: &[Term] = &[(
    "WSGATE_RUNTIME_DIR",
    "The runtime directory in which the pool has its control socket. Without it all runtime \
     directories of the user are searched; for root, those of all users.",
)];

pub(super) const REQUEST_SIGNALS: &[Term] = &[
    (
        "SIGTERM, SIGHUP",
        "Stop the request: an error page, or the end of the response that has begun. SIGTERM and \
         SIGABRT, then SIGKILL follow for an application that does not stop.",
    ),
    ("SIGINT", "The same, with exit code 130."),
];

pub(super) const POOL_SIGNALS: &[Term] = &[
    (
        "SIGTERM, SIGINT, SIGQUIT",
        "Stop gracefully: workers finish their requests, for up to --drain seconds. A second \
         signal stops the pool at once.",
    ),
    ("SIGHUP", "Reload: load the code again, and replace the workers."),
    (
        "SIGUSR2",
        "Upgrade: execute the installed program of wsgate in place of this one, and reload. A warm \
         pool only reloads.",
    ),
    ("SIGUSR1", "Reopen the access log and the error log."),
];

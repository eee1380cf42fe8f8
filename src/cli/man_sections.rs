//! The sections of man pages that do not follow from the structures of the command line.

use crate::cli::man_terms::{
    APP_ENVIRONMENT, APP_FILES, CLIENT_ENVIRONMENT, INIT_FILES, POOL_ENVIRONMENT, POOL_SIGNALS,
    RELOAD_FILES, REQUEST_SIGNALS, RUNTIME_FILES, Term, WARM_FILES,
};

/// The sections of one man page.
pub(super) struct Sections {
    /// Paragraphs.
    pub(super) description: &'static [&'static str],
    pub(super) files: &'static [&'static [Term]],
    pub(super) environment: &'static [&'static [Term]],
    pub(super) signals: &'static [Term],
    /// Sentences, each with command lines.
    pub(super) examples: &'static [(&'static str, &'static [&'static str])],
    pub(super) see_also: &'static str,
}

impl Sections {
    /// The sections of the page of the command `name`; without a name, of wsgate itself.
    pub(super) fn of(name: &str) -> Self {
        match name {
            "cgi" => CGI,
            "fastcgi" => FASTCGI,
            "serve" => SERVE,
            "status" => STATUS,
            "reload" => RELOAD,
            "stop" => STOP,
            "stacks" => STACKS,
            "top" => TOP,
            "monitor" => MONITOR,
            "call" => CALL,
            "check" => CHECK,
            "init" => INIT,
            _ => WSGATE,
        }
    }
}

const WSGATE: Sections = Sections {
    description: &[
        "wsgate runs Python WSGI applications (PEP 3333) behind any web server that speaks CGI or \
         FastCGI. The same program answers one request from a shell.",
        "A WSGI file with the first line #!/usr/local/bin/wsgate is a CGI script. The options on \
         that line are those of wsgate-cgi(1). A process manager of FastCGI may start the same \
         script with a listening socket on standard input.",
        "APP is path/to/file.wsgi[:callable], package.module[:callable], either with \
         :factory(arguments), or path/to/file.ini[#name] of PasteDeploy. Without a callable \
         wsgate uses `application`, then `app`.",
    ],
    files: &[APP_FILES, RELOAD_FILES],
    environment: &[APP_ENVIRONMENT],
    signals: REQUEST_SIGNALS,
    examples: &[
        (
            "Make a CGI script of a WSGI file:",
            &[
                "sed -i '1i #!/usr/local/bin/wsgate' app.wsgi",
                "install -m 755 app.wsgi /usr/lib/cgi-bin/",
            ],
        ),
        ("Send a request to the application from a shell:", &["wsgate call app.wsgi '/path?a=b'"]),
    ],
    see_also: "wsgate-cgi(1), wsgate-fastcgi(1), wsgate-call(1), wsgate-check(1), \
               wsgate-status(1), wsgate-reload(1), wsgate-stop(1)",
};

const CGI: Sections = Sections {
    description: &[
        "wsgate cgi answers one CGI request (RFC 3875): the variables of the request are the \
         environment, its body is standard input, and the response goes to standard output.",
        "The #! line of a script takes the same options, and --header-timeout, --socket-timeout, \
         --worker-connections, --reload-on, --reload and --slow of wsgate-fastcgi(1). Where \
         options or the script come from \
         the query string (RFC 3875, 4.4), wsgate ignores them.",
        "With --mode warm or --mode resident the first request starts a warm pool, which answers \
         the requests that follow. A request that the pool cannot answer starts a new interpreter.",
    ],
    files: &[APP_FILES, RELOAD_FILES, RUNTIME_FILES, WARM_FILES],
    environment: &[APP_ENVIRONMENT],
    signals: REQUEST_SIGNALS,
    examples: &[
        (
            "Have a warm pool answer the requests of a script, by its first line:",
            &["#!/usr/local/bin/wsgate --mode warm --venv /srv/app/venv"],
        ),
        (
            "Answer a request that the environment describes:",
            &["GATEWAY_INTERFACE=CGI/1.1 REQUEST_METHOD=GET wsgate cgi app.wsgi"],
        ),
    ],
    see_also: "wsgate(1), wsgate-call(1), wsgate-check(1), wsgate-fastcgi(1), wsgate-status(1)",
};

const FASTCGI: Sections = Sections {
    description: &[
        "wsgate fastcgi serves an application with a pool of worker processes that speak FastCGI \
         1.0. A supervisor owns the sockets, and starts, watches and replaces workers.",
        "Without --listen the pool serves the sockets that systemd passes, or else standard input, \
         as spawn-fcgi, lighttpd and mod_fcgid pass a socket. One worker on standard input needs \
         no supervisor: wsgate becomes the worker.",
        "If no worker can serve a request, the supervisor answers it with 503 Service Unavailable.",
    ],
    files: &[APP_FILES, RUNTIME_FILES],
    environment: &[APP_ENVIRONMENT, POOL_ENVIRONMENT],
    signals: POOL_SIGNALS,
    examples: &[
        (
            "Serve an application on a Unix socket for a web server:",
            &["wsgate fastcgi /srv/app/app.wsgi --listen unix:/run/app.sock --workers 4"],
        ),
        (
            "Start as root, serve as another user, and scale with the load:",
            &["wsgate fastcgi /srv/app/app.wsgi --listen unix:/run/app.sock --user app --max 16"],
        ),
    ],
    see_also: "wsgate(1), wsgate-status(1), wsgate-reload(1), wsgate-stop(1), systemd.socket(5)",
};

const SERVE: Sections = Sections {
    description: &[
        "wsgate serve is a web server for the development of one application. It speaks HTTP/1.1 \
         at http://127.0.0.1:8000/, and runs the application in a pool of wsgate-fastcgi(1), as \
         another web server would. It is not made for production: let a web server pass requests \
         to wsgate-fastcgi(1) there.",
        "When a module, a template or a file of --env-file changes, the application is loaded \
         again, and browsers reload its pages. A module that cannot be loaded is shown in the \
         browser until the next change.",
        "Each request is one line on standard error: method, path, status and duration.",
    ],
    files: &[
        APP_FILES,
        &[("../lib/wsgate/wsgate-http", "The program that speaks HTTP, relative to wsgate.")],
    ],
    environment: &[
        APP_ENVIRONMENT,
        &[
            ("WSGATE_HTTP", "The path of wsgate-http."),
            ("NO_COLOR", "If set and not empty, lines have no colours."),
            ("TMPDIR", "The directory of the socket between server and pool."),
        ],
    ],
    signals: &[("SIGINT, SIGTERM", "Stop the server and its pool at once.")],
    examples: &[
        ("Serve an application at http://127.0.0.1:8000/:", &["wsgate serve app.py"]),
        ("Serve the application of a factory in a package:", &["wsgate serve 'shop.web:create()'"]),
    ],
    see_also: "wsgate(1), wsgate-fastcgi(1), wsgate-call(1), wsgate-check(1)",
};

const STATUS: Sections = Sections {
    description: &[
        "wsgate status asks the supervisor of each pool for its status, and prints a line for the \
         pool and one for each worker. A supervisor answers while all its workers are busy.",
    ],
    files: &[RUNTIME_FILES],
    environment: &[CLIENT_ENVIRONMENT],
    signals: &[("SIGINT, SIGTERM", "End the command; the pools go on.")],
    examples: &[
        ("Show all pools of this user, or of all users for root:", &["wsgate status"]),
        ("Print the status of one pool for another program:", &["wsgate status --json app"]),
    ],
    see_also: "wsgate(1), wsgate-fastcgi(1), wsgate-reload(1), wsgate-stop(1), wsgate-stacks(1)",
};

const RELOAD: Sections = Sections {
    description: &[
        "wsgate reload has a pool load its code again. The pool goes on with the present code \
         until the new code is loaded, and no request fails. The command waits for that, and fails \
         if the new code cannot be loaded.",
    ],
    files: &[RUNTIME_FILES],
    environment: &[CLIENT_ENVIRONMENT],
    signals: &[("SIGINT, SIGTERM", "End the command; the reload goes on.")],
    examples: &[("Deploy a new version:", &["git pull && wsgate reload app"])],
    see_also: "wsgate(1), wsgate-fastcgi(1), wsgate-status(1), wsgate-stop(1)",
};

const STOP: Sections = Sections {
    description: &[
        "wsgate stop has a pool finish its requests and exit, as SIGTERM does, and waits until the \
         pool has exited.",
    ],
    files: &[RUNTIME_FILES],
    environment: &[CLIENT_ENVIRONMENT],
    signals: &[("SIGINT, SIGTERM", "End the command; the pool stops all the same.")],
    examples: &[("Stop a pool:", &["wsgate stop app"])],
    see_also: "wsgate(1), wsgate-fastcgi(1), wsgate-reload(1), wsgate-status(1)",
};

const STACKS: Sections = Sections {
    description: &[
        "wsgate stacks prints the Python stack of each thread of a pool's processes, the most \
         recent call first, with the request that the thread serves. The processes go on running: \
         no debugger and no privilege is needed beyond those of the pool's user.",
        "A process answers while it runs Python, waits for a lock or sleeps in C code. A process \
         that does not answer within 2 seconds makes the command fail.",
    ],
    files: &[RUNTIME_FILES],
    environment: &[CLIENT_ENVIRONMENT],
    signals: &[("SIGINT, SIGTERM", "End the command.")],
    examples: &[
        ("Find out what all workers are doing:", &["wsgate stacks app"]),
        ("Show one process, for programs:", &["wsgate stacks app 4711 --json"]),
    ],
    see_also: "wsgate(1), wsgate-fastcgi(1), wsgate-status(1)",
};

const TOP: Sections = Sections {
    description: &[
        "wsgate top shows the threads of all workers of this user's pools, for root of all pools, \
         the longest request first, and refreshes them each second. Keys change the order (t time, \
         r requests, c processor time, m memory, p pid); arrows select a worker, and Enter shows \
         its Python stacks.",
        "If standard output is no terminal, the command prints the table once, or COUNT times.",
    ],
    files: &[RUNTIME_FILES],
    environment: &[
        CLIENT_ENVIRONMENT,
        &[("TERM", "For `dumb`, or without it, the command prints the table as text.")],
    ],
    signals: &[
        ("SIGINT, SIGTERM, SIGHUP, SIGQUIT", "Restore the terminal, and end the command."),
        ("SIGWINCH", "Draw the table again in the new size."),
    ],
    examples: &[
        ("Watch all pools:", &["wsgate top"]),
        ("Record a pool for an hour:", &["wsgate top app -n 360 --interval 10 >top.log"]),
    ],
    see_also: "wsgate(1), wsgate-status(1), wsgate-stacks(1)",
};

const MONITOR: Sections = Sections {
    description: &[
        "wsgate monitor answers HTTP: a status page for people at /, metrics in the formats \
         OpenMetrics and Prometheus at /metrics, the status of all pools as JSON at /pools.json, \
         and /healthz and /readyz?pool=NAME for health checks. The monitor shows the pools that \
         wsgate status shows to the same user; for root, those of all users. It only reads.",
        "Clients of a TCP address need no token if the address is loopback. For other addresses \
         set --token-file.",
    ],
    files: &[
        &[("../lib/wsgate/wsgate-http", "The program that speaks HTTP, relative to wsgate.")],
        RUNTIME_FILES,
    ],
    environment: &[
        CLIENT_ENVIRONMENT,
        &[("WSGATE_HTTP", "The path of wsgate-http.")],
        &[("LISTEN_FDS, LISTEN_PID, LISTEN_FDNAMES", "Sockets that systemd passes.")],
    ],
    signals: &[("SIGINT, SIGTERM", "Stop the monitor; the pools go on.")],
    examples: &[
        ("Show all pools of this user at http://127.0.0.1:9180/:", &["wsgate monitor"]),
        (
            "Let Prometheus on another machine read the metrics:",
            &["wsgate monitor --listen 0.0.0.0:9180 --token-file /etc/wsgate/monitor.token"],
        ),
    ],
    see_also: "wsgate(1), wsgate-status(1), wsgate-fastcgi(1)",
};

const CALL: Sections = Sections {
    description: &[
        "wsgate call makes one request as a web server would, has the application answer it, and \
         prints the response body. The options have the names of curl(1). Log messages go to \
         standard error.",
        "The command fails if the response has a status of 400 or above.",
        "With --via the request goes to a FastCGI server that is already running.",
    ],
    files: &[APP_FILES],
    environment: &[APP_ENVIRONMENT],
    signals: REQUEST_SIGNALS,
    examples: &[
        ("Send a GET request:", &["wsgate call app.wsgi '/path?a=b'"]),
        (
            "Send a form, and print the response headers:",
            &["wsgate call -i -d name=value app.wsgi /form"],
        ),
        ("Ask a pool that is running:", &["wsgate call --via unix:/run/app.sock /path"]),
    ],
    see_also: "wsgate(1), wsgate-check(1), wsgate-cgi(1), curl(1)",
};

const INIT: Sections = Sections {
    description: &[
        "wsgate init writes what a web server with .htaccess needs to serve an application from \
         DIR: the script app.wsgi, which starts this very wsgate, and .htaccess, which passes all \
         URLs below DIR to the script and keeps clients from everything else.",
        "Applications are recognised by their files: Flask, Django (manage.py), wsgi.py, \
         passenger_wsgi.py, and files of PasteDeploy. Without an application, a sample is written \
         outside of DIR.",
        "If DIR is a script that starts wsgate, such as ~/public_html/shop.cgi, only the .htaccess \
         for that script is written.",
        "wsgate init never changes a file that exists. It writes all files, or none. For files of \
         an earlier run, the message has the command that replaces them.",
    ],
    files: &[INIT_FILES],
    environment: &[&[("HOME", "The home directory of the user.")]],
    signals: &[("SIGINT, SIGTERM", "End the command.")],
    examples: &[
        ("Serve the application that is found, or a sample:", &["wsgate init ~/public_html"]),
        (
            "Show what would be written for an application of your own:",
            &["wsgate init --dry-run --app ~/shop/wsgi.py ~/public_html"],
        ),
    ],
    see_also: "wsgate(1), wsgate-check(1), wsgate-cgi(1)",
};

const CHECK: Sections = Sections {
    description: &[
        "wsgate check loads an application, sends it one request under wsgiref.validate, and \
         prints what was found: interpreter, virtualenv, sys.path, whether the application may be \
         forked, and which files the user of the web server cannot read. Each problem is a line, \
         and makes the command fail.",
    ],
    files: &[APP_FILES],
    environment: &[APP_ENVIRONMENT],
    signals: REQUEST_SIGNALS,
    examples: &[
        ("Check an application before it is deployed:", &["wsgate check app.wsgi"]),
        ("Check that it is fit for a warm pool:", &["wsgate check --mode warm app.wsgi"]),
    ],
    see_also: "wsgate(1), wsgate-call(1), wsgate-cgi(1), wsgate-fastcgi(1)",
};

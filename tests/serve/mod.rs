//! `wsgate serve`: the development server, with curl, raw connections and Chromium.

mod connections;
mod lifecycle;
mod programs;
mod reloading;
mod requests;
mod static_files;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::{
    artefacts,
    child_process::{ExitedProcess, RunningProcess},
    probe::dedent,
    waiting::{DEADLINE, exits_within},
    web_servers::{HttpClient, HttpResponse, venv},
};

/// A development server that a test has started, and the directory of its application.
struct Serve {
    running: RunningProcess,
    directory: TempDir,
    /// `HOST:PORT`.
    address: String,
}

/// The command of a server for `app.py` in `directory`.
fn command(directory: &TempDir, args: &[&str]) -> Command {
    let mut command = bare_command(directory, args);
    command.arg("app.py").arg("--venv").arg(venv());
    command
}

/// The command of a server without an application, started in `directory`.
fn bare_command(directory: &TempDir, args: &[&str]) -> Command {
    let mut command = Command::new(artefacts::gateway());
    command.arg("serve").args(args).current_dir(directory).env_clear();
    command.env("PATH", "/usr/bin:/bin").env("TMPDIR", directory.path().join("tmp"));
    command.env("WSGATE_RUNTIME_DIR", directory.path().join("run"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A directory with the application in `code`.
fn directory_with(code: &str) -> TempDir {
    let directory = TempDir::new().unwrap();
    fs::create_dir(directory.path().join("tmp")).unwrap();
    fs::write(directory.path().join("app.py"), dedent(code)).unwrap();
    directory
}

impl Serve {
    /// A server for the application in `code`, at a free port.
    #[track_caller]
    fn start(code: &str, args: &[&str]) -> Self {
        Self::start_in(directory_with(code), args)
    }

    /// A server for `app.py` in `directory`, at a free port.
    #[track_caller]
    fn start_in(directory: TempDir, args: &[&str]) -> Self {
        let args = [&["--port", "0"], args].concat();
        let mut started = match args.contains(&"--cgi") {
            true => bare_command(&directory, &args),
            false => command(&directory, &args),
        };
        let mut running = RunningProcess::start(&mut started);
        running.await_log("W0770");
        running.await_log("request: ");
        let log = running.log();
        let (_, address) = log.split_once("http://").unwrap();
        let address = address.split('/').next().unwrap().to_owned();
        Self { running, directory, address }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn get(&self, path: &str) -> HttpResponse {
        HttpClient::get(self.url(path)).run()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file of the application as editors do.
    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), dedent(text)).unwrap();
    }

    /// A connection on which `bytes` were sent.
    fn connect(&self, bytes: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.write_all(bytes).unwrap();
        stream
    }

    /// All that the server sends for `bytes` until it closes the connection.
    fn exchange(&self, bytes: &[u8]) -> String {
        let mut text = Vec::new();
        // A server that refuses the rest of a request may reset the connection.
        let _ = self.connect(bytes).read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Interrupts the server as Ctrl-C does, and waits for all its processes.
    #[track_caller]
    fn stop(self) -> ExitedProcess {
        let pid = self.running.pid();
        let start = Instant::now();
        self.running.signal(Signal::INT);
        assert!(exits_within(pid.as_raw_nonzero().get(), Duration::from_secs(10)), "it goes on");
        let time = start.elapsed();
        // Everything that holds its standard error has exited, too.
        let ended = self.running.end();
        assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
        assert!(time < Duration::from_secs(1), "{time:?}");
        ended
    }
}

/// Responds with its environ as JSON, and the length of the request body.
const ENVIRON: &str = "
    import json
    def app(environ, start_response):
        found = {name: value for name, value in environ.items() if isinstance(value, str)}
        body = environ['wsgi.input']
        found['length'] = sum(len(block) for block in iter(lambda: body.read(65536), b''))
        start_response('200 OK', [('Content-Type', 'application/json')])
        return [json.dumps(found).encode()]
    ";

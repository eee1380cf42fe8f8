//! A CGI request to the application of a test, served by the built binary or by
//! `wsgiref.handlers.CGIHandler`.

use std::{
    fs::{
        File, {self},
    },
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    thread::{
        JoinHandle, {self},
    },
};

use tempfile::TempDir;

use crate::support::{artefacts, assertions::first_line, child_process};

/// The interpreter that tests use unless they are about interpreters.
pub(crate) fn python() -> PathBuf {
    std::env::var_os("WSGATE_TEST_PYTHON")
        .map_or_else(|| PathBuf::from("/usr/bin/python3"), PathBuf::from)
}

/// Variables of an ordinary request.
pub(crate) const ORDINARY: [(&str, &str); 13] = [
    ("GATEWAY_INTERFACE", "CGI/1.1"),
    ("SERVER_SOFTWARE", "test"),
    ("SERVER_NAME", "example.org"),
    ("SERVER_PORT", "80"),
    ("SERVER_PROTOCOL", "HTTP/1.1"),
    ("REQUEST_METHOD", "GET"),
    ("SCRIPT_NAME", "/cgi-bin/app.wsgi"),
    // A program of the deployer's that starts `wsgate cgi`, whose arguments are his then.
    ("SCRIPT_FILENAME", "/bin/sh"),
    ("PATH_INFO", ""),
    ("QUERY_STRING", ""),
    ("REMOTE_ADDR", "192.0.2.1"),
    ("HTTP_HOST", "example.org"),
    ("PATH", "/usr/local/bin:/usr/bin:/bin"),
];

/// The implementation that serves a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Implementation {
    /// The built binary.
    Wsgate,
    /// The reference implementation of the PEP, as an oracle.
    Reference,
}

/// A request in the making.
pub(crate) struct Probe {
    directory: TempDir,
    options: Vec<String>,
    variables: Vec<(String, Vec<u8>)>,
    removed: Vec<String>,
    body: Vec<u8>,
    python: PathBuf,
}

/// The response of a CGI program, with its log and exit status.
#[derive(Debug)]
pub(crate) struct CgiResponse {
    /// The status line without `Status: `, `200 OK` if there is none.
    pub(crate) status: String,
    /// Header fields in their order.
    pub(crate) headers: Vec<(String, String)>,
    /// Everything behind the head.
    pub(crate) body: Vec<u8>,
    /// All of standard output.
    pub(crate) raw: Vec<u8>,
    /// The content of the error log.
    pub(crate) log: String,
    /// How the process ended.
    pub(crate) exit: ExitStatus,
}

impl Probe {
    /// A `GET /cgi-bin/app.wsgi` to the application in `code`, which need not be indented to the
    /// left.
    pub(crate) fn new(code: &str) -> Self {
        let directory = TempDir::new().unwrap();
        fs::write(directory.path().join("app.wsgi"), dedent(code)).unwrap();
        let probe = Self {
            directory,
            options: Vec::new(),
            variables: Vec::new(),
            removed: Vec::new(),
            body: Vec::new(),
            python: python(),
        };
        ORDINARY.into_iter().fold(probe, |probe, (name, value)| probe.variable(name, value))
    }

    /// Sets a variable of the request.
    pub(crate) fn variable(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.variables.retain(|(known, _)| known != name);
        self.variables.push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    /// Leaves a variable out.
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.variables.retain(|(known, _)| known != name);
        self.removed.push(name.to_owned());
        self
    }

    /// Makes it a `POST` with this body.
    pub(crate) fn post(self, body: impl AsRef<[u8]>) -> Self {
        let body = body.as_ref().to_vec();
        let probe = self
            .variable("REQUEST_METHOD", "POST")
            .variable("CONTENT_LENGTH", body.len().to_string());
        probe.stdin(body)
    }

    /// Sets standard input and leaves the variables unchanged.
    pub(crate) fn stdin(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = body.as_ref().to_vec();
        self
    }

    /// Options for `wsgate cgi`.
    pub(crate) fn options(mut self, options: &[&str]) -> Self {
        self.options.extend(options.iter().map(|&option| option.to_owned()));
        self
    }

    /// Runs it with another interpreter.
    pub(crate) fn python(mut self, python: impl Into<PathBuf>) -> Self {
        self.python = python.into();
        self
    }

    /// The directory that the application stands in.
    pub(crate) fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }

    /// Asks the built binary.
    pub(crate) fn run(&self) -> CgiResponse {
        self.run_on(Implementation::Wsgate)
    }

    /// Asks the built binary, and the reference as well: `assert` must hold for both.
    #[expect(clippy::print_stdout, reason = "shown only if an assertion fails")]
    pub(crate) fn both(&self, assert: impl Fn(&CgiResponse)) {
        for server in [Implementation::Wsgate, Implementation::Reference] {
            let response = self.run_on(server);
            println!("{server:?}: {response:?}");
            assert(&response);
        }
    }

    /// Asks `server`.
    pub(crate) fn run_on(&self, server: Implementation) -> CgiResponse {
        let ended = child_process::run(&mut self.command(server), self.body.clone());
        CgiResponse::parse(ended.stdout, ended.stderr, ended.status)
    }

    /// Starts the built binary; the test talks to it by itself.
    pub(crate) fn start(&self) -> Child {
        self.command(Implementation::Wsgate)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// The command that would be run, without its standard streams.
    pub(crate) fn command(&self, server: Implementation) -> Command {
        let app = self.directory.path().join("app.wsgi");
        let mut command = match server {
            Implementation::Wsgate => {
                let mut command = Command::new(artefacts::gateway());
                command.arg("cgi").arg("--python").arg(&self.python).args(&self.options).arg(app);
                command
            }
            Implementation::Reference => {
                let mut command = Command::new(&self.python);
                command.args([
                    "-c",
                    "import sys, wsgiref.handlers\n\
                     space = {'__name__': 'app'}\n\
                     exec(compile(open(sys.argv[1]).read(), sys.argv[1], 'exec'), space)\n\
                     wsgiref.handlers.CGIHandler().run(space['application'])",
                ]);
                command.arg(app);
                command
            }
        };
        command.env_clear().current_dir(self.directory.path());
        for (name, value) in &self.variables {
            command.env(
                name,
                std::os::unix::ffi::OsStrExt::from_bytes(value.as_slice()) as &std::ffi::OsStr,
            );
        }
        command
    }
}

impl CgiResponse {
    pub(crate) fn parse(raw: Vec<u8>, log: String, exit: ExitStatus) -> Self {
        let end = raw.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or(raw.len());
        let body = raw.get(end + 4..).unwrap_or_default().to_vec();
        let mut status = "200 OK".to_owned();
        let mut headers = Vec::new();
        // A head is latin-1.
        let head: String = raw[..end].iter().map(|&byte| char::from(byte)).collect();
        for line in head.split("\r\n").filter(|line| !line.is_empty()) {
            let (name, value) =
                line.split_once(": ").unwrap_or_else(|| panic!("no header: {line:?} in {raw:?}"));
            if name == "Status" {
                value.clone_into(&mut status);
            } else {
                headers.push((name.to_owned(), value.to_owned()));
            }
        }
        Self { status, headers, body, raw, log, exit }
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The first header of that name, in whatever case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// Codes of the log messages in the log, in their order.
    pub(crate) fn codes(&self) -> Vec<&str> {
        self.log
            .lines()
            .filter_map(|line| {
                let text = first_line(line)?;
                text.strip_prefix("error[").or_else(|| text.strip_prefix("warning["))
            })
            .filter_map(|rest| rest.get(..5))
            .collect()
    }
}

/// Reads a stream to its end, beside everything else.
pub(crate) fn collect(mut stream: impl std::io::Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        bytes
    })
}

/// Takes the common indentation away.
pub(crate) fn dedent(code: &str) -> String {
    let depth = code
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| line.len() - line.trim_start().len())
        .min();
    code.lines()
        .map(|line| line.get(depth.unwrap_or(0)..).unwrap_or(""))
        .collect::<Vec<_>>()
        .join("\n")
}

/// An open `/dev/full`, on which every write fails.
pub(crate) fn full_disk() -> File {
    File::options().write(true).open("/dev/full").unwrap()
}

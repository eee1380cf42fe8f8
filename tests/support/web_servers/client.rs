//! curl, as the browser.

use std::{
    ffi::OsString,
    fmt, fs,
    io::Read as _,
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    time::Duration,
};

use crate::support::waiting::DEADLINE;

/// A request that is being put together.
pub(crate) struct HttpClient {
    arguments: Vec<OsString>,
}

/// The response, as curl received it.
pub(crate) struct HttpResponse {
    /// Status code; 0 if there was none.
    pub(crate) status: u16,
    /// Names in lower case, and values, in the order they came.
    pub(crate) headers: Vec<(String, String)>,
    /// The body as far as it came.
    pub(crate) body: Vec<u8>,
    /// curl's own exit code: 0 is a whole response.
    pub(crate) exit: i32,
}

impl HttpClient {
    /// A `GET` of `url`.
    pub(crate) fn get(url: impl AsRef<str>) -> Self {
        // The address goes out as it is written here, and no proxy of this machine is asked.
        let client =
            Self { arguments: Vec::new() }.arg("--silent").arg("--show-error").arg("--globoff");
        let client = client.arg("--path-as-is").arg("--noproxy").arg("*");
        client.arg("--max-time").arg(DEADLINE.as_secs().to_string()).arg("--url").arg(url.as_ref())
    }

    /// A `HEAD` of `url`.
    pub(crate) fn head(url: impl AsRef<str>) -> Self {
        Self::get(url).arg("--head")
    }

    /// A `POST` of `body` as a form.
    pub(crate) fn post(url: impl AsRef<str>, body: &str) -> Self {
        Self::get(url).arg("--data-raw").arg(body)
    }

    /// A request with a method of its own, and `body` if that is not empty.
    pub(crate) fn request(method: &str, url: impl AsRef<str>, body: &str) -> Self {
        let client = Self::get(url).arg("--request").arg(method);
        if body.is_empty() { client } else { client.arg("--data-binary").arg(body) }
    }

    /// A `PUT` of the file.
    pub(crate) fn put_file(url: impl AsRef<str>, file: &Path) -> Self {
        Self::get(url).arg("--upload-file").arg(file)
    }

    /// A `POST` of the file as a form of parts.
    pub(crate) fn post_multipart(url: impl AsRef<str>, field: &str, file: &Path) -> Self {
        Self::get(url).arg("--form").arg(format!("{field}=@{}", file.display()))
    }

    /// A `POST` of the file's bytes.
    pub(crate) fn post_file(url: impl AsRef<str>, file: &Path) -> Self {
        Self::get(url).arg("--data-binary").arg(format!("@{}", file.display()))
    }

    /// Adds a header.
    pub(crate) fn header(self, name: &str, value: &str) -> Self {
        self.arg("--header").arg(format!("{name}: {value}"))
    }

    /// Adds parameters to the query, which curl encodes.
    pub(crate) fn data(self, pair: &str) -> Self {
        self.arg("--get").arg("--data-urlencode").arg(pair)
    }

    /// Connects from an address of this machine.
    pub(crate) fn source_address(self, address: &str) -> Self {
        self.arg("--interface").arg(address)
    }

    /// No longer than for so long.
    pub(crate) fn within(self, time: Duration) -> Self {
        self.arg("--max-time").arg(time.as_secs_f64().to_string())
    }

    /// User and password, sent at once (RFC 7617).
    pub(crate) fn auth(self, user: &str, password: &str) -> Self {
        self.arg("--user").arg(format!("{user}:{password}"))
    }

    /// Cookies are read from this file, and kept in it.
    pub(crate) fn cookies(self, jar: &Path) -> Self {
        self.arg("--cookie").arg(jar).arg("--cookie-jar").arg(jar)
    }

    fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    fn command(&self) -> Command {
        let mut command = Command::new("curl");
        // Nobody's .curlrc may change what is asked.
        command.arg("--disable").args(&self.arguments).stdin(Stdio::null());
        command
    }

    /// Sends it and waits for the end.
    pub(crate) fn run(self) -> HttpResponse {
        let scratch = tempfile::tempdir().unwrap();
        let body = scratch.path().join("body");
        let mut response = self.save(&body);
        // curl creates no file for an empty body.
        response.body = fs::read(body).unwrap_or_default();
        response
    }

    /// Like [`run`](Self::run), with the body in a file.
    pub(crate) fn save(self, body: &Path) -> HttpResponse {
        let scratch = tempfile::tempdir().unwrap();
        let head = scratch.path().join("head");
        let is_head = self.arguments.iter().any(|argument| argument == "--head");
        let mut command = self.command();
        command.arg("--dump-header").arg(&head);
        // Of a HEAD curl shows the head in place of the body.
        command.arg("--output").arg(if is_head { Path::new("/dev/null") } else { body });
        let output = command.stderr(Stdio::piped()).output().expect("curl: run tests/setup.sh");
        let head = fs::read(head).unwrap_or_default();
        HttpResponse::from_head(&String::from_utf8_lossy(&head), output.status.code().unwrap_or(-1))
    }

    /// Sends it and reads the body as it comes.
    pub(crate) fn stream(self) -> ResponseStream {
        let mut child = self
            .command()
            .arg("--no-buffer")
            .stdout(Stdio::piped())
            .spawn()
            .expect("curl: run tests/setup.sh");
        let mut pipe = child.stdout.take().unwrap();
        let (sender, blocks) = channel();
        std::thread::spawn(move || {
            let mut block = [0; 65536];
            while let Ok(length @ 1..) = pipe.read(&mut block) {
                if sender.send(block[..length].to_vec()).is_err() {
                    break;
                }
            }
        });
        ResponseStream { child, blocks, read: Vec::new() }
    }
}

impl HttpResponse {
    fn from_head(text: &str, exit: i32) -> Self {
        // Interim responses (100) stand before the one that counts.
        let head = text.trim_end().rsplit("\r\n\r\n").next().unwrap_or_default();
        let mut lines = head.lines();
        let status =
            lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).unwrap_or(0);
        let headers = lines.filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_ascii_lowercase(), value.trim().to_owned()))
        });
        Self { status, headers: headers.collect(), body: Vec::new(), exit }
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// All values of a header, in order.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.headers
            .iter()
            .filter(|(header, _)| header == name)
            .map(|(_, value)| value.as_str())
            .collect()
    }

    /// The value of a header that came once.
    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> &str {
        let values = self.all(name);
        assert_eq!(values.len(), 1, "`{name}` once: {self:?}");
        values[0]
    }

    /// Fails unless the response is whole and has this status.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!((self.status, self.exit), (status, 0), "{self:?}");
        self
    }
}

impl fmt::Debug for HttpResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "status {}, curl's exit code {}", self.status, self.exit)?;
        for (name, value) in &self.headers {
            writeln!(f, "{name}: {value}")?;
        }
        let body = self.text();
        write!(f, "\n{:.2000}", body)
    }
}

/// A response that is still coming.
pub(crate) struct ResponseStream {
    child: Child,
    blocks: Receiver<Vec<u8>>,
    read: Vec<u8>,
}

impl ResponseStream {
    /// Reads until `text` has come, and gives all that has come by then.
    #[track_caller]
    pub(crate) fn read_until(&mut self, text: &str) -> String {
        while !self.read.windows(text.len()).any(|window| window == text.as_bytes()) {
            let block = self.blocks.recv_timeout(DEADLINE);
            let block =
                block.unwrap_or_else(|error| panic!("no `{text}`: {error}: {}", self.text()));
            self.read.extend(block);
        }
        self.text()
    }

    /// Reads to the end; was the response whole?
    pub(crate) fn finish(mut self) -> (String, bool) {
        while let Ok(block) = self.blocks.recv_timeout(DEADLINE) {
            self.read.extend(block);
        }
        let whole = self.child.wait().unwrap().success();
        (self.text(), whole)
    }

    /// The client goes away.
    pub(crate) fn abort(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.read).into_owned()
    }
}

impl Drop for ResponseStream {
    fn drop(&mut self) {
        // Both calls fail after `finish` and `abort`, which have waited for the process.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

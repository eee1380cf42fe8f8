//! Prints a CGI response as a web server sends it: the headers parsed, the body unchanged.

use std::{
    fmt,
    fs::File,
    io::{
        BufRead, BufReader, Read, Write, {self},
    },
    path::{Path, PathBuf},
    time::Instant,
};

use flate2::bufread::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};

/// Maximum size of response headers in bytes.
const MAX_HEADER_BYTES: u64 = 1 << 20;

/// The result of printing a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Printed {
    /// A response with this status.
    Response {
        /// Three digits; 200 if the response has none.
        status: u16,
    },
    /// The response headers are invalid or incomplete. Nothing was printed.
    NotAResponse(Vec<u8>),
    /// The reader has closed standard output.
    OutputClosed,
}

/// The headers of a response.
#[derive(Clone, Debug, Default)]
pub(super) struct ResponseHead {
    /// Status and reason.
    pub(super) status: String,
    /// Names and values.
    pub(super) fields: Vec<(String, String)>,
    /// The bytes of all headers, each line with CR and LF.
    lines: Vec<u8>,
}

impl ResponseHead {
    /// Reads the headers.
    ///
    /// # Errors
    /// The bytes that are no headers.
    fn read(response: &mut impl BufRead) -> io::Result<Result<Self, Vec<u8>>> {
        let mut status = None;
        let mut head = Self::default();
        let mut headers = Vec::new();
        let mut source = response.by_ref().take(MAX_HEADER_BYTES);
        loop {
            let begin = headers.len();
            source.read_until(b'\n', &mut headers)?;
            let line = &headers[begin..];
            if !line.ends_with(b"\n") {
                return Ok(Err(headers));
            }
            let line = line.trim_ascii_end();
            if line.is_empty() {
                break;
            }
            let Some(colon) = line.iter().position(|&byte| byte == b':').filter(|at| *at > 0)
            else {
                return Ok(Err(headers));
            };
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes.trim_ascii()).into_owned();
            let (name, value) = (text(&line[..colon]), text(&line[colon + 1..]));
            if name.eq_ignore_ascii_case("Status") {
                status = Some(value);
                continue;
            }
            if name.eq_ignore_ascii_case("Location") {
                // A redirect may leave out the status (RFC 3875 6.2.3).
                status.get_or_insert_with(|| "302 Found".to_owned());
            }
            head.lines.extend([line, b"\r\n"].concat());
            head.fields.push((name, value));
        }
        head.status = status.unwrap_or_else(|| "200 OK".to_owned());
        Ok(Ok(head))
    }

    /// Three digits; 500 if the status has none.
    pub(super) fn code(&self) -> u16 {
        let code = self.status.get(..3).and_then(|code| code.parse().ok());
        code.filter(|code| *code >= 100).unwrap_or(500)
    }

    /// The first value of the header `name`.
    pub(super) fn field(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// The headers as HTTP writes them.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        [b"HTTP/1.1 ", self.status.as_bytes(), b"\r\n", &self.lines, b"\r\n"].concat()
    }
}

/// Where the responses of a command go, and what is counted about the last one.
pub(super) struct Output {
    /// Print the headers.
    pub(super) includes_head: bool,
    /// Print no body of a status of 400 or more.
    pub(super) omits_failures: bool,
    /// Decompress the body.
    pub(super) decompresses: bool,
    /// The file that the responses are written to; otherwise standard output.
    pub(super) path: Option<PathBuf>,
    /// The open file.
    pub(super) file: Option<File>,
    /// The headers of the last response.
    pub(super) head: ResponseHead,
    /// When they came.
    pub(super) head_at: Option<Instant>,
    /// The bytes of all response headers.
    pub(super) head_bytes: u64,
    /// The bytes of the last body.
    pub(super) body_bytes: u64,
    /// The encoding of a body that is printed as it came.
    pub(super) unknown_encoding: Option<String>,
}

impl Output {
    /// Prints the response that `response` reads. Its body is not printed if there is none
    /// (`is_head`), or if `is_followed` says that another request follows.
    ///
    /// # Errors
    /// If the response cannot be read or written.
    pub(super) fn print(
        &mut self,
        mut response: impl BufRead,
        is_head: bool,
        is_followed: impl FnOnce(&ResponseHead) -> bool,
    ) -> io::Result<Printed> {
        let head = match ResponseHead::read(&mut response)? {
            Ok(head) => head,
            Err(bytes) => return Ok(Printed::NotAResponse(bytes)),
        };
        let status = head.code();
        let bytes = head.to_bytes();
        self.head_at = Some(Instant::now());
        self.head_bytes += bytes.len() as u64;
        let is_followed = is_followed(&head);
        let has_body = !(is_head || is_followed || self.omits_failures && status >= 400);
        self.head = head;
        let printed = self.print_parts(&bytes, response, has_body);
        match printed {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Printed::OutputClosed),
            Err(error) => Err(error),
            Ok(body_bytes) => {
                self.body_bytes = body_bytes;
                Ok(Printed::Response { status })
            }
        }
    }

    /// Prints headers and body as the options say; returns the size of the body.
    fn print_parts(
        &mut self,
        head: &[u8],
        response: impl BufRead,
        has_body: bool,
    ) -> io::Result<u64> {
        let has_output = self.includes_head || has_body;
        if let (Some(path), None, true) = (&self.path, &self.file, has_output) {
            // A file that exists is left as it is for a response without output, as by curl.
            self.file = Some(File::create(path).map_err(|error| unwritable(path, error))?);
        }
        let stdout = io::stdout();
        let mut sink: Box<dyn Write> = match (&self.path, &self.file) {
            (Some(path), Some(file)) => Box::new(NamedFile { path, file }),
            _ => Box::new(stdout.lock()),
        };
        if self.includes_head {
            sink.write_all(head)?;
        }
        let mut body_bytes = 0;
        if has_body {
            let encoding = self.head.field("Content-Encoding").unwrap_or_default();
            let encoding =
                if self.decompresses { encoding.to_ascii_lowercase() } else { String::new() };
            body_bytes = match encoding.trim() {
                "gzip" | "x-gzip" => pass_on(decoded(MultiGzDecoder::new(response)), &mut sink)?,
                "deflate" => pass_on(inflated(response)?, &mut sink)?,
                "" | "identity" => pass_on(response, &mut sink)?,
                unknown => {
                    self.unknown_encoding = Some(unknown.to_owned());
                    pass_on(response, &mut sink)?
                }
            };
        }
        sink.flush()?;
        Ok(body_bytes)
    }
}

/// The file of `-o`, which errors name.
struct NamedFile<'a> {
    path: &'a Path,
    file: &'a File,
}

impl Write for NamedFile<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes).map_err(|error| unwritable(self.path, error))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush().map_err(|error| unwritable(self.path, error))
    }
}

/// The cause of an error about the file of `-o`.
#[derive(Debug)]
pub(super) struct UnwritableOutput(String);

impl fmt::Display for UnwritableOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UnwritableOutput {}

/// `error` with the path of the file of `-o`.
fn unwritable(path: &Path, error: io::Error) -> io::Error {
    // A write that a signal has interrupted is tried again.
    if error.kind() == io::ErrorKind::Interrupted {
        return error;
    }
    let cause = format!("`{}` cannot be written: {error}", path.display());
    io::Error::new(error.kind(), UnwritableOutput(cause))
}

/// The decompressed bytes of `deflate`: with the header of zlib (RFC 9110 8.4.1.2), or without, as
/// some servers send them.
fn inflated<'a>(mut response: impl BufRead + 'a) -> io::Result<Box<dyn BufRead + 'a>> {
    let has_header = response.fill_buf()?.first().is_none_or(|first| first & 0x0f == 8);
    Ok(if has_header {
        Box::new(decoded(ZlibDecoder::new(response)))
    } else {
        Box::new(decoded(DeflateDecoder::new(response)))
    })
}

fn decoded(decoder: impl Read) -> impl BufRead {
    BufReader::new(decoder)
}

/// Passes on each piece at once, so that a streamed response is visible while it is sent. Returns
/// the number of bytes.
fn pass_on(mut from: impl BufRead, to: &mut impl Write) -> io::Result<u64> {
    // Headers without a body are visible at once, too.
    to.flush()?;
    let mut count = 0;
    loop {
        let piece = match from.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            piece => piece?,
        };
        if piece.is_empty() {
            return Ok(count);
        }
        let length = piece.len();
        to.write_all(piece)?;
        to.flush()?;
        count += length as u64;
        from.consume(length);
    }
}

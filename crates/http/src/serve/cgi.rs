//! `--cgi`: the programs of a directory, each started for its request (RFC 3875).

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::{
        ffi::{OsStrExt as _, OsStringExt as _},
        fs::PermissionsExt as _,
    },
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use diagnostics::message::{Code, LogMessage};
use http_body_util::BodyExt as _;
use hyper::{
    Response, StatusCode,
    body::{Body, Bytes},
    header::TRANSFER_ENCODING,
    http::request::Parts,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::mpsc::{Sender, channel},
    task::spawn_local,
    time::timeout,
};
use wire::percent;

use crate::{
    log,
    serve::{
        body::ResponseBody,
        cgi_response::ResponseStart,
        environ::{Ends, variables},
        pages::sentence,
    },
};

/// Bytes that are read at once.
const BUFFER_BYTES: usize = 64 * 1024;

/// Blocks of a response that wait for the client.
const WAITING_BLOCKS: usize = 4;

/// How long a program without a response has to exit, so that its exit status can be named.
const EXIT_WAIT: Duration = Duration::from_millis(500);

/// A directory of CGI programs.
pub(super) struct CgiDirectory(PathBuf);

/// The program of a request.
#[derive(Debug, PartialEq, Eq)]
struct Program {
    path: PathBuf,
    script_name: Vec<u8>,
    path_info: Vec<u8>,
}

impl CgiDirectory {
    /// The programs in `directory`.
    pub(super) fn new(directory: PathBuf) -> Self {
        Self(directory)
    }

    /// The response of the program that a request names.
    pub(super) async fn answer<B>(
        &self,
        parts: &Parts,
        body: B,
        ends: Ends,
    ) -> Response<ResponseBody>
    where
        B: Body<Data = Bytes> + Unpin + 'static,
    {
        let Some(program) = self.find(parts.uri.path().as_bytes()) else {
            return sentence(StatusCode::NOT_FOUND, "the directory has no program of this name");
        };
        let is_executable = |path: &Path| {
            path.metadata().is_ok_and(|found| found.permissions().mode() & 0o111 != 0)
        };
        if !is_executable(&program.path) {
            return sentence(
                StatusCode::FORBIDDEN,
                "the file is not executable: make it a program with `chmod +x FILE`",
            );
        }
        if parts.headers.contains_key(TRANSFER_ENCODING) {
            // RFC 3875 4.1.2: a program needs the length of its request body.
            return sentence(
                StatusCode::LENGTH_REQUIRED,
                "a CGI program needs Content-Length: send the request body without chunks",
            );
        }
        let mut child = match start(&program, parts, ends) {
            Ok(child) => child,
            Err(error) => {
                log(&failed(&program, &error).hint(
                    "check the first line of the program, such as `#!/usr/bin/python3`, and that \
                     this interpreter exists",
                ));
                return sentence(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "the program cannot be started; the terminal shows why",
                );
            }
        };
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        if let Some(stdin) = stdin {
            spawn_local(send(stdin, body));
        }
        let response = match stdout {
            Some(stdout) => respond(child, stdout).await,
            None => Err(io::Error::from(io::ErrorKind::BrokenPipe)),
        };
        response.unwrap_or_else(|error| {
            log(&failed(&program, &error).hint(
                "a program prints headers such as `Content-Type: text/plain`, an empty line, and \
                 the body",
            ));
            sentence(
                StatusCode::BAD_GATEWAY,
                "the program has sent no CGI response; the terminal shows why",
            )
        })
    }

    /// The program at the beginning of the URL path; the rest of the path is for the program.
    fn find(&self, path: &[u8]) -> Option<Program> {
        let root = fs::canonicalize(&self.0).ok()?;
        let mut found = root.clone();
        let mut at = 0;
        while path.get(at) == Some(&b'/') {
            let length = path[at + 1..].iter().position(|&byte| byte == b'/');
            let end = length.map_or(path.len(), |length| at + 1 + length);
            let name = percent::decode(&path[at + 1..end]);
            let is_plain = !name.is_empty()
                && !name.starts_with(b".")
                && !name.iter().any(|byte| [0, b'/'].contains(byte));
            if !is_plain {
                return None;
            }
            // A link may not lead out of the directory.
            found = fs::canonicalize(found.join(OsStr::from_bytes(&name))).ok()?;
            if !found.starts_with(&root) {
                return None;
            }
            if found.is_file() {
                let [script_name, path_info] = [&path[..end], &path[end..]].map(percent::decode);
                return Some(Program { path: found, script_name, path_info });
            }
            at = end;
        }
        None
    }
}

fn failed(program: &Program, error: &io::Error) -> LogMessage {
    let sentence = format!("the program `{}` has failed: {error}", program.path.display());
    LogMessage::new(Code::CgiFailed, sentence)
}

/// Starts the program with the variables of its request.
fn start(program: &Program, parts: &Parts, ends: Ends) -> io::Result<Child> {
    let own = ["SCRIPT_NAME", "PATH_INFO"];
    let of_request = variables(parts, ends).into_iter().filter(|(name, _)| {
        // HTTP clients take HTTP_PROXY for a setting of the user.
        name != b"HTTP_PROXY" && !own.iter().any(|own| own.as_bytes() == name)
    });
    let mut command = Command::new(&program.path);
    for (name, _) in std::env::vars_os() {
        if name.as_bytes().starts_with(b"HTTP_") {
            command.env_remove(name);
        }
    }
    let os_string = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
    command
        .envs(of_request.map(|(name, value)| (os_string(&name), os_string(&value))))
        .env("SCRIPT_FILENAME", &program.path)
        .env("SCRIPT_NAME", os_string(&program.script_name))
        .env("PATH_INFO", os_string(&program.path_info))
        .current_dir(program.path.parent().unwrap_or(Path::new("/")))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
}

/// Sends the request body. A program need not read it; the rest is read and thrown away, since a
/// client that still sends would not read the response.
async fn send<B: Body<Data = Bytes> + Unpin>(mut stdin: ChildStdin, mut body: B) {
    let mut is_read = true;
    while let Some(Ok(frame)) = body.frame().await {
        let Ok(data) = frame.into_data() else { continue };
        is_read = is_read && stdin.write_all(&data).await.is_ok();
    }
}

/// The response that a program prints. The program is killed if the client disconnects.
async fn respond(mut child: Child, mut stdout: ChildStdout) -> io::Result<Response<ResponseBody>> {
    let mut received = Vec::new();
    let (start, length) = loop {
        let mut buffer = vec![0; BUFFER_BYTES];
        let count = stdout.read(&mut buffer).await?;
        received.extend_from_slice(&buffer[..count]);
        match ResponseStart::parse(&received) {
            Ok(Some(parsed)) => break parsed,
            Ok(None) if count > 0 => {}
            Ok(None) => return Err(ended(&mut child, "has not ended its headers").await),
            Err(bad) => {
                let what = format!("prints headers with {}", bad.0);
                return Err(ended(&mut child, &what).await);
            }
        }
    };
    received.drain(..length);
    let (sender, blocks) = channel(WAITING_BLOCKS);
    spawn_local(forward(child, stdout, received.into(), sender));
    let mut response = Response::new(ResponseBody::blocks(blocks));
    *response.status_mut() = start.status;
    *response.headers_mut() = start.headers;
    Ok(response)
}

/// The error of a program that has no response because it `what`. Names how it exited, too.
async fn ended(child: &mut Child, what: &str) -> io::Error {
    let exit = timeout(EXIT_WAIT, child.wait()).await;
    io::Error::other(match exit {
        Ok(Ok(status)) if !status.success() => format!("it {what}, and ended with {status}"),
        _ => format!("it {what}"),
    })
}

/// Forwards what the program prints, until it closes its standard output.
async fn forward(
    mut child: Child,
    mut stdout: ChildStdout,
    first: Bytes,
    client: Sender<io::Result<Bytes>>,
) {
    let mut block = first;
    loop {
        if !block.is_empty() && client.send(Ok(block)).await.is_err() {
            return;
        }
        let mut buffer = vec![0; BUFFER_BYTES];
        let read = tokio::select! {
            () = client.closed() => return,
            read = stdout.read(&mut buffer) => read,
        };
        match read {
            Ok(count @ 1..) => {
                buffer.truncate(count);
                block = buffer.into();
            }
            _ => break,
        }
    }
    drop(client);
    // A program may go on after its response; nobody asks for its exit status.
    let _ = child.wait().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_the_first_file_on_the_path_and_the_rest_is_its_path() {
        let directory = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(directory.path()).unwrap();
        fs::create_dir(root.join("sub")).unwrap();
        for name in ["hello", "sub/a b", ".hidden"] {
            fs::write(root.join(name), "").unwrap();
        }
        let programs = CgiDirectory::new(root.clone());
        for (path, file, script_name, path_info) in [
            ("/hello", "hello", "/hello", ""),
            ("/hello/", "hello", "/hello", "/"),
            ("/hello/x%20y/../z", "hello", "/hello", "/x y/../z"),
            ("/sub/a%20b/c", "sub/a b", "/sub/a b", "/c"),
        ] {
            let program = programs.find(path.as_bytes()).unwrap();
            let found = (program.path, program.script_name, program.path_info);
            let expected = (root.join(file), script_name.into(), path_info.into());
            assert_eq!(found, expected, "{path}");
        }
        for path in [
            "/",
            "/sub",
            "/sub/",
            "/missing",
            "/.hidden",
            "/sub/../hello",
            "/%2fetc/passwd",
            "/sub%2fa%20b",
            "//hello",
            "/hello%00",
            "*",
        ] {
            assert_eq!(programs.find(path.as_bytes()), None, "{path}");
        }
    }
}

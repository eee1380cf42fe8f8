//! The options of curl: the same arguments make the same request as curl itself.

use std::{fs, process::Command};

use serde_json::Value;

use crate::{
    call::Shell,
    support::{
        child_process::{
            ExitedProcess, RunningProcess, {self},
        },
        probe::python,
    },
};

/// An application that returns what it has received, and some responses for clients.
pub(super) const RECEIVER: &str = "
    import base64, json, zlib
    def application(environ, start_response):
        def respond(status, headers, body=b''):
            headers = headers + [('Content-Type', 'text/plain')][:'json' not in str(headers)]
            start_response(status, headers + [('Content-Length', str(len(body)))])
            return [body]
        path = environ['PATH_INFO']
        length = environ.get('CONTENT_LENGTH') or ''
        body = environ['wsgi.input'].read(int(length)) if length else b''
        if path.startswith('/to/'):
            return respond(path[4:7] + ' Moved', [('Location', '../../seen?moved=1')], b'moved')
        if path == '/loop':
            return respond('302 Found', [('Location', '/loop')])
        if path == '/out':
            return respond('302 Found', [('Location', 'https://elsewhere.example/')], b'out')
        if path == '/set':
            cookies = ['a=1; Path=/', 'b=2; Path=/other', 'c=3; HttpOnly; Max-Age=100']
            cookies = [('Set-Cookie', cookie) for cookie in cookies]
            return respond('302 Found', [*cookies, ('Location', '/')])
        if path.startswith('/status/'):
            return respond(path[8:] + ' Odd', [('X-A', 'b')], b'x')
        if path in ('/gzip', '/deflate', '/raw', '/br'):
            packer = zlib.compressobj(wbits={'/gzip': 31, '/raw': -15}.get(path, 15))
            packed = packer.compress(b'packed ' * 1000) + packer.flush()
            name = {'/gzip': 'gzip', '/br': 'br'}.get(path, 'deflate')
            return respond('200 OK', [('Content-Encoding', name)], packed)
        names = ['REQUEST_METHOD', 'PATH_INFO', 'QUERY_STRING', 'SERVER_PORT', 'CONTENT_LENGTH']
        seen = {n: environ.get(n) or '' for n in names}
        seen.update((n, v) for n, v in environ.items() if n.startswith('HTTP_'))
        seen['CONTENT_TYPE'] = (environ.get('CONTENT_TYPE') or 'text/plain') if length else ''
        seen['body'] = base64.b64encode(body).decode()
        return respond('200 OK', [('Content-Type', 'application/json')], json.dumps(seen).encode())
";

/// Serves the application over HTTP, and prints the port.
const SERVER: &str = "
import sys, wsgiref.simple_server as simple
class Quiet(simple.WSGIRequestHandler):
    def log_message(self, *arguments):
        pass
scope = {}
exec(open('receiver.wsgi').read(), scope)
server = simple.make_server('127.0.0.1', 0, scope['application'], handler_class=Quiet)
print(server.server_port, flush=True)
server.serve_forever()
";

/// An application behind a real server, and in a file.
struct BothWays {
    shell: Shell,
    server: RunningProcess,
    port: u16,
}

impl BothWays {
    fn new() -> Self {
        let shell = Shell::new();
        shell.file("receiver.wsgi", RECEIVER);
        let mut command = shell.command(&python(), &["-c", SERVER]);
        let mut server = RunningProcess::start(child_process::piped(&mut command));
        server.await_output("\n");
        let port = server.output().trim().parse().unwrap();
        Self { shell, server, port }
    }

    fn url(&self, target: &str) -> String {
        format!("http://127.0.0.1:{}{target}", self.port)
    }

    fn curl(&self, args: &[&str], target: &str) -> ExitedProcess {
        let url = self.url(target);
        let mut command = Command::new("curl");
        command.args(["-q", "-sS"]).args(args).arg(url).current_dir(self.shell.path(""));
        command.env_clear().env("PATH", "/usr/bin:/bin");
        child_process::run(&mut command, "standard input\n")
    }

    fn wsgate(&self, args: &[&str], target: &str) -> ExitedProcess {
        let url = self.url(target);
        let mut command = self.shell.call(&[&["receiver.wsgi"], args, &[&*url]].concat());
        child_process::run(&mut command, "standard input\n")
    }

    /// Asserts that both send the same request; returns it.
    #[track_caller]
    fn assert_same(&self, args: &[&str], target: &str) -> Value {
        let (curl, own) = (self.curl(args, target), self.wsgate(args, target));
        assert_eq!((curl.code(), &*curl.stderr), (Some(0), ""), "{args:?}");
        assert_eq!((own.code(), &*own.stderr), (Some(0), ""), "{args:?}");
        let (expected, seen) = (request(&curl), request(&own));
        assert_eq!(seen, expected, "{args:?}");
        seen
    }

    fn end(self) {
        self.server.signal(rustix::process::Signal::KILL);
        self.server.end();
    }
}

/// The request that an application has received, without the boundary of a form and the name of
/// the client.
pub(super) fn request(ended: &ExitedProcess) -> Value {
    let mut seen: Value = serde_json::from_slice(&ended.stdout)
        .unwrap_or_else(|_| panic!("{}{}", ended.text(), ended.stderr));
    let body = seen["body"].as_str().unwrap().to_owned();
    let body = base64_decoded(&body);
    let content_type = seen["CONTENT_TYPE"].as_str().unwrap().to_owned();
    let mut body = String::from_utf8_lossy(&body).into_owned();
    if let Some((media_type, boundary)) = content_type.split_once("boundary=") {
        assert!(body.matches(boundary).count() > 1, "{body}");
        body = body.replace(boundary, "BOUNDARY");
        seen["CONTENT_TYPE"] = format!("{media_type}boundary=BOUNDARY").into();
    }
    seen["body"] = body.into();
    let agent = seen["HTTP_USER_AGENT"].as_str().unwrap_or_default().to_owned();
    // curl 7.88 sends the cookies of one path in the reverse order (RFC 6265 5.4).
    if let Some(cookies) = seen["HTTP_COOKIE"].as_str() {
        let mut cookies: Vec<&str> = cookies.split("; ").collect();
        cookies.sort_unstable();
        seen["HTTP_COOKIE"] = cookies.join("; ").into();
    }
    if agent.starts_with("curl/") || agent.starts_with("wsgate/") {
        seen["HTTP_USER_AGENT"] = "default".into();
    }
    seen
}

fn base64_decoded(text: &str) -> Vec<u8> {
    let digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bits = text.trim_end_matches('=').chars().fold((Vec::new(), 0u32, 0), |mut state, c| {
        let value = u32::try_from(digits.find(c).unwrap()).unwrap();
        state.1 = state.1 << 6 | value;
        state.2 += 6;
        if state.2 >= 8 {
            state.2 -= 8;
            state.0.push((state.1 >> state.2) as u8);
            state.1 &= (1 << state.2) - 1;
        }
        state
    });
    bits.0
}

#[test]
fn a_request_is_that_of_curl() {
    let both = BothWays::new();
    fs::write(both.shell.path("lines"), "one\r\ntwo\nthree =&\n").unwrap();
    fs::write(both.shell.path("page.html"), "<p>\n").unwrap();
    fs::write(both.shell.path("a\"b"), [0, 255, 10]).unwrap();
    fs::write(both.shell.path("headers"), "X-One: 1\nX-Two;\n\n").unwrap();
    for args in [
        &[][..],
        &["-X", "DELETE"],
        &["-d", "a=b&c"],
        &["-d", ""],
        &["-d", "a", "-d", "b", "--data-raw", "@c", "-d", "d"],
        &["-d", "@lines"],
        &["-d", "@-"],
        &["--data-binary", "@lines"],
        &["--data-binary", "@lines", "-d", "@lines", "--data-binary", "x"],
        &["--data-urlencode", "a=b c&d/~\u{e9}"],
        &["--data-urlencode", "=b c=d", "--data-urlencode", "b c&d"],
        &["--data-urlencode", "file@lines", "--data-urlencode", "@page.html"],
        &["--data-ascii", "x", "-X", "PUT"],
        &["--json", "{\"a\": 1}"],
        &["--json", "[", "--json", "]"],
        &["--json", "@lines", "-H", "Accept: text/html"],
        &["-d", "{}", "-H", "Content-Type: application/json"],
        &["-d", "x", "-H", "Content-Type:"],
        &["-H", "X-A: b", "-H", "X-Empty;", "-H", "Accept:", "-H", "User-Agent:"],
        &["-H", "@headers"],
        &["-H", "cookie: a=1; b=2"],
        &["-H", "Host: other.example:81"],
        &["-u", "ada:love:lace"],
        &["-u", "ada:x", "-H", "Authorization: Bearer y"],
        &["-b", "a=1; b=2"],
        &["-b", "a=1", "-b", "b=2"],
        &["-b", "a=1", "-H", "Cookie: c=3"],
        &["-A", "Mozilla/5.0 (X)", "-e", "https://x.example/y"],
        &["-G", "-d", "a=b", "--data-urlencode", "c=d e"],
        &["-G", "-d", "a=b", "-X", "POST"],
        &["-F", "a=b c", "-F", "d=\u{e9}\"\n"],
        &["-F", "up=@lines", "-F", "up=@page.html"],
        &["-F", "up=@lines;type=text/csv;filename=x\"y.csv"],
        &["-F", "up=@lines;type=text/csv; charset=utf-8"],
        &["-F", "up=@\"a\\\"b\""],
        &["-F", "text=<page.html", "-F", "typed=<page.html;type=text/html"],
        &["-F", "a=b;type=text/plain", "--form-string", "c=@d;e"],
        &["-F", "up=@-;filename=z"],
        &["-F", "a=b", "-H", "Content-Type: multipart/form-data"],
        &["-F", "a=b", "-X", "PUT"],
        &["-k", "--http1.1", "-g", "-N", "--path-as-is", "-m", "20.5", "-s"],
    ] {
        both.assert_same(args, "/p%20q?x=y%20z");
    }
    both.assert_same(&["-G", "-d", "a=b"], "/");
    both.assert_same(&["-A", ""], "/");
    both.end();
}

#[test]
fn redirects_lead_to_the_requests_of_curl() {
    let both = BothWays::new();
    for status in ["301", "302", "303", "307", "308"] {
        for args in [
            &["-L"][..],
            &["-L", "-d", "a=b"],
            &["-L", "-d", "a=b", "-X", "PUT"],
            &["-L", "-X", "DELETE"],
            &["-L", "-u", "a:b", "-e", ";auto", "-b", "c=d"],
        ] {
            both.assert_same(args, &format!("/to/{status}/x"));
        }
    }
    let format = "%{http_code} %{num_redirects} %{url_effective} %{redirect_url} %{size_download}";
    for args in [&["-L", "-w", format, "-o", "out"][..], &["-w", format, "-o", "out"]] {
        let (curl, own) = (both.curl(args, "/to/302/x"), both.wsgate(args, "/to/302/x"));
        // The sizes of the two requests differ by the name of the client.
        let part = |ended: &ExitedProcess| ended.text().rsplit_once(' ').unwrap().0.to_owned();
        assert_eq!(part(&own), part(&curl), "{args:?}: {}", own.stderr);
    }
    let ended = both.wsgate(&["-L", "--max-redirs", "3"], "/loop");
    assert_eq!((ended.code(), &*ended.text()), (Some(1), ""));
    assert!(ended.stderr.contains("error") || ended.stderr.contains("W0911"), "{}", ended.stderr);
    assert!(ended.stderr.contains("redirects more than 3 times"), "{}", ended.stderr);
    let ended = both.wsgate(&["-L"], "/out");
    assert_eq!((ended.code(), &*ended.text()), (Some(0), "out"));
    let said = "redirects to `https://elsewhere.example/`, at another host than `127.0.0.1";
    assert!(ended.stderr.contains(said), "{}", ended.stderr);
    assert_eq!(both.wsgate(&["-L", "-s"], "/out").stderr, "");
    both.end();
}

#[test]
fn cookies_of_responses_and_files_are_those_of_curl() {
    let both = BothWays::new();
    both.assert_same(&["-L", "-b", ""], "/set");
    let jar = |name: &str| {
        let text = fs::read_to_string(both.shell.path(name)).unwrap();
        let cookies = text.lines().filter(|line| line.contains('\t'));
        // The time at which a cookie ends differs by the time between the two commands.
        let mut lines: Vec<String> = cookies
            .map(|line| {
                let mut fields: Vec<&str> = line.split('\t').collect();
                fields[4] = if fields[4] == "0" { "0" } else { "later" };
                fields.join("\t")
            })
            .collect();
        lines.sort();
        lines
    };
    let curl = both.curl(&["-c", "by-curl", "-b", "by-curl"], "/set");
    let own = both.wsgate(&["-c", "by-wsgate", "-b", "by-wsgate"], "/set");
    assert_eq!((curl.code(), own.code()), (Some(0), Some(0)), "{}", own.stderr);
    assert_eq!(jar("by-wsgate"), jar("by-curl"));
    let mode = fs::metadata(both.shell.path("by-wsgate")).unwrap().permissions();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777, 0o600);
    for file in ["by-curl", "by-wsgate"] {
        let seen = both.assert_same(&["-b", file], "/seen");
        assert_eq!(seen["HTTP_COOKIE"], "a=1; c=3", "{file}");
        both.assert_same(&["-b", file, "-b", "d=4"], "/other/page");
    }
    let ended = both.wsgate(&["-b", "absent"], "/");
    assert_eq!(ended.code(), Some(78), "{}", ended.stderr);
    assert!(ended.stderr.contains("`absent` has no `=`"), "{}", ended.stderr);
    both.end();
}

#[test]
fn output_is_that_of_curl() {
    let both = BothWays::new();
    for path in ["/gzip", "/deflate", "/raw"] {
        let (curl, own) =
            (both.curl(&["--compressed"], path), both.wsgate(&["--compressed"], path));
        assert_eq!((own.code(), own.text()), (Some(0), curl.text()), "{path}: {}", own.stderr);
        assert!(own.text().starts_with("packed packed "), "{path}");
        assert_eq!(both.wsgate(&[], path).stdout, both.curl(&[], path).stdout, "{path}");
    }
    let ended = both.wsgate(&["--compressed"], "/br");
    assert_eq!((ended.code(), ended.stdout == both.curl(&[], "/br").stdout), (Some(0), true));
    assert!(ended.stderr.contains("encoding `br`"), "{}", ended.stderr);
    let format = "|%{http_code}|%{response_code}|%{content_type}|%{size_download}|%{method}|\
        %header{x-a}|%{scheme}|%{num_redirects}|%{size_upload}|%{filename_effective}|%%|\\t\\n";
    for args in [
        &["-w", format][..],
        &["-w", format, "-d", "four"],
        &["-w", format, "-o", "x"],
        &["-w", format, "-O"],
        &["-w", format, "-f"],
    ] {
        for path in ["/status/200", "/status/404"] {
            let (curl, own) = (both.curl(args, path), both.wsgate(args, path));
            assert_eq!(own.text(), curl.text(), "{args:?} {path}: {}", own.stderr);
            let fails = path.ends_with("404");
            assert_eq!(own.code(), Some(i32::from(fails)), "{args:?} {path}");
        }
    }
    let file = |name: &str| fs::read_to_string(both.shell.path(name)).unwrap();
    assert_eq!([file("x"), file("200"), file("404")], ["x", "x", "x"]);
    let ended = both.wsgate(&["-I", "-L"], "/to/302/x");
    assert!(ended.text().contains("HTTP/1.1 302 Moved"), "{}", ended.text());
    assert!(ended.text().contains("HTTP/1.1 200 OK"), "{}", ended.text());
    let ended = both.wsgate(&["-I"], "/status/200");
    assert!(ended.text().starts_with("HTTP/1.1 200 Odd\r\n"), "{}", ended.text());
    assert!(ended.text().ends_with("\r\n\r\n"), "{}", ended.text());
    let ended = both.wsgate(&["-f"], "/status/503");
    assert_eq!((ended.code(), &*ended.text()), (Some(1), ""));
    assert!(ended.stderr.contains("W0912") && ended.stderr.contains("503 Odd"), "{}", ended.stderr);
    both.end();
}

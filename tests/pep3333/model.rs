//! PEP 3333 as a model: random applications and requests, whose responses are computed here and
//! compared with what comes out.
//!
//! One application carries out a program that its request brings. Responses in every mode are those
//! of the model, to the byte.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    each_mode::{MODES, Mode, ServedApp},
    support::probe::CgiResponse,
};

/// The seed of all programs. A failure names the number of its program, which defines the program.
const SEED: u64 = 0x5747_4154_4533_3333;

/// Programs a mode. A cold one takes an interpreter each.
const PROGRAMS: u64 = 300;
const COLD_PROGRAMS: u64 = 100;

/// Carries out the program in `HTTP_X_PROGRAM`. Bodies are pieces of the alphabet, repeated.
const INTERPRETER: &str = "
    import io, json, sys, tempfile

    class Closing:
        def __init__(self, number, blocks):
            self.number, self.blocks = number, blocks
        def __iter__(self):
            return self.blocks
        def close(self):
            print('closed', self.number)

    class Old:
        def __init__(self, blocks):
            self.blocks = blocks
        def __getitem__(self, index):
            return self.blocks[index]

    def read(p, i):
        how, amount = p['read'], p['amount']
        if how == 'all':
            return i.read()
        if how == 'some':
            return i.read(amount)
        if how == 'lines':
            return b''.join(i)
        if how == 'again':
            i.read(amount)
            i.seek(0)
            return i.read()
        if how == 'text':
            return io.TextIOWrapper(i, 'latin-1', newline='').read().encode('latin-1')
        if how == 'into':
            into = bytearray(amount)
            return bytes(into[:i.readinto(into)])
        if how == 'peek':
            return i.peek()[:1] and i.read1(1) + i.read()
        return b''

    def application(environ, start_response):
        if 'HTTP_X_PROGRAM' not in environ:
            start_response('204 No Content', [])
            return []
        p = json.loads(environ['HTTP_X_PROGRAM'])
        got = read(p, environ['wsgi.input'])
        headers = [tuple(header) for header in p['headers']] + [('X-Read', '%d:%d' % (len(got), \
        sum(got)))]
        sizes, written = p['blocks'], sum(p['writes'])

        def piece(at, size):
            return bytes(65 + (at + n) % 26 for n in range(size))
        def block(index):
            if p['fail'] == index:
                raise ArithmeticError('as the program says')
            return piece(written + sum(sizes[:index]), sizes[index])
        def start():
            write = start_response(p['status'], headers)
            if p['replaced']:
                try:
                    raise KeyError
                except KeyError:
                    write = start_response(p['replaced'], [('X-Replaced', '1')], sys.exc_info())
            return write
        def generate():
            if p['late']:
                start()
            for index in range(len(sizes)):
                yield block(index)
            if p['fail'] == len(sizes):
                raise ArithmeticError('as the program says')

        if not p['late']:
            write = start()
            at = 0
            for size in p['writes']:
                write(piece(at, size))
                at += size
        kind = p['kind']
        if kind == 'generator':
            return generate()
        if kind == 'closing':
            return Closing(p['number'], generate())
        blocks = [block(index) for index in range(len(sizes))]
        if kind == 'file':
            file = tempfile.TemporaryFile()
            file.write(b''.join(blocks))
            file.seek(0)
            return environ['wsgi.file_wrapper'](file)
        makers = {'list': list, 'tuple': tuple, 'iterator': iter, 'old': Old, 'bytes': b''.join, \
        'text': lambda _: '',
                  'memory': lambda blocks: \
                  environ['wsgi.file_wrapper'](io.BytesIO(b''.join(blocks)))}
        return makers[kind](blocks)
    ";

/// A random application.
#[derive(Clone, Serialize)]
struct RandomApp {
    number: u64,
    read: &'static str,
    amount: usize,
    status: &'static str,
    headers: Vec<(&'static str, String)>,
    /// The status of a second call of `start_response`, with `exc_info`.
    replaced: Option<&'static str>,
    /// `start_response` is called in the first step of the iteration.
    late: bool,
    writes: Vec<usize>,
    kind: &'static str,
    blocks: Vec<usize>,
    /// The block in whose place an exception is raised.
    fail: Option<usize>,
    #[serde(skip)]
    method: &'static str,
    #[serde(skip)]
    body: Vec<u8>,
}

/// The expected response.
#[derive(Debug, PartialEq, Eq)]
struct Expected {
    status: String,
    /// All but an error page's.
    headers: Option<Vec<(String, String)>>,
    body: Vec<u8>,
    /// None for an exception after the announced length: FastCGI has ended the response by then.
    cut: Option<bool>,
    codes: Vec<String>,
}

/// xorshift64*: the same numbers everywhere.
struct Xorshift(u64);

impl Xorshift {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit as u64).unwrap()
    }

    fn one_in(&mut self, chances: usize) -> bool {
        self.below(chances) == 0
    }

    fn choose<T: Copy>(&mut self, among: &[T]) -> T {
        among[self.below(among.len())]
    }

    fn sizes(&mut self, most: usize) -> Vec<usize> {
        let count = self.below(most + 1);
        (0..count).map(|_| self.choose(&[0, 0, 1, 7, 100, 4000, 9000, 70_000])).collect()
    }
}

impl RandomApp {
    fn random(number: u64) -> Self {
        let mut random = Xorshift(SEED ^ (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let kinds = [
            "list",
            "tuple",
            "iterator",
            "old",
            "generator",
            "closing",
            "bytes",
            "text",
            "memory",
            "file",
        ];
        let kind = random.choose(&kinds);
        let runs_late = ["generator", "closing"].contains(&kind);
        let blocks = if ["bytes", "text"].contains(&kind) { Vec::new() } else { random.sizes(4) };
        let late = runs_late && random.one_in(3);
        let writes = if !late && random.one_in(4) { random.sizes(3) } else { Vec::new() };
        let status = random.choose(&[
            "200 OK",
            "200 OK",
            "404 Gone For Good",
            "206 Part",
            "204 None",
            "205 Reset",
            "304 Same",
        ]);
        let mut headers = vec![("X-Number", number.to_string())];
        if !random.one_in(5) {
            headers.insert(0, ("Content-Type", "text/plain".to_owned()));
        }
        let (written, whole) =
            (writes.iter().sum::<usize>(), writes.iter().chain(&blocks).sum::<usize>());
        match random.below(6) {
            0 | 1 => headers.push(("content-length", whole.to_string())),
            2 => headers.push(("Content-Length", (whole + 1 + random.below(50)).to_string())),
            // More bytes than announced are an error of `write()`, not of an iterable.
            3 if whole > written => headers
                .push(("Content-Length", (whole - 1 - random.below(whole - written)).to_string())),
            _ => {}
        }
        let fail = (runs_late && random.one_in(5)).then(|| random.below(blocks.len() + 1));
        let replaced =
            random.one_in(8).then(|| random.choose(&["503 Sorry", "200 OK", "204 None"]));
        let body = (0..random.choose(&[0, 0, 1, 10, 3000, 66_000]))
            .map(|at: usize| (at * 7 % 251) as u8)
            .collect();
        Self {
            number,
            read: random.choose(&["none", "all", "some", "lines", "again", "text", "into", "peek"]),
            amount: random.choose(&[0, 1, 5, 1000, 5000, 100_000]),
            status,
            headers,
            replaced,
            late,
            writes,
            kind,
            blocks,
            fail,
            method: random.choose(&["GET", "POST", "POST", "HEAD", "PUT"]),
            body,
        }
    }

    /// The description in a failure.
    fn shown(&self) -> String {
        let program = serde_json::to_string(self).unwrap();
        format!("seed {SEED:#x}, {} with {} bytes, {program}", self.method, self.body.len())
    }

    fn request_id(&self) -> String {
        format!("model-{:06}", self.number)
    }

    /// How many bytes of its body the application has, and their sum.
    fn was_read(&self) -> String {
        let read = match self.read {
            "none" => &[][..],
            "some" | "into" => &self.body[..self.amount.min(self.body.len())],
            _ => &self.body,
        };
        format!("{}:{}", read.len(), read.iter().map(|&byte| u64::from(byte)).sum::<u64>())
    }

    /// The response by the PEP, HTTP and our documents.
    fn expected(&self) -> Expected {
        let status = self.replaced.unwrap_or(self.status);
        let mut headers = match self.replaced {
            Some(_) => vec![("X-Replaced", "1".to_owned())],
            None => [self.headers.clone(), vec![("X-Read", self.was_read())]].concat(),
        };
        let is_length = |(name, _): &&(&str, String)| name.eq_ignore_ascii_case("Content-Length");
        let mut limit: Option<usize> =
            headers.iter().find(is_length).map(|(_, value)| value.parse().unwrap());
        let (head_only, code) = (self.method == "HEAD", &status[..3]);
        let bodiless = ["204", "205", "304"].contains(&code);

        // The blocks as they come, up to the exception.
        let given = self.fail.map_or(&self.blocks[..], |fail| &self.blocks[..fail]);
        let is_file = ["memory", "file"].contains(&self.kind);
        let file = [given.iter().sum()];
        let given = if is_file { &file[..] } else { given };
        let total: usize = self.writes.iter().chain(given).sum();
        let head_left = !self.writes.is_empty() || given.iter().any(|&size| size > 0);
        if self.fail.is_some() && !head_left {
            return Expected::error_page(head_only);
        }
        let has_type = headers.iter().any(|(name, _)| *name == "Content-Type");
        let mut codes = Vec::new();
        if head_left && !bodiless && !has_type {
            codes.push("W0506");
        }
        // A single block and an empty body have a known length.
        if limit.is_none() && !bodiless && self.writes.is_empty() {
            let is_counted = match self.kind {
                "list" | "tuple" => self.blocks.len() == 1,
                kind => kind == "file",
            };
            let whole =
                if total == 0 { (!head_only).then_some(0) } else { is_counted.then_some(total) };
            limit = whole;
            headers.extend(whole.map(|length| ("Content-Length", length.to_string())));
        }
        if ["204", "205"].contains(&code) {
            headers.retain(|header| !is_length(&header));
        }
        if code == "205" {
            headers.push(("Content-Length", "0".to_owned()));
        }
        let room = if bodiless || head_only { 0 } else { limit.unwrap_or(usize::MAX) };
        let goes_beyond = total > room && !head_only;
        if goes_beyond && bodiless {
            codes.push("W0507");
        } else if goes_beyond && !(is_file && code == "206") {
            codes.push("W0505");
        }
        // The first block beyond the announced length is the last one requested. A later exception
        // is not raised.
        let stops = given.iter().scan(self.writes.iter().sum::<usize>(), |sum, &size| {
            *sum += size;
            Some((*sum, size))
        });
        let stopped =
            stops.into_iter().any(|(sum, size)| size > 0 && (sum > room || bodiless || head_only));
        let cut = self.fail.is_some() && !stopped;
        let is_short = !cut && !bodiless && !head_only && limit.is_some_and(|limit| total < limit);
        if cut {
            codes.push("W0502");
        } else if is_short {
            codes.push("W0504");
        }
        Expected {
            status: status.to_owned(),
            headers: Some(
                headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            ),
            body: (0..total.min(room)).map(|at| b'A' + u8::try_from(at % 26).unwrap()).collect(),
            cut: (!cut || limit != Some(total)).then_some(cut || is_short),
            codes: codes.into_iter().map(str::to_owned).collect(),
        }
    }
}

impl Expected {
    fn error_page(head_only: bool) -> Self {
        Self {
            status: "500 Internal Server Error".to_owned(),
            headers: None,
            body: if head_only { Vec::new() } else { b"<!DOCTYPE html>".to_vec() },
            cut: Some(false),
            codes: vec!["W0501".to_owned()],
        }
    }
}

/// The codes of a log by the request that they are about.
fn codes_by_request(log: &str) -> BTreeMap<String, Vec<String>> {
    let mut codes = BTreeMap::<_, Vec<_>>::new();
    let mut code = None;
    for line in log.lines() {
        if let Some((severity, rest)) =
            line.strip_prefix("wsgate: ").and_then(|rest| rest.split_once('['))
        {
            code = ["error", "warning"].contains(&severity).then(|| rest[..5].to_owned());
        } else if let Some(id) =
            line.strip_prefix("request: ").and_then(|rest| rest.split(' ').next())
        {
            codes.entry(id.to_owned()).or_default().extend(code.take());
        }
    }
    codes
}

#[test]
fn random_applications_answer_in_every_mode_as_the_model_says() {
    for mode in MODES {
        let mut served = ServedApp::start(mode, &[], INTERPRETER);
        let count = if mode == Mode::Cold { COLD_PROGRAMS } else { PROGRAMS };
        let programs: Vec<RandomApp> = (0..count).map(RandomApp::random).collect();
        for program in &programs {
            let carried = serde_json::to_string(program).unwrap();
            let variables =
                [("HTTP_X_PROGRAM", carried.as_str()), ("UNIQUE_ID", &program.request_id())];
            let response: CgiResponse =
                served.request(program.method, "/", &variables, &program.body);
            let expected = program.expected();
            let mut came = Expected {
                status: response.status.clone(),
                headers: Some(response.headers.clone()),
                body: response.body.clone(),
                cut: expected.cut.map(|_| !response.exit.success()),
                codes: expected.codes.clone(),
            };
            // A body may be cut that has a length and does not leave with the headers: in CGI, and
            // over FastCGI for some web servers, the client's connection is closed then.
            if let Some(headers) = came.headers.as_mut().filter(|_| mode.is_cgi()) {
                let has_length =
                    headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("Content-Length"));
                headers.retain(|(name, value)| {
                    !(has_length && name == "Connection" && value == "close")
                });
            }
            if expected.headers.is_none() {
                came.headers = None;
                came.body.truncate(expected.body.len());
            }
            let shown = String::from_utf8_lossy(&response.raw[..response.raw.len().min(500)]);
            assert!(
                came == expected,
                "{mode:?}, {}\nexpected {}\ncame {shown}",
                program.shown(),
                expected.shown()
            );
        }
        check_log(mode, &programs, &served.stop());
    }
}

impl Expected {
    /// The response with a shortened body.
    fn shown(&self) -> String {
        format!(
            "{} {:?}, {} bytes, cut: {:?}, {:?}",
            self.status,
            self.headers,
            self.body.len(),
            self.cut,
            self.codes
        )
    }
}

/// Compares what the log says of each program with what the model says.
fn check_log(mode: Mode, programs: &[RandomApp], log: &str) {
    let logged = codes_by_request(log);
    // This warning comes once a pool, which is a request that starts a new interpreter.
    let counts = |code: &&String| mode == Mode::Cold || *code != "W0506";
    for program in programs {
        let said: Vec<&String> =
            logged.get(&program.request_id()).into_iter().flatten().filter(counts).collect();
        let expected = program.expected().codes;
        assert_eq!(
            said,
            expected.iter().filter(counts).collect::<Vec<_>>(),
            "{mode:?}, {}\n{log}",
            program.shown()
        );
        let closed =
            log.lines().filter(|line| *line == format!("closed {}", program.number)).count();
        assert_eq!(
            closed,
            usize::from(program.kind == "closing"),
            "{mode:?}, {}\n{log}",
            program.shown()
        );
    }
}

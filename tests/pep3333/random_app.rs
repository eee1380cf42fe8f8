//! Random applications, and the response that the PEP demands of each.

use serde::Serialize;

/// The seed of all programs. A failure names the number of its program, which defines the program.
pub(super) const SEED: u64 = 0x5747_4154_4533_3333;

/// Carries out the program in `HTTP_X_PROGRAM`. Bodies are pieces of the alphabet, repeated.
pub(super) const INTERPRETER: &str = "
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
pub(super) struct RandomApp {
    pub(super) number: u64,
    pub(super) read: &'static str,
    pub(super) amount: usize,
    pub(super) status: &'static str,
    pub(super) headers: Vec<(&'static str, String)>,
    /// The status of a second call of `start_response`, with `exc_info`.
    pub(super) replaced: Option<&'static str>,
    /// `start_response` is called in the first step of the iteration.
    pub(super) late: bool,
    pub(super) writes: Vec<usize>,
    pub(super) kind: &'static str,
    pub(super) blocks: Vec<usize>,
    /// The block in whose place an exception is raised.
    pub(super) fail: Option<usize>,
    #[serde(skip)]
    pub(super) method: &'static str,
    #[serde(skip)]
    pub(super) body: Vec<u8>,
}

/// The expected response.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Expected {
    pub(super) status: String,
    /// All but an error page's.
    pub(super) headers: Option<Vec<(String, String)>>,
    pub(super) body: Vec<u8>,
    /// None for an exception after the announced length: FastCGI has ended the response by then.
    pub(super) cut: Option<bool>,
    pub(super) codes: Vec<String>,
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
    pub(super) fn random(number: u64) -> Self {
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
    pub(super) fn shown(&self) -> String {
        let program = serde_json::to_string(self).unwrap();
        format!("seed {SEED:#x}, {} with {} bytes, {program}", self.method, self.body.len())
    }

    pub(super) fn request_id(&self) -> String {
        format!("model-{:06}", self.number)
    }

    /// How many bytes of its body the application has, and their sum.
    pub(super) fn was_read(&self) -> String {
        let read = match self.read {
            "none" => &[][..],
            "some" | "into" => &self.body[..self.amount.min(self.body.len())],
            _ => &self.body,
        };
        format!("{}:{}", read.len(), read.iter().map(|&byte| u64::from(byte)).sum::<u64>())
    }

    /// The response by the PEP, HTTP and our documents.
    pub(super) fn expected(&self) -> Expected {
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
    pub(super) fn error_page(head_only: bool) -> Self {
        Self {
            status: "500 Internal Server Error".to_owned(),
            headers: None,
            body: if head_only { Vec::new() } else { b"<!DOCTYPE html>".to_vec() },
            cut: Some(false),
            codes: vec!["W0501".to_owned()],
        }
    }
}

impl Expected {
    /// The response with a shortened body.
    pub(super) fn shown(&self) -> String {
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

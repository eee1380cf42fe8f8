//! Assertions about valid CGI responses and error logs.

/// The head of a CGI response that has passed.
#[derive(Debug)]
pub(crate) struct ValidResponse {
    /// Three digits.
    pub(crate) status: u16,
    /// Fields but `Status`, in their order; bytes are characters.
    pub(crate) fields: Vec<(String, String)>,
    /// The response body.
    pub(crate) body: Vec<u8>,
}

impl ValidResponse {
    /// Values of the fields with the name `name`, in whatever case.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let named = self.fields.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str()).collect()
    }
}

/// Reads `response` as a CGI response of ours: `Status` first, every line `Name: value` and CR LF,
/// a blank line, and fields that occur once if CGI says so (RFC 3875 6.2, 6.3).
pub(crate) fn parse_response(response: &[u8]) -> Result<ValidResponse, String> {
    let wrong = |what: &str| {
        Err(format!("{what}: {:?}", String::from_utf8_lossy(&response[..response.len().min(2000)])))
    };
    let mut fields = Vec::new();
    let mut rest = response;
    loop {
        let Some(end) = rest.iter().position(|&byte| byte == b'\n') else {
            return wrong("the head does not end");
        };
        let Some(line) = rest[..end].strip_suffix(b"\r") else {
            return wrong("a line of the head does not end with CR LF");
        };
        rest = &rest[end + 1..];
        if line.is_empty() {
            break;
        }
        let line: String = line.iter().map(|&byte| char::from(byte)).collect();
        let Some((name, value)) = line.split_once(": ") else {
            return wrong("a line of the head is not `Name: value`");
        };
        let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        if name.is_empty() || !name.chars().all(is_token) {
            return wrong("a name is no token");
        }
        if value.chars().any(|c| c != '\t' && (c < ' ' || c == '\x7f')) {
            return wrong("a value holds a control character");
        }
        fields.push((name.to_owned(), value.to_owned()));
    }
    if fields.first().is_none_or(|(name, _)| name != "Status") {
        return wrong("the head does not begin with `Status`");
    }
    let (_, status) = fields.remove(0);
    let Some((code, _)) = status.split_once(' ').filter(|(code, _)| code.len() == 3) else {
        return wrong("`Status` is not three digits, a space and a reason");
    };
    let Ok(status) = code.parse() else {
        return wrong("`Status` is no number");
    };
    let head = ValidResponse { status, fields, body: rest.to_vec() };
    for name in ["Status", "Content-Type", "Location", "Content-Length"] {
        if head.all(name).len() > usize::from(name != "Status") {
            return wrong(&format!("`{name}` comes more than once"));
        }
    }
    Ok(head)
}

/// A response that is valid and whole: no shorter and no longer than it says.
#[track_caller]
pub(crate) fn complete_response(response: &[u8]) -> ValidResponse {
    let head = parse_response(response).unwrap_or_else(|wrong| panic!("{wrong}"));
    if let [length] = head.all("Content-Length")[..] {
        assert_eq!(length, head.body.len().to_string(), "a body that is not as long as it says");
    }
    head
}

/// What follows `wsgate: ` in the first line of a log message, with or without time and pool.
pub(crate) fn first_line(line: &str) -> Option<&str> {
    let text = match line.split_once(" [") {
        Some((time, rest)) if time.len() == 24 && time.ends_with('Z') => {
            rest.split_once("] ").map_or(rest, |(_, text)| text)
        }
        _ => line,
    };
    text.strip_prefix("wsgate: ")
}

/// The codes of all log messages of a log, in their order.
pub(crate) fn codes(log: &str) -> Vec<&str> {
    let messages = log.lines().filter_map(|line| first_line(line)?.split_once('['));
    messages
        .filter(|(severity, _)| ["error", "warning"].contains(severity))
        .map(|(_, rest)| &rest[..5])
        .collect()
}

/// Asserts that `log` has one log message beside notices, with this code and with all its parts,
/// and returns its first line.
#[track_caller]
pub(crate) fn only_log_message<'a>(log: &'a str, code: &str) -> &'a str {
    assert_eq!(codes(log), [code], "{log}");
    let mut message =
        log.lines().skip_while(|line| first_line(line).is_none() || !line.contains(code));
    let first = message.next().unwrap();
    let rest: Vec<_> = message.take_while(|line| first_line(line).is_none()).collect();
    let beginning = |word| rest.iter().filter_map(|line| line.strip_prefix(word)).collect();
    let (hints, subjects): (Vec<&str>, Vec<&str>) = (beginning("hint: "), beginning("request: "));
    assert_eq!((hints.len(), subjects.len()), (1, 1), "{log}");
    assert!(is_subject(subjects[0]), "{log}");
    first
}

/// Is `line` the last line of a log message after `request: `, as docs/errors.md describes it?
fn is_subject(line: &str) -> bool {
    let Some((request, pid)) = line.rsplit_once(" pid ") else { return false };
    let is_request = || {
        let parts: Vec<&str> = request.splitn(3, ' ').collect();
        parts.len() == 3 && parts.iter().all(|part| !part.is_empty() && !part.starts_with('('))
    };
    pid.parse::<u32>().is_ok()
        && match request.strip_prefix("none") {
            Some(what) => what.strip_prefix(", ").is_some_and(|what| !what.is_empty()),
            None => is_request(),
        }
}

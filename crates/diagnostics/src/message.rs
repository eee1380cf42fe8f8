//! Log messages: `wsgate: error[W0501]: lower-case sentence`, details, a hint, and which request it
//! was about.
//!
//! An entry is one string, made to leave in one `write`, so that entries of parallel requests do
//! not mix. The codes are permanent and listed in `docs/errors.md`.

use std::{
    borrow::Cow,
    fmt::{
        Write as _, {self},
    },
};

use crate::escape::Escaped;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal,)*) => {
        /// Permanent code of a message.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u16)]
        pub enum Code { $($(#[$doc])* $name = $number,)* }

        impl Code {
            /// Every code there is.
            pub const ALL: &[Self] = &[$(Self::$name,)*];
        }
    };
}

codes! {
    /// No script can be told from the request.
    NoScript = 101,
    /// The script cannot be read, or is no file.
    UnreadableScript = 102,
    /// The options on the `#!` line are wrong.
    BadScriptOptions = 103,
    /// The program itself was requested, not a script.
    CalledDirectly = 104,
    /// An argument or setting is wrong.
    BadSetting = 105,
    /// The virtualenv cannot be used.
    BadVenv = 201,
    /// The python interpreter cannot be used.
    BadPython = 202,
    /// The engine was not found.
    NoEngine = 203,
    /// Python could not be started.
    NoProcess = 204,
    /// Python ended before the engine was loaded.
    PythonEnded = 205,
    /// Python cannot load the engine, or the engine is of another build.
    UnfitEngine = 206,
    /// The application raised an exception while it was loaded.
    ImportRaised = 301,
    /// A module that the application needs was not found.
    ModuleNotFound = 302,
    /// No callable was found in the application's file or module.
    NoCallable = 303,
    /// The application ended the process while it was loaded.
    ExitAtImport = 304,
    /// The application was not loaded in time.
    LoadTimedOut = 305,
    /// The application has been loading for long, and still is.
    LoadsLong = 306,
    /// The application started threads while it was loaded in a process that is to be forked.
    ThreadsAtImport = 307,
    /// The application left open, while it was loaded in a process that is to be forked, what
    /// processes must not share.
    OpenAtImport = 308,
    /// The application left open or running what forked processes must not share, so that each
    /// worker loads it by itself.
    NotPreloaded = 309,
    /// The application left open what one process at a time may have, so that its requests are not
    /// served warm.
    OneProcessOnly = 310,
    /// The request that an application is asked to warm up has failed.
    WarmUpFailed = 311,
    /// The variables of the request are wrong.
    BadRequest = 401,
    /// What came on a connection is not FastCGI.
    BadRecord = 402,
    /// The start of a request did not come in time.
    HeaderTimedOut = 403,
    /// A worker has too many connections, or too much of unfinished requests.
    TooManyConnections = 404,
    /// A peer may not connect.
    RefusedAddress = 405,
    /// A request body is longer than `CONTENT_LENGTH` says.
    SurplusBody = 406,
    /// The application raised an exception.
    ApplicationRaised = 501,
    /// The application raised an exception after the head of its response had left.
    RaisedAfterHeaders = 502,
    /// The application's response breaks PEP 3333.
    BadResponse = 503,
    /// The body is shorter than its `Content-Length`.
    BodyTooShort = 504,
    /// The body is longer than its `Content-Length`.
    BodyTooLong = 505,
    /// The response has a body but no `Content-Type`.
    NoContentType = 506,
    /// A body came with a status that has none.
    UnwantedBody = 507,
    /// A `Location` was left out because the web server would have acted on it.
    LocationLeftOut = 508,
    /// `close()` of the response raised an exception.
    CloseRaised = 509,
    /// The response could not be written.
    NotWritten = 510,
    /// The process ended by itself before it replied.
    ProcessEnded = 601,
    /// The process ended after the head of its response had left.
    EndedAfterHeaders = 602,
    /// The process was killed by a signal before it replied.
    ProcessKilled = 603,
    /// The request took longer than `--timeout`.
    TimedOut = 604,
    /// A request takes long.
    SlowRequest = 605,
    /// The web server ended the request.
    Terminated = 606,
    /// A process did not exit in time after its last request.
    ExitTimedOut = 607,
    /// A process that the application forked came back from it.
    ChildReturned = 608,
    /// The application has left a timer behind.
    TimerLeft = 609,
    /// The application has closed descriptors of wsgate's.
    DescriptorsLost = 610,
    /// A worker that was asked to stop goes on with its request.
    StillRuns = 611,
    /// A worker that was asked to stop did not finish its request in time.
    DrainTimedOut = 612,
    /// A worker of a pool ended by itself.
    WorkerDied = 701,
    /// A worker ended while it loaded the application.
    WorkerLoadFailed = 702,
    /// The template of a pool ended by itself.
    TemplateDied = 703,
    /// No worker could be forked.
    ForkFailed = 704,
    /// A process that has served its last request does not end.
    WorkerNotExiting = 705,
    /// A thread of a worker could not be started.
    NoThread = 706,
    /// A worker cannot accept connections any more.
    CannotAccept = 707,
    /// A worker makes way for another.
    WorkerReplaced = 708,
    /// A pool begins to serve.
    PoolReady = 710,
    /// New code takes over.
    PoolReloaded = 711,
    /// A pool ends.
    PoolEnds = 712,
    /// A pool goes on with the build that it was started with, though another is installed.
    EngineReplaced = 713,
    /// A file has changed, and new code is loaded.
    ChangeSeen = 714,
    /// New code could not be loaded.
    ReloadFailed = 715,
    /// A pool without work has let its last process of Python go.
    PoolIdle = 716,
    /// A request is refused since no worker can serve it.
    NoWorkerServes = 717,
    /// A listening socket cannot be had.
    BadListener = 720,
    /// A service manager has passed a socket that is not served.
    SocketLeft = 721,
    /// A pool cannot serve as the user that `--user` names.
    NotThatUser = 722,
    /// A pool serves as root.
    ServesAsRoot = 723,
    /// Root is to make a file where others can lead it elsewhere.
    UntrustedPath = 724,
    /// A pool cannot be asked anything.
    NoControlSocket = 730,
    /// A service manager cannot be told anything.
    NotifyFailed = 731,
    /// A supervisor has received a signal that means nothing to it.
    StraySignal = 732,
    /// A line of the access log could not be written.
    AccessNotLogged = 740,
    /// A log could not be opened again.
    LogNotReopened = 741,
    /// The logs were opened again.
    LogsReopened = 742,
    /// Messages could not be written to the error log.
    MessagesLost = 743,
    /// A request cannot be handed to a warm pool, and is served cold.
    ServedCold = 801,
    /// A warm pool could not be started, or has failed to.
    NoWarmPool = 802,
    /// Files of an application cannot be watched.
    NotWatched = 803,
    /// No process of a warm pool was free, and the request was refused.
    PoolFull = 804,
    /// A warm pool is as old as it may become.
    WarmPoolOld = 805,
    /// No FastCGI server can be reached.
    NoServer = 901,
    /// A FastCGI server refused the request.
    Refused = 902,
    /// A FastCGI server did not response to the end.
    ResponseCut = 903,
    /// What came is no FastCGI, or no response.
    NoResponse = 904,
    /// No pool of that name runs.
    NoPool = 905,
    /// Something that must not happen.
    Internal = 999,
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "W{:04}", *self as u16)
    }
}

/// Most bytes of a sentence or line, and of all lines of a detail together: an exception may carry
/// a whole upload.
const LONGEST_SENTENCE: usize = 2_000;
const LONGEST_DETAIL: usize = 32_000;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The request failed.
    Error,
    /// The request went on.
    Warning,
    /// All is as it should be.
    Notice,
}

/// A message for the operator.
#[derive(Clone, Debug)]
pub struct LogMessage {
    severity: Severity,
    code: Code,
    sentence: String,
    detail: Option<String>,
    hint: Option<String>,
}

impl LogMessage {
    /// An error: `sentence` is lower-case, has values in backticks and no full stop.
    pub fn error(code: Code, sentence: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            code,
            sentence: sentence.into(),
            detail: None,
            hint: None,
        }
    }

    /// A warning, worded as an error is.
    pub fn warning(code: Code, sentence: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, sentence) }
    }

    /// A notice, worded as an error is.
    pub fn notice(code: Code, sentence: impl Into<String>) -> Self {
        Self { severity: Severity::Notice, ..Self::error(code, sentence) }
    }

    /// An error: the application has closed descriptors that are not its own; `which` says how that
    /// was noticed.
    pub fn descriptors_lost(which: &str) -> Self {
        Self::error(
            Code::DescriptorsLost,
            format!("the application closed descriptors of wsgate's: {which}"),
        )
        .hint(
            "close only what the application has opened: look for `os.closerange()`, `os.close()` \
             and `os.dup2()` with numbers, and for code that makes a daemon",
        )
    }

    /// Adds lines that explain, such as a traceback.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Adds the next step.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The code.
    pub fn code(&self) -> Code {
        self.code
    }

    /// Sentence, detail and hint, as a client sees them with `--debug`.
    pub fn for_client(&self) -> String {
        self.render(None)
    }

    /// The entry as it goes to the log; `about` names the request.
    pub fn for_log(&self, about: &dyn fmt::Display) -> String {
        self.render(Some(about))
    }

    fn render(&self, about: Option<&dyn fmt::Display>) -> String {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Notice => "notice",
        };
        let sentence = shorten(&self.sentence, LONGEST_SENTENCE);
        let mut text = format!("wsgate: {severity}[{}]: {}\n", self.code, Escaped(&sentence));
        // Writing to a string cannot fail.
        if let Some(detail) = &self.detail {
            for line in shorten_lines(detail, LONGEST_DETAIL).lines() {
                let _ = writeln!(text, "  {}", Escaped(&shorten(line, LONGEST_SENTENCE)));
            }
        }
        if let Some(hint) = &self.hint {
            let _ = writeln!(text, "hint: {}", Escaped(hint));
        }
        if let Some(about) = about {
            let _ = writeln!(text, "request: {}", Escaped(&about.to_string()));
        }
        text
    }
}

/// `text` with its beginning and its end, and not much more than `most` bytes together.
pub fn shorten(text: &str, most: usize) -> Cow<'_, str> {
    if text.len() <= most {
        return Cow::Borrowed(text);
    }
    let (begin, end) = ends(text, most * 3 / 4, most / 4);
    Cow::Owned(format!(
        "{begin} … ({} bytes are left out) … {end}",
        text.len() - begin.len() - end.len()
    ))
}

/// The same in whole lines, more of which stand at the end, since that is where the place of an
/// error stands.
pub fn shorten_lines(text: &str, most: usize) -> Cow<'_, str> {
    if text.len() <= most {
        return Cow::Borrowed(text);
    }
    let (begin, end) = ends(text, most / 3, most * 2 / 3);
    // A line that is longer than the whole is shortened by itself, but not lost.
    let begin = begin.rfind('\n').map_or(begin, |at| &begin[..=at]);
    let end = end.find('\n').filter(|&at| at + 1 < end.len()).map_or(end, |at| &end[at + 1..]);
    let left_out = text.len() - begin.len() - end.len();
    let gap = if begin.ends_with('\n') { "" } else { "\n" };
    Cow::Owned(format!("{begin}{gap}… ({left_out} bytes are left out)\n{end}"))
}

/// The beginning and the end of `text`, at most so many bytes each and no more than there are.
fn ends(text: &str, first: usize, last: usize) -> (&str, &str) {
    let first =
        (0..=first.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    let from = text.len().saturating_sub(last).max(first);
    let from = (from..=text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or(text.len());
    (&text[..first], &text[from..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_has_its_four_parts_in_order() {
        let entry = LogMessage::error(Code::NoCallable, "no `application` in `x.wsgi`")
            .detail("found: a\nfound: b")
            .hint("name it");
        assert_eq!(
            entry.for_log(&"abc GET /"),
            "wsgate: error[W0303]: no `application` in `x.wsgi`\n  found: a\n  found: b\nhint: \
                name it\nrequest: abc GET /\n"
        );
        assert!(!entry.for_client().contains("request:"));
    }

    #[test]
    fn no_value_can_forge_a_line() {
        let entry = LogMessage::error(Code::BadRequest, "bad `a\nwsgate: error`");
        assert_eq!(
            entry.for_log(&"x\r\ny"),
            "wsgate: error[W0401]: bad `a\\nwsgate: error`\nrequest: x\\r\\ny\n"
        );
    }

    #[test]
    fn an_entry_has_an_end_however_much_it_is_given() {
        let entry = LogMessage::error(Code::ApplicationRaised, "é".repeat(1_000_000))
            .detail(format!("first\n{}\nlast", "é".repeat(1_000_000)));
        let text = entry.for_client();
        assert!(
            text.len() < 40_000 && text.contains("\n  first\n") && text.ends_with("last\n"),
            "{text:.9000}"
        );
    }

    #[test]
    fn what_is_shortened_keeps_its_ends() {
        assert_eq!(shorten("é€", 5), "é€");
        assert_eq!(shorten("abcdefghijkl", 8), "abcdef … (4 bytes are left out) … kl");
        let lines: String = (0..1000).map(|number| format!("line {number}\n")).collect();
        let short = shorten_lines(&lines, 300);
        assert!(
            short.starts_with("line 0\nline 1\n") && short.ends_with("line 998\nline 999\n"),
            "{short}"
        );
        assert!(
            short.len() < 360
                && short.lines().all(|line| lines.contains(line) || line.contains("left out")),
            "{short}"
        );
        for text in [
            "x".repeat(1000),
            format!("{}\n", "é".repeat(1000)),
            format!("a\n{}\nb", "x".repeat(1000)),
        ] {
            let short = shorten_lines(&text, 100);
            assert!((100..160).contains(&short.len()) || short.starts_with("a\n"), "{short}");
        }
    }

    #[test]
    fn no_code_is_given_twice() {
        let mut numbers: Vec<u16> = Code::ALL.iter().map(|&code| code as u16).collect();
        numbers.dedup();
        assert_eq!(numbers.len(), Code::ALL.len());
        assert!(numbers.is_sorted());
    }
}

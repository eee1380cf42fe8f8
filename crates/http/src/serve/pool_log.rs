//! The log of a pool: passed on to the terminal, and kept for the page about code that cannot be
//! loaded.

use std::{cell::RefCell, rc::Rc};

use diagnostics::{error_log, log_style, message::Subject, shorten::shorten_lines};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    process::ChildStderr,
};

/// Maximum length of the kept text in bytes.
const MAX_KEPT_BYTES: usize = 64 * 1024;

/// Maximum length of a line that is read at once.
const MAX_LINE_BYTES: u64 = 64 * 1024;

/// Messages of a pool that tell a developer nothing: a pool starts with each change.
const LEFT_OUT: [&str; 3] = [READY, "notice[W0712]", "warning[W0723]"];

/// The message of a pool that serves.
const READY: &str = "notice[W0710]";

/// The last line of each message.
const MESSAGE_END: &str = "request: ";

/// The text of a pool on standard error.
#[derive(Default)]
pub(super) struct PoolLog {
    kept: RefCell<String>,
}

impl PoolLog {
    /// The log of a pool that has said `text`.
    pub(super) fn of(text: String) -> Self {
        Self { kept: RefCell::new(text) }
    }

    /// What the pool has said.
    pub(super) fn text(&self) -> String {
        shorten_lines(&self.kept.borrow(), MAX_KEPT_BYTES).into_owned()
    }

    /// Reads what the pool says until it closes `stderr`. Calls `is_ready` when the pool serves.
    pub(super) async fn read(self: Rc<Self>, stderr: ChildStderr, is_ready: impl Fn()) {
        let mut reader = BufReader::new(stderr);
        let (mut line, mut is_left_out) = (Vec::new(), false);
        loop {
            line.clear();
            let mut limited = (&mut reader).take(MAX_LINE_BYTES);
            match limited.read_until(b'\n', &mut line).await {
                Ok(1..) => {}
                _ => return,
            }
            let text = String::from_utf8_lossy(&line);
            let is_message = text.contains(" wsgate: ") || text.starts_with("wsgate: ");
            if is_message {
                if text.contains(READY) {
                    is_ready();
                }
                is_left_out = LEFT_OUT.iter().any(|code| text.contains(code));
            }
            if !is_left_out {
                self.keep(&text);
                let about = Subject::no_request(log_style::pool());
                error_log::write(&line, Subject::new(&about));
            } else if text.starts_with(MESSAGE_END) {
                is_left_out = false;
            }
        }
    }

    fn keep(&self, text: &str) {
        let mut kept = self.kept.borrow_mut();
        if kept.len() < MAX_KEPT_BYTES {
            kept.push_str(text);
        }
    }
}

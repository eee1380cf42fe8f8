//! A terminal as a screen: keys, size, and lines that replace the earlier ones.

use std::io::{self, IsTerminal as _, Write as _};

use rustix::{
    stdio::{stdin, stdout},
    termios::{
        LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetwinsize, tcsetattr,
    },
};

/// Switches to the alternate screen, hides the cursor, and turns line wrapping off.
const ENTER: &str = "\u{1b}[?1049h\u{1b}[?25l\u{1b}[?7l";

/// Undoes [`ENTER`].
const LEAVE: &str = "\u{1b}[?7h\u{1b}[?25h\u{1b}[?1049l";

/// Size of a terminal that does not know its own.
const DEFAULT_SIZE: (usize, usize) = (80, 24);

/// A key, or a group of keys with one meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// An arrow, `j` or `k`: so many lines down.
    Move(isize),
    /// Return: open.
    Open,
    /// Escape or Backspace: go back.
    Back,
    /// `q`, Ctrl-C or Ctrl-D.
    Quit,
    /// Another character.
    Character(char),
}

/// The terminal of this process. Dropping the value restores the terminal.
pub(super) struct Screen {
    /// Settings of the terminal from before; `None` if standard input is no terminal.
    before: Option<Termios>,
}

impl Screen {
    /// Can standard output show a screen?
    pub(super) fn is_possible() -> bool {
        let is_dumb = std::env::var_os("TERM").is_none_or(|name| name.is_empty() || name == "dumb");
        io::stdout().is_terminal() && !is_dumb
    }

    /// Takes the terminal.
    ///
    /// # Errors
    /// If the terminal cannot be set up or written.
    pub(super) fn enter() -> io::Result<Self> {
        let before = if io::stdin().is_terminal() { Some(tcgetattr(stdin())?) } else { None };
        let screen = Self { before };
        screen.enter_again()?;
        Ok(screen)
    }

    /// Takes the terminal again, after this process was stopped and continued.
    ///
    /// # Errors
    /// If the terminal cannot be set up or written.
    pub(super) fn enter_again(&self) -> io::Result<()> {
        if let Some(before) = &self.before {
            let mut raw = before.clone();
            raw.local_modes -= LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG;
            // A read returns what has come.
            raw.special_codes[SpecialCodeIndex::VMIN] = 0;
            raw.special_codes[SpecialCodeIndex::VTIME] = 0;
            tcsetattr(stdin(), OptionalActions::Now, &raw)?;
        }
        write(ENTER)
    }

    /// Restores the terminal.
    pub(super) fn leave(&self) {
        // The terminal may have been closed.
        let _ = write(LEAVE);
        if let Some(before) = &self.before {
            let _ = tcsetattr(stdin(), OptionalActions::Flush, before);
        }
    }

    /// Can keys be read?
    pub(super) fn has_keys(&self) -> bool {
        self.before.is_some()
    }

    /// The keys that were pressed. A terminal that was closed is [`Key::Quit`].
    pub(super) fn keys() -> Vec<Key> {
        let mut bytes = [0; 256];
        match rustix::io::read(stdin(), &mut bytes) {
            Ok(0) => vec![Key::Quit],
            Ok(length) => keys_in(&bytes[..length]),
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => Vec::new(),
            Err(_) => vec![Key::Quit],
        }
    }

    /// Columns and lines of the terminal.
    pub(super) fn size() -> (usize, usize) {
        match tcgetwinsize(stdout()) {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
                (size.ws_col.into(), size.ws_row.into())
            }
            _ => DEFAULT_SIZE,
        }
    }

    /// Shows `lines` in place of what is visible.
    ///
    /// # Errors
    /// If the terminal cannot be written.
    pub(super) fn show(lines: &[String]) -> io::Result<()> {
        let lines: Vec<String> = lines.iter().map(|line| format!("{line}\u{1b}[K")).collect();
        write(&format!("\u{1b}[H{}\u{1b}[J", lines.join("\r\n")))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.leave();
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    output.write_all(text.as_bytes())?;
    output.flush()
}

/// The keys whose bytes are `bytes`.
fn keys_in(mut bytes: &[u8]) -> Vec<Key> {
    let mut keys = Vec::new();
    while let Some((&first, rest)) = bytes.split_first() {
        bytes = rest;
        keys.extend(match first {
            0x1b => match bytes {
                [b'[' | b'O', rest @ ..] => {
                    let end =
                        rest.iter().position(|byte| byte.is_ascii_alphabetic() || *byte == b'~');
                    let (sequence, rest) = rest.split_at(end.map_or(rest.len(), |end| end + 1));
                    bytes = rest;
                    match sequence {
                        b"A" => Some(Key::Move(-1)),
                        b"B" => Some(Key::Move(1)),
                        b"5~" => Some(Key::Move(-10)),
                        b"6~" => Some(Key::Move(10)),
                        _ => None,
                    }
                }
                _ => Some(Key::Back),
            },
            0x7f | 0x08 => Some(Key::Back),
            b'\r' | b'\n' => Some(Key::Open),
            b'q' | b'Q' | 0x03 | 0x04 => Some(Key::Quit),
            b'k' => Some(Key::Move(-1)),
            b'j' => Some(Key::Move(1)),
            b' '..=b'~' => Some(Key::Character(first.into())),
            _ => None,
        });
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_from_their_bytes() {
        for (bytes, keys) in [
            (&b"\x1b[A\x1bOB"[..], &[Key::Move(-1), Key::Move(1)][..]),
            (b"\x1b", &[Key::Back]),
            (b"\x1b[6~jk", &[Key::Move(10), Key::Move(1), Key::Move(-1)]),
            (b"\x1b[1;5Ct\r", &[Key::Character('t'), Key::Open]),
            (b"\x03\xc3\xa9\x00", &[Key::Quit]),
            (b"\x1b[", &[]),
        ] {
            assert_eq!(keys_in(bytes), keys, "{bytes:?}");
        }
    }
}

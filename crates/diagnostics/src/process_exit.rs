//! How a process exited, as log messages say it.

use std::{fmt, os::unix::process::ExitStatusExt as _, process::ExitStatus};

/// The text for an exit status: `was killed by SIGKILL`, `exited with status 3`.
#[derive(Clone, Copy, Debug)]
pub struct ExitText(pub ExitStatus);

impl fmt::Display for ExitText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.signal() {
            Some(signal) => write!(f, "was killed by {}", signal_name(signal)),
            None => write!(f, "exited with status {}", self.0.code().unwrap_or(-1)),
        }
    }
}

/// The name of a signal, such as `SIGTERM`.
pub fn signal_name(signal: i32) -> String {
    signal_hook::low_level::signal_name(signal)
        .map_or_else(|| format!("signal {signal}"), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_status_is_a_number_or_the_name_of_a_signal() {
        for (raw, text) in [
            (0, "exited with status 0"),
            (3 << 8, "exited with status 3"),
            (9, "was killed by SIGKILL"),
            (40, "was killed by signal 40"),
        ] {
            assert_eq!(ExitText(ExitStatus::from_raw(raw)).to_string(), text);
        }
    }
}

//! Is a process stopped? Any user may read that.

use std::fs;

/// What has stopped a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopCause {
    /// SIGSTOP, or a signal of the terminal.
    Signal,
    /// A debugger.
    Debugger,
}

impl StopCause {
    /// What has stopped the process `pid`; `None` if it runs or has exited.
    pub fn of(pid: i32) -> Option<Self> {
        Self::in_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The cause in `/proc/PID/stat`.
    pub fn in_stat(stat: &str) -> Option<Self> {
        // The name of the program, in parentheses, may contain spaces and parentheses.
        match stat.rsplit_once(") ")?.1.split(' ').next() {
            Some("T") => Some(Self::Signal),
            Some("t") => Some(Self::Debugger),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_is_read_behind_any_name() {
        assert_eq!(StopCause::in_stat("7 (a) S (b) T 1 7"), Some(StopCause::Signal));
        assert_eq!(StopCause::in_stat("7 (a) t 1 7"), Some(StopCause::Debugger));
        assert_eq!(StopCause::in_stat("7 (a) T (b) S 1 7"), None);
        assert_eq!(StopCause::of(1), None);
    }
}

//! Users and groups, by the machine's own programs: these ask every directory that the machine has, and a statically linked program
//! cannot load the parts of the C library that do.

use std::process::{Command, Stdio};

/// Number of the user `name`.
pub(crate) fn user(name: &str) -> Option<u32> {
    numbers(Command::new("id").args(["-u", "--", name]))?.first().copied()
}

/// Numbers of the groups of the user `name`, the first of them first.
pub(crate) fn groups(name: &str) -> Option<Vec<u32>> {
    numbers(Command::new("id").args(["-G", "--", name]))
}

/// Number of the group `name`.
pub(crate) fn group(name: &str) -> Option<u32> {
    said(Command::new("getent").args(["group", "--", name]))?.split(':').nth(2)?.parse().ok()
}

fn numbers(command: &mut Command) -> Option<Vec<u32>> {
    said(command)?.split_ascii_whitespace().map(str::parse).collect::<Result<_, _>>().ok()
}

fn said(command: &mut Command) -> Option<String> {
    let said = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    if said.status.success() { String::from_utf8(said.stdout).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_and_its_group_are_zero_and_nobody_is_called_so() {
        assert_eq!((user("root"), group("root")), (Some(0), Some(0)));
        assert_eq!(groups("root").and_then(|groups| groups.first().copied()), Some(0));
        for strange in ["no-such-name-here", "", "-u", "a:b"] {
            assert_eq!((user(strange), group(strange)), (None, None), "{strange}");
        }
    }
}

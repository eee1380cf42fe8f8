//! Users and groups, by the machine's own programs: these ask every directory that the machine has,
//! and a statically linked program cannot load the parts of the C library that do. A machine
//! without these programs, such as a small container, has its users in files.

use std::{
    fs,
    process::{Command, Stdio},
};

/// A number of a user or group, as digits alone. The highest means none to the kernel.
pub(crate) fn number(text: &str) -> Option<u32> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|&number| is_number && number != u32::MAX)
}

/// Nothing, if it is no name or number of a user or group: the machine's programs read `+5` and `
/// 5` as 5.
fn plain(name: &str) -> Option<&str> {
    let is_plain = name.starts_with(|first: char| first.is_alphanumeric() || "_.".contains(first));
    (is_plain && name.trim() == name).then_some(name)
}

/// Number of the user `name`.
pub(crate) fn user(name: &str) -> Option<u32> {
    let name = plain(name)?;
    match said(Command::new("id").args(["-u", "--", name])) {
        Said::Text(text) => text.trim().parse().ok(),
        Said::Nothing => None,
        Said::NoProgram => field(&line(PASSWD, |fields| fields.first() == Some(&name))?, 2),
    }
}

/// Numbers of the groups of the user `name`, the first of them first.
pub(crate) fn groups(name: &str) -> Option<Vec<u32>> {
    let name = plain(name)?;
    match said(Command::new("id").args(["-G", "--", name])) {
        Said::Text(text) => {
            text.split_ascii_whitespace().map(str::parse).collect::<Result<_, _>>().ok()
        }
        Said::Nothing => None,
        Said::NoProgram => {
            let primary = field(&line(PASSWD, |fields| fields.first() == Some(&name))?, 3)?;
            let text = fs::read_to_string(GROUP).unwrap_or_default();
            let has_them = |line: &&str| {
                line.split(':')
                    .nth(3)
                    .is_some_and(|users| users.split(',').any(|user| user == name))
            };
            let others = text.lines().filter(has_them).filter_map(|line| field(line, 2));
            Some([primary].into_iter().chain(others.filter(|&group| group != primary)).collect())
        }
    }
}

/// Number of the group `name`.
pub(crate) fn group(name: &str) -> Option<u32> {
    let name = plain(name)?;
    match said(Command::new("getent").args(["group", "--", name])) {
        Said::Text(text) => field(&text, 2),
        Said::Nothing => None,
        Said::NoProgram => field(&line(GROUP, |fields| fields.first() == Some(&name))?, 2),
    }
}

/// The line of passwd(5) about the user with this name or number.
pub(crate) fn passwd(user: &str) -> Option<String> {
    let user = plain(user)?;
    match said(Command::new("getent").args(["passwd", "--", user])) {
        Said::Text(text) => Some(text),
        Said::Nothing => None,
        Said::NoProgram => {
            line(PASSWD, |fields| [fields.first(), fields.get(2)].contains(&Some(&user)))
        }
    }
}

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";

/// What a program says.
enum Said {
    Text(String),
    /// It does not know.
    Nothing,
    NoProgram,
}

fn said(command: &mut Command) -> Said {
    match command.stdin(Stdio::null()).stderr(Stdio::null()).output() {
        Ok(said) if said.status.success() => {
            String::from_utf8(said.stdout).map_or(Said::Nothing, Said::Text)
        }
        Ok(_) => Said::Nothing,
        Err(_) => Said::NoProgram,
    }
}

/// The first line of a file of the machine's whose fields are those that `is_it` looks for.
fn line(path: &str, is_it: impl Fn(&[&str]) -> bool) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find(|line| is_it(&line.split(':').collect::<Vec<_>>())).map(str::to_owned)
}

/// The number that is a field of a line.
fn field(line: &str, position: usize) -> Option<u32> {
    line.trim_end().split(':').nth(position)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_and_its_group_are_zero_and_nobody_is_called_so() {
        assert_eq!((user("root"), group("root")), (Some(0), Some(0)));
        assert_eq!(groups("root").and_then(|groups| groups.first().copied()), Some(0));
        for strange in ["no-such-name-here", "", "-u", "a:b", " 0", "+0", "0 ", "root "] {
            assert_eq!((user(strange), group(strange)), (None, None), "{strange}");
            assert_eq!((groups(strange), passwd(strange)), (None, None), "{strange}");
        }
    }
    #[test]
    fn a_number_is_digits_and_not_the_kernels_word_for_none() {
        assert_eq!((number("0"), number("4294967294")), (Some(0), Some(4294967294)));
        for strange in
            ["", "+5", "-1", " 5", "5 ", "0x5", "\u{663}", "4294967295", "99999999999999999999"]
        {
            assert_eq!(number(strange), None, "{strange}");
        }
    }
}

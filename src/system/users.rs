//! Users and groups, looked up by `id` and `getent`: a statically linked program cannot load the
//! modules of the C library that ask all sources of users (nsswitch.conf(5)). On a machine without
//! these programs, such as a small container, this module reads passwd(5) and group(5) directly.

use std::{
    env, fs,
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    process::{Command, Stdio},
};

use rustix::process::geteuid;

/// The user or group ID in `text`, which has digits only. The highest ID means "no user" to the
/// kernel.
pub(crate) fn number(text: &str) -> Option<u32> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|&number| is_number && number != u32::MAX)
}

/// `name`, if it can be the name or number of a user or group: `id` reads `+5` and ` 5` as 5.
fn plain(name: &str) -> Option<&str> {
    let is_plain = name.starts_with(|first: char| first.is_alphanumeric() || "_.".contains(first));
    (is_plain && name.trim() == name).then_some(name)
}

/// The user ID of `name`.
pub(crate) fn user(name: &str) -> Option<u32> {
    let name = plain(name)?;
    match look_up(Command::new("id").args(["-u", "--", name])) {
        Lookup::Found(text) => text.trim().parse().ok(),
        Lookup::NotFound => None,
        Lookup::NoProgram => field(&line(PASSWD, |fields| fields.first() == Some(&name))?, 2),
    }
}

/// The group IDs of the user `name`, the primary group first.
pub(crate) fn groups(name: &str) -> Option<Vec<u32>> {
    let name = plain(name)?;
    match look_up(Command::new("id").args(["-G", "--", name])) {
        Lookup::Found(text) => {
            text.split_ascii_whitespace().map(str::parse).collect::<Result<_, _>>().ok()
        }
        Lookup::NotFound => None,
        Lookup::NoProgram => {
            let primary = field(&line(PASSWD, |fields| fields.first() == Some(&name))?, 3)?;
            let text = fs::read_to_string(GROUP).unwrap_or_default();
            let is_member = |line: &&str| {
                line.split(':')
                    .nth(3)
                    .is_some_and(|users| users.split(',').any(|user| user == name))
            };
            let others = text.lines().filter(is_member).filter_map(|line| field(line, 2));
            Some([primary].into_iter().chain(others.filter(|&group| group != primary)).collect())
        }
    }
}

/// The group ID of `name`.
pub(crate) fn group(name: &str) -> Option<u32> {
    let name = plain(name)?;
    match look_up(Command::new("getent").args(["group", "--", name])) {
        Lookup::Found(text) => field(&text, 2),
        Lookup::NotFound => None,
        Lookup::NoProgram => field(&line(GROUP, |fields| fields.first() == Some(&name))?, 2),
    }
}

/// The name of the group with the ID `gid`.
pub(crate) fn group_name(gid: u32) -> Option<String> {
    let gid = gid.to_string();
    let found = match look_up(Command::new("getent").args(["group", "--", &gid])) {
        Lookup::Found(text) => Some(text),
        Lookup::NotFound => None,
        Lookup::NoProgram => line(GROUP, |fields| fields.get(2) == Some(&gid.as_str())),
    };
    found?.split(':').next().map(str::to_owned)
}

/// The line of passwd(5) for the user with this name or number.
pub(crate) fn passwd(user: &str) -> Option<String> {
    let user = plain(user)?;
    match look_up(Command::new("getent").args(["passwd", "--", user])) {
        Lookup::Found(text) => Some(text),
        Lookup::NotFound => None,
        Lookup::NoProgram => {
            line(PASSWD, |fields| [fields.first(), fields.get(2)].contains(&Some(&user)))
        }
    }
}

/// The home directory of the user with the ID `uid`, which belongs to that user.
pub(crate) fn home(uid: u32) -> Option<PathBuf> {
    let is_own = |home: &PathBuf| fs::metadata(home).is_ok_and(|found| found.uid() == uid);
    let variable = env::var_os("HOME").filter(|_| uid == geteuid().as_raw()).map(PathBuf::from);
    let of_passwd = || passwd(&uid.to_string())?.trim_end().split(':').nth(5).map(PathBuf::from);
    variable.filter(is_own).or_else(|| of_passwd().filter(is_own))
}

/// The first user ID of persons: lower ones belong to services (login.defs(5)).
pub(crate) fn first_person() -> u32 {
    uid_min(&fs::read_to_string("/etc/login.defs").unwrap_or_default())
}

/// The value of UID_MIN in the text of login.defs(5), or its default.
fn uid_min(text: &str) -> u32 {
    let mut values = text.lines().filter_map(|line| line.trim().strip_prefix("UID_MIN"));
    let value = values.find_map(|rest| {
        rest.starts_with(char::is_whitespace).then(|| rest.trim().parse().ok()).flatten()
    });
    value.unwrap_or(1000)
}

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";

/// The result of a lookup by a program.
enum Lookup {
    Found(String),
    NotFound,
    NoProgram,
}

fn look_up(command: &mut Command) -> Lookup {
    match command.stdin(Stdio::null()).stderr(Stdio::null()).output() {
        Ok(output) if output.status.success() => {
            String::from_utf8(output.stdout).map_or(Lookup::NotFound, Lookup::Found)
        }
        Ok(_) => Lookup::NotFound,
        Err(_) => Lookup::NoProgram,
    }
}

/// The first line of the file `path` whose fields `is_match` accepts.
fn line(path: &str, is_match: impl Fn(&[&str]) -> bool) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find(|line| is_match(&line.split(':').collect::<Vec<_>>())).map(str::to_owned)
}

/// The ID in a field of a line.
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
    fn persons_begin_at_the_number_of_login_defs() {
        for (text, first) in [
            ("", 1000),
            ("#UID_MIN 5\nSYS_UID_MIN 100\nUID_MIN\t\t 500\nUID_MAX 60000\n", 500),
            ("UID_MIN many\n", 1000),
        ] {
            assert_eq!(uid_min(text), first, "{text}");
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

//! Who may connect to the Unix sockets of a pool: their permissions and their owner.

use std::{fmt, str::FromStr};

use diagnostics::message::{Code, LogMessage};

use crate::system::users;

/// Permissions of a file, written in octal.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct FileMode(pub(super) u32);

impl FromStr for FileMode {
    type Err = String;

    fn from_str(value: &str) -> Result<Self, String> {
        u32::from_str_radix(value, 8)
            .ok()
            .filter(|mode| *mode <= 0o777)
            .map(Self)
            .ok_or_else(|| "give an octal number up to 777, such as `660`".to_owned())
    }
}

impl fmt::Display for FileMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:o}", self.0)
    }
}

/// The value of `--socket-owner`: names or numbers of a user, a group, or both.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct SocketOwner {
    user: Option<String>,
    group: Option<String>,
}

impl FromStr for SocketOwner {
    type Err = String;

    fn from_str(value: &str) -> Result<Self, String> {
        let named = |name: &str| Some(name.to_owned());
        Ok(match value.split_once(':') {
            None if !value.is_empty() => Self { user: named(value), group: None },
            Some(("", group)) if !group.is_empty() => Self { user: None, group: named(group) },
            Some((user, group)) if !group.is_empty() => {
                Self { user: named(user), group: named(group) }
            }
            _ => return Err("give USER, USER:GROUP or :GROUP, such as `app:www-data`".to_owned()),
        })
    }
}

/// Permissions and owner of Unix sockets.
#[derive(Clone, Debug)]
pub(super) struct SocketAccess {
    pub(super) mode: u32,
    /// The ID of the user who owns the sockets, instead of the pool's user.
    pub(super) user: Option<u32>,
    /// The ID of the group of the sockets, instead of the pool's group.
    pub(super) group: Option<u32>,
}

impl SocketAccess {
    /// Access with `mode`, for `owner`.
    ///
    /// # Errors
    /// If the user or group does not exist.
    pub(super) fn new(mode: FileMode, owner: Option<&SocketOwner>) -> Result<Self, LogMessage> {
        let FileMode(mode) = mode;
        let Some(SocketOwner { user: user_name, group }) = owner else {
            return Ok(Self { mode, user: None, group: None });
        };
        let unknown = |kind: &str, name: &str, list: &str| {
            LogMessage::new(
                Code::NotThatUser,
                format!("there is no {kind} `{name}`, which --socket-owner names"),
            )
            .hint(format!("`getent {list}` lists the {kind}s"))
        };
        let find_user = |name: &String| {
            let found = users::user(name).or_else(|| users::number(name));
            found.ok_or_else(|| unknown("user", name, "passwd"))
        };
        let find_group = |name: &String| {
            let found = users::group(name).or_else(|| users::number(name));
            found.ok_or_else(|| unknown("group", name, "group"))
        };
        let user = user_name.as_ref().map(find_user).transpose()?;
        let group = match group {
            Some(group) => Some(find_group(group)?),
            // The primary group of the user.
            None => user_name.as_deref().and_then(users::groups).and_then(|it| it.first().copied()),
        };
        Ok(Self { mode, user, group })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_a_user_a_group_or_both() {
        let owner = |user: Option<&str>, group: Option<&str>| {
            Ok(SocketOwner { user: user.map(str::to_owned), group: group.map(str::to_owned) })
        };
        assert_eq!("app".parse(), owner(Some("app"), None));
        assert_eq!("app:web".parse(), owner(Some("app"), Some("web")));
        assert_eq!(":web".parse(), owner(None, Some("web")));
        for wrong in ["", ":", "app:"] {
            assert!(wrong.parse::<SocketOwner>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_mode_is_octal() {
        assert_eq!("660".parse(), Ok(FileMode(0o660)));
        for wrong in ["", "888", "1000", "-1", "rw"] {
            assert!(wrong.parse::<FileMode>().is_err(), "{wrong}");
        }
    }
}

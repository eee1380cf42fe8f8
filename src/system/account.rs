//! The user that a pool runs as if root starts it: the user and group IDs, the environment
//! variables, and the change of this process to that user.

use std::{ffi::OsString, io};

use diagnostics::message::{Code, LogMessage};
use nix::unistd::{
    Gid, Uid, getgroups, getresgid, getresuid, setegid, seteuid, setgroups, setresgid, setresuid,
};

use crate::system::{trusted_path::is_real_root, users};

/// A user and its groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    /// The name or number on the command line.
    name: String,
    /// The user ID.
    pub(crate) uid: u32,
    /// The ID of the primary group.
    pub(crate) gid: u32,
    /// The IDs of all groups.
    groups: Vec<u32>,
    /// `HOME`, `SHELL`, `MAIL`, `USER` and `LOGNAME`.
    variables: Vec<(OsString, OsString)>,
}

impl Account {
    /// The user with the name or number `user`, in `group`, or in the user's primary group. The
    /// groups are those of the user, and `supplementary`.
    ///
    /// # Errors
    /// If there is no such user or group.
    pub(crate) fn find(
        user: &str,
        group: Option<&str>,
        supplementary: &[String],
    ) -> Result<Self, LogMessage> {
        let unknown = |sentence: String| {
            LogMessage::new(Code::NotThatUser, sentence)
                .hint("`getent passwd` and `getent group` list users and groups")
        };
        let line = users::passwd(user);
        let fields: Vec<&str> =
            line.as_deref().map(|line| line.trim_end().split(':').collect()).unwrap_or_default();
        let number =
            |position: usize| fields.get(position).and_then(|field| field.parse::<u32>().ok());
        let uid = number(2)
            .or_else(|| users::number(user))
            .ok_or_else(|| unknown(format!("there is no user `{user}`")))?;
        let group_id = |name: &str| {
            let number = users::group(name).or_else(|| users::number(name));
            number.ok_or_else(|| unknown(format!("there is no group `{name}`")))
        };
        let gid = match group {
            Some(name) => group_id(name)?,
            None => number(3).ok_or_else(|| {
                LogMessage::new(
                    Code::NotThatUser,
                    format!("the user `{user}` is a number that has no primary group here"),
                )
                .hint("set the group with --group")
            })?,
        };
        let name = fields.first().copied().filter(|name| !name.is_empty());
        let mut groups = name.and_then(users::groups).unwrap_or_default();
        if !groups.contains(&gid) {
            groups.insert(0, gid);
        }
        for name in supplementary {
            let group = group_id(name)?;
            if !groups.contains(&group) {
                groups.push(group);
            }
        }
        let field = |position: usize| fields.get(position).copied().filter(|it| !it.is_empty());
        let login = name.map_or_else(|| uid.to_string(), str::to_owned);
        let variables = [
            // A user without a line, as a container may have it.
            ("HOME", field(5).unwrap_or("/").to_owned()),
            ("SHELL", field(6).unwrap_or("/bin/sh").to_owned()),
            ("MAIL", format!("/var/mail/{login}")),
            ("USER", login.clone()),
            ("LOGNAME", login),
        ];
        let variables = variables.map(|(name, value)| (name.into(), value.into())).to_vec();
        Ok(Self { name: user.to_owned(), uid, gid, groups, variables })
    }

    /// The variables that login programs set for this user.
    pub(crate) fn variables(&self) -> &[(OsString, OsString)] {
        &self.variables
    }

    /// Runs `act` with this user's access to files, and then restores the access of root.
    ///
    /// # Errors
    /// The error of `act`, or that of the kernel if this process may not change its user.
    pub(crate) fn act<T>(&self, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let (user, group, groups) = (nix::unistd::geteuid(), nix::unistd::getegid(), getgroups()?);
        setgroups(&gids(&self.groups))?;
        let done = setegid(self.gid.into()).and_then(|()| seteuid(self.uid.into()));
        let done = done.map_err(io::Error::from).and_then(|()| act());
        seteuid(user)?;
        setegid(group)?;
        setgroups(&groups)?;
        done
    }

    /// Becomes this user permanently. Root can become any user; another user only itself.
    ///
    /// # Errors
    /// If this process may not change its user, or could become root again.
    pub(crate) fn assume(&self) -> Result<(), LogMessage> {
        if !is_real_root() {
            let ours = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
            return if ours == (self.uid, self.gid) {
                Ok(())
            } else {
                Err(LogMessage::new(
                    Code::NotThatUser,
                    format!(
                        "only root can run the pool as `{}`, and this is user {}{}",
                        self.name,
                        ours.0,
                        if ours.0 == 0 { " of a user namespace without other users" } else { "" }
                    ),
                )
                .hint(format!(
                    "start wsgate as root, or without --user by `sudo -u {}`",
                    self.name
                )))
            };
        }
        self.change().map_err(|error| {
            LogMessage::new(
                Code::NotThatUser,
                format!("this process cannot become user `{}`: {error}", self.name),
            )
            .hint("a container needs the capabilities SETUID and SETGID for --user")
        })
    }

    fn change(&self) -> io::Result<()> {
        let (user, group) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        setgroups(&gids(&self.groups))?;
        setresgid(group, group, group)?;
        setresuid(user, user, user)?;
        let (users, groups) = (getresuid()?, getresgid()?);
        let has_changed = [users.real, users.effective, users.saved]
            .iter()
            .all(|found| *found == user)
            && [groups.real, groups.effective, groups.saved].iter().all(|found| *found == group);
        let root = Uid::from_raw(0);
        if !has_changed || (!user.is_root() && setresuid(root, root, root).is_ok()) {
            return Err(io::Error::other("the kernel would let the process become root again"));
        }
        Ok(())
    }
}

fn gids(groups: &[u32]) -> Vec<Gid> {
    groups.iter().copied().map(Gid::from_raw).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_name_and_by_number_and_its_group_can_be_another() {
        let root = Account::find("root", None, &[]).unwrap();
        assert_eq!((root.uid, root.gid), (0, 0));
        assert_eq!(Account::find("0", None, &[]).unwrap().uid, 0);
        let home = root.variables().iter().find(|(name, _)| name == "HOME");
        assert_eq!(home.map(|(_, value)| value.as_os_str()), Some("/root".as_ref()));
        let other = Account::find("root", Some("4242"), &["4243".to_owned()]).unwrap();
        assert_eq!((other.gid, other.groups[0], other.groups.last()), (4242, 4242, Some(&4243)));
        let number = Account::find("424242", Some("4242"), &[]).unwrap();
        assert_eq!((number.uid, number.gid), (424_242, 4242));
        let shown: Vec<String> = number
            .variables()
            .iter()
            .map(|(name, value)| format!("{}={}", name.display(), value.display()))
            .collect();
        let expected =
            ["HOME=/", "SHELL=/bin/sh", "MAIL=/var/mail/424242", "USER=424242", "LOGNAME=424242"];
        assert_eq!(shown, expected);
        for (user, group) in
            [("no-such-user", None), ("424242", None), ("", None), ("root", Some("no-such-group"))]
        {
            assert!(Account::find(user, group, &[]).is_err(), "{user} {group:?}");
        }
        for wrong in ["-1", "4294967295", "-u"] {
            assert!(Account::find(wrong, Some("0"), &[]).is_err(), "{wrong}");
        }
    }
}

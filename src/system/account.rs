//! The user that a pool serves as, where root starts it: its numbers, its environment variables,
//! and how this process becomes it.

use std::{ffi::OsString, io};

use diagnostics::message::{Code, LogMessage};
use nix::unistd::{
    Gid, Uid, getgroups, getresgid, getresuid, setegid, seteuid, setgroups, setresgid, setresuid,
};

use crate::system::{trusted_path::is_mighty, users};

/// A user, with its groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    /// As it was named.
    name: String,
    /// Number of the user.
    pub(crate) uid: u32,
    /// Number of its primary group.
    pub(crate) gid: u32,
    /// Numbers of all its groups.
    groups: Vec<u32>,
    /// `HOME`, `SHELL`, `USER` and `LOGNAME`, as far as they are known.
    variables: Vec<(OsString, OsString)>,
}

impl Account {
    /// The user called `user`, or with that number, in `group` if there is one, or else in its
    /// primary group.
    ///
    /// # Errors
    /// If the machine does not know one of them.
    pub(crate) fn find(user: &str, group: Option<&str>) -> Result<Self, LogMessage> {
        let unknown = |what: String| {
            LogMessage::error(Code::NotThatUser, what)
                .hint("`getent passwd` and `getent group` list what this machine knows")
        };
        let line = users::passwd(user);
        let fields: Vec<&str> =
            line.as_deref().map(|line| line.trim_end().split(':').collect()).unwrap_or_default();
        let number =
            |position: usize| fields.get(position).and_then(|field| field.parse::<u32>().ok());
        let uid = number(2)
            .or_else(|| users::number(user))
            .ok_or_else(|| unknown(format!("there is no user `{user}`")))?;
        let gid = match group {
            Some(name) => {
                let number = users::group(name).or_else(|| users::number(name));
                number.ok_or_else(|| unknown(format!("there is no group `{name}`")))?
            }
            None => number(3).ok_or_else(|| {
                LogMessage::error(
                    Code::NotThatUser,
                    format!("the user `{user}` is a number that has no primary group here"),
                )
                .hint("name the group by --group")
            })?,
        };
        let name = fields.first().copied().filter(|name| !name.is_empty());
        let mut groups = name.and_then(users::groups).unwrap_or_default();
        if !groups.contains(&gid) {
            groups.insert(0, gid);
        }
        let known = [("HOME", fields.get(5)), ("SHELL", fields.get(6)), ("USER", fields.first())];
        let variables = known.into_iter().chain([("LOGNAME", fields.first())]);
        let variables = variables.filter_map(|(name, value)| Some((name.into(), (*value?).into())));
        Ok(Self { name: user.to_owned(), uid, gid, groups, variables: variables.collect() })
    }

    /// What login programs set for this user.
    pub(crate) fn variables(&self) -> &[(OsString, OsString)] {
        &self.variables
    }

    /// Does `act` with the rights of this user, as far as files are concerned, and takes root's
    /// again.
    ///
    /// # Errors
    /// That of `act`, or of the kernel if it does not let this process change its user.
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

    /// Becomes this user, for good. Root becomes any; everybody is already themselves.
    ///
    /// # Errors
    /// If this process may not, or could become root again.
    pub(crate) fn assume(&self) -> Result<(), LogMessage> {
        if !is_mighty() {
            let ours = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
            return if ours == (self.uid, self.gid) {
                Ok(())
            } else {
                Err(LogMessage::error(
                    Code::NotThatUser,
                    format!(
                        "only root can serve as `{}`, and this is user {}{}",
                        self.name,
                        ours.0,
                        if ours.0 == 0 { " of a namespace that holds no other" } else { "" }
                    ),
                )
                .hint(format!(
                    "start wsgate as root, or leave --user away and start it by `sudo -u {}`",
                    self.name
                )))
            };
        }
        self.change().map_err(|error| {
            LogMessage::error(
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
            return Err(io::Error::other("the kernel lets it become root again"));
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
        let root = Account::find("root", None).unwrap();
        assert_eq!((root.uid, root.gid), (0, 0));
        assert_eq!(Account::find("0", None).unwrap().uid, 0);
        let home = root.variables().iter().find(|(name, _)| name == "HOME");
        assert_eq!(home.map(|(_, value)| value.as_os_str()), Some("/root".as_ref()));
        let other = Account::find("root", Some("4242")).unwrap();
        assert_eq!((other.gid, other.groups[0]), (4242, 4242));
        let number = Account::find("424242", Some("4242")).unwrap();
        assert_eq!((number.uid, number.gid, number.variables()), (424_242, 4242, &[][..]));
        for (user, group) in
            [("no-such-user", None), ("424242", None), ("", None), ("root", Some("no-such-group"))]
        {
            assert!(Account::find(user, group).is_err(), "{user} {group:?}");
        }
        for wrong in ["-1", "4294967295", "-u"] {
            assert!(Account::find(wrong, Some("0")).is_err(), "{wrong}");
        }
    }
}

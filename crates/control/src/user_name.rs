//! Names of users, for people. The file is read directly, since a statically linked program cannot
//! load the modules of the C library; a user of another source has a number instead.

use std::{collections::BTreeMap, fs};

const PASSWD: &str = "/etc/passwd";

/// The names of users by their IDs.
#[derive(Clone, Debug, Default)]
pub struct UserNames(BTreeMap<u32, String>);

impl UserNames {
    /// Reads passwd(5).
    pub fn read() -> Self {
        Self::parse(&fs::read_to_string(PASSWD).unwrap_or_default())
    }

    fn parse(text: &str) -> Self {
        let mut names = BTreeMap::new();
        for line in text.lines() {
            let mut fields = line.split(':');
            if let (Some(name), Some(Ok(uid))) =
                (fields.next(), fields.nth(1).map(str::parse::<u32>))
            {
                // The first of several names counts, as for getpwuid(3).
                names.entry(uid).or_insert_with(|| name.to_owned());
            }
        }
        Self(names)
    }

    /// The name of the user, or the number.
    pub fn name(&self, uid: u32) -> String {
        self.0.get(&uid).cloned().unwrap_or_else(|| uid.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_without_a_line_has_a_number() {
        let names = UserNames::parse("root:x:0:0::/:\nsite:x:1001:\nother:x:1001:\nbroken\n");
        let shown: Vec<String> = [0, 1001, 7].into_iter().map(|uid| names.name(uid)).collect();
        assert_eq!(shown, ["root", "site", "7"]);
    }
}

//! The names of variables, which are the same in the same order request after request: what one of them means is found out once.

use super::variables::{Known, Pair};

/// Bytes of names that are remembered. Whoever makes up more gains nothing by it.
const MOST: usize = 16 * 1024;

/// The names of a request, one behind the other, with what they mean.
#[derive(Debug, Default)]
pub(crate) struct Names {
    text: Vec<u8>,
    /// Where in `text` each of them ends.
    ends: Vec<(usize, Kind)>,
}

/// What the name of a variable means to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// No application may see it.
    Withheld,
    /// The server itself looks at it.
    Known(Known),
    /// It is one of the spellings of `HTTP_AUTHORIZATION`.
    SpellsAuthorization,
    /// Nothing.
    Other,
}

/// What is known of a name that comes next.
pub(super) enum Next {
    /// It has not come before in this request.
    New(Kind),
    /// It has, and stands at this place among the pairs.
    Twice(usize),
}

/// The names of a request that is coming in.
pub(super) struct Coming<'a> {
    names: &'a mut Names,
    /// How many have come as they did in the request before.
    same: usize,
    /// Where they end in the text.
    end: usize,
    /// Those that have come, once one came that did not come in the request before.
    seen: Option<Seen>,
    /// A name came twice. What follows is not remembered: each that is remembered comes once.
    repeats: bool,
}

impl Names {
    /// Those of the next request.
    pub(super) fn begin(&mut self) -> Coming<'_> {
        Coming { names: self, same: 0, end: 0, seen: None, repeats: false }
    }
}

impl Coming<'_> {
    /// Takes the next name; `pairs` are those that came before it.
    pub(super) fn next(&mut self, name: &[u8], pairs: &[Pair<'_>]) -> Next {
        if self.seen.is_none()
            && let Some(&(end, kind)) = self.names.ends.get(self.same)
            && self.names.text[self.end..end] == *name
        {
            self.same += 1;
            self.end = end;
            return Next::New(kind);
        }
        let seen = self.seen.get_or_insert_with(|| {
            self.names.ends.truncate(self.same);
            self.names.text.truncate(self.end);
            let mut seen = Seen::default();
            for (name, _) in pairs {
                seen.add(name);
            }
            seen
        });
        let kind = Kind::of(name);
        if kind != Kind::Withheld
            && seen.add(name)
            && let Some(place) = pairs.iter().position(|(known, _)| *known == name)
        {
            self.repeats = true;
            return Next::Twice(place);
        }
        if !self.repeats && self.names.text.len() + name.len() <= MOST {
            self.names.text.extend_from_slice(name);
            self.names.ends.push((self.names.text.len(), kind));
        } else {
            self.repeats = true;
        }
        Next::New(kind)
    }

    /// No more come.
    pub(super) fn end(self) {
        if self.seen.is_none() {
            self.names.ends.truncate(self.same);
            self.names.text.truncate(self.end);
        }
    }
}

impl Kind {
    fn of(name: &[u8]) -> Self {
        match Known::of(name) {
            Some(known) => Self::Known(known),
            None if is_withheld(name) => Self::Withheld,
            None if spells_authorization(name) => Self::SpellsAuthorization,
            None => Self::Other,
        }
    }
}

/// Names that have come, in so far as one that has not come is mostly known at once.
#[derive(Default)]
struct Seen([u64; 4]);

impl Seen {
    /// May `name` have come before? Now it has.
    fn add(&mut self, name: &[u8]) -> bool {
        let (first, last) = match (name.first_chunk(), name.last_chunk()) {
            (Some(first), Some(last)) => (u64::from_ne_bytes(*first), u64::from_ne_bytes(*last)),
            _ => (name.iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte)), 0),
        };
        let mixed = first.rotate_left(29) ^ last ^ name.len() as u64;
        let number = mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56;
        let (word, bit) = (&mut self.0[usize::from(number as u8 >> 6)], 1 << (number & 63));
        let had = *word & bit != 0;
        *word |= bit;
        had
    }
}

/// Variables that no application may see: `HTTP_PROXY` is a header that HTTP clients take for a setting
/// (CVE-2016-1000110); the other two repeat `CONTENT_…` under a name that RFC 3875 4.1.18 gives to other headers.
fn is_withheld(name: &[u8]) -> bool {
    name == b"HTTP_PROXY" || name == b"HTTP_CONTENT_LENGTH" || name == b"HTTP_CONTENT_TYPE"
}

/// Does `name` stand for `HTTP_AUTHORIZATION`, in one of the spellings under which deployers pass credentials on?
pub(super) fn spells_authorization(name: &[u8]) -> bool {
    let mut rest = name;
    while let Some(inner) = rest.strip_prefix(b"REDIRECT_") {
        rest = inner;
    }
    rest == b"HTTP_AUTHORIZATION" || rest.eq_ignore_ascii_case(b"Authorization")
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    /// The names that stay of those that come, and the places of those that come twice.
    fn take<'a>(names: &mut Names, coming: &[&'a str]) -> (Vec<&'a str>, Vec<usize>) {
        let (mut pairs, mut twice): (Vec<Pair<'_>>, _) = (Vec::new(), Vec::new());
        let mut next = names.begin();
        for name in coming {
            match next.next(name.as_bytes(), &pairs) {
                Next::New(Kind::Withheld) => {}
                Next::New(kind) => {
                    assert_eq!(kind, Kind::of(name.as_bytes()), "{name}");
                    pairs.push((name.as_bytes(), Cow::Borrowed(b"")));
                }
                Next::Twice(place) => twice.push(place),
            }
        }
        next.end();
        (pairs.iter().map(|(name, _)| std::str::from_utf8(name).unwrap()).collect(), twice)
    }

    #[test]
    fn names_are_the_same_whatever_came_in_the_request_before() {
        let requests: [(&[&str], &[&str], &[usize]); 8] = [
            (&["A", "HTTPS", "B"], &["A", "HTTPS", "B"], &[]),
            (&["A", "HTTPS", "B"], &["A", "HTTPS", "B"], &[]),
            (&["A", "HTTPS"], &["A", "HTTPS"], &[]),
            (&["A", "HTTP_PROXY", "A", "HTTP_PROXY", "B"], &["A", "B"], &[0]),
            (&["A", "HTTP_PROXY", "A", "HTTP_PROXY", "B"], &["A", "B"], &[0]),
            (&["A", "HTTPS", "B", "A", "B", "", ""], &["A", "HTTPS", "B", ""], &[0, 2, 3]),
            (&[], &[], &[]),
            (&["Authorization", "REDIRECT_HTTP_AUTHORIZATION"], &["Authorization", "REDIRECT_HTTP_AUTHORIZATION"], &[]),
        ];
        // Each behind each.
        for before in &requests {
            for (coming, stay, twice) in &requests {
                let mut names = Names::default();
                take(&mut names, before.0);
                for _ in 0..2 {
                    assert_eq!(
                        take(&mut names, coming),
                        (stay.to_vec(), twice.to_vec()),
                        "{coming:?} after {before:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn only_so_many_bytes_of_names_are_remembered() {
        let many: Vec<String> = (0..2000).map(|number| format!("HTTP_X_{number:08}")).collect();
        let coming: Vec<&str> = many.iter().map(String::as_str).collect();
        let mut names = Names::default();
        for _ in 0..2 {
            assert_eq!(take(&mut names, &coming).0, coming);
            assert!(names.text.len() <= MOST);
        }
    }
}

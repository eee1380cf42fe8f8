//! What is remembered of variables from request to request.
//!
//! Requests resemble each other: a web server sends the same names, mostly in the same order, and
//! most values again. What a name means is found out once, and a value that is still the same is
//! known to be so by its version.

use std::collections::HashMap;

use crate::wsgi::variables::KnownVariable;

/// Variables that are remembered. Whoever makes up more gains nothing by it.
const MOST: usize = 256;

/// Bytes of their names.
const MOST_BYTES: usize = 16 * 1024;

/// Longest value that is remembered, in bytes.
const LONGEST_VALUE: usize = 1024;

/// The variables that have come so far.
#[derive(Debug)]
pub(crate) struct Remembered {
    /// Those that a server looks at come first, in their order.
    entries: Vec<Entry>,
    /// Where in `entries` the others stand.
    places: HashMap<Box<[u8]>, usize>,
    name_bytes: usize,
    /// Which variable came first the last time.
    first: usize,
    /// How often all was forgotten.
    generation: u64,
    /// Names the request that is coming.
    serial: u64,
    /// The last version that a value was given.
    version: u64,
}

/// A variable.
#[derive(Debug)]
struct Entry {
    name: Box<[u8]>,
    kind: Kind,
    value: Vec<u8>,
    version: u64,
    /// Which variable came after it the last time.
    next: usize,
    /// The last request that had it; 0 for none.
    serial: u64,
    /// Where among the pairs of that request it stands.
    place: usize,
}

/// What the name of a variable means to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// No application may see it.
    Withheld,
    /// The server itself looks at it.
    KnownVariable(KnownVariable),
    /// It is one of the spellings of `HTTP_AUTHORIZATION`.
    SpellsAuthorization,
    /// Nothing.
    Other,
}

/// The variables of a request that is coming in.
pub(super) struct Coming<'a> {
    all: &'a mut Remembered,
    /// The one that came last, unless none has.
    last: Option<usize>,
    /// The one that came next the last time.
    expected: usize,
}

/// What is known of a variable that has come.
pub(super) struct Came {
    /// The number of the variable.
    pub(super) number: usize,
    pub(super) kind: Kind,
    pub(super) time: Time,
}

/// How often a variable has come in this request.
pub(super) enum Time {
    /// Once. Its value has this version: another one whenever it is not what it was. 0 stands for
    /// one that is too long to be remembered.
    First(u64),
    /// More often, and it stands at this place among the pairs.
    Again(usize),
}

impl Default for Remembered {
    fn default() -> Self {
        let known = KnownVariable::ALL.iter().map(|known| Entry::new(known.name().as_bytes()));
        Self {
            entries: known.collect(),
            places: HashMap::new(),
            name_bytes: 0,
            first: 0,
            generation: 0,
            serial: 0,
            version: 0,
        }
    }
}

impl Remembered {
    /// The variables of the next request.
    pub(super) fn begin(&mut self) -> Coming<'_> {
        if self.entries.len() > MOST || self.name_bytes > MOST_BYTES {
            *self =
                Self { generation: self.generation + 1, version: self.version, ..Self::default() };
        }
        self.serial += 1;
        let expected = self.first;
        Coming { all: self, last: None, expected }
    }
}

impl Coming<'_> {
    /// Takes the next variable, which stands at `place` among the pairs unless it has come before
    /// or is withheld.
    #[inline(always)]
    pub(super) fn next(&mut self, name: &[u8], value: &[u8], place: usize) -> Came {
        let number = if self
            .all
            .entries
            .get(self.expected)
            .is_some_and(|entry| is_same(&entry.name, name))
        {
            self.expected
        } else {
            self.unexpected(name)
        };
        let entry = &mut self.all.entries[number];
        self.last = Some(number);
        self.expected = entry.next;
        let time = if entry.serial == self.all.serial {
            Time::Again(entry.place)
        } else {
            entry.serial = self.all.serial;
            entry.place = place;
            Time::First(entry.version_of(value, &mut self.all.version))
        };
        Came { number, kind: entry.kind, time }
    }

    /// The version of another value of the variable `number`.
    pub(super) fn version(&mut self, number: usize, value: &[u8]) -> u64 {
        self.all.entries[number].version_of(value, &mut self.all.version)
    }

    /// How often all was forgotten: with it, a number names another variable.
    pub(super) fn generation(&self) -> u64 {
        self.all.generation
    }

    /// The number of a variable that did not come at this place the last time.
    #[cold]
    fn unexpected(&mut self, name: &[u8]) -> usize {
        let all = &mut *self.all;
        let known = KnownVariable::of(name).map(|known| known as usize);
        let number = known.or_else(|| all.places.get(name).copied()).unwrap_or_else(|| {
            let number = all.entries.len();
            all.entries.push(Entry::new(name));
            all.places.insert(name.into(), number);
            all.name_bytes += name.len();
            number
        });
        match self.last {
            Some(last) => all.entries[last].next = number,
            None => all.first = number,
        }
        number
    }
}

impl Entry {
    fn new(name: &[u8]) -> Self {
        Self {
            name: name.into(),
            kind: Kind::of(name),
            value: Vec::new(),
            version: 0,
            next: 0,
            serial: 0,
            place: 0,
        }
    }

    /// The version of `value`; `last` is the last that any value was given.
    #[inline]
    fn version_of(&mut self, value: &[u8], last: &mut u64) -> u64 {
        if self.version > 0 && is_same(&self.value, value) {
            return self.version;
        }
        self.version = 0;
        if value.len() <= LONGEST_VALUE {
            *last += 1;
            self.version = *last;
            self.value.clear();
            self.value.extend_from_slice(value);
        }
        self.version
    }
}

/// Are these the same bytes? Most are so few that a call of the C library's function takes longer
/// than to compare them.
#[inline(always)]
fn is_same(one: &[u8], other: &[u8]) -> bool {
    fn ends<const N: usize>(bytes: &[u8]) -> Option<([u8; N], [u8; N])> {
        Some((*bytes.first_chunk()?, *bytes.last_chunk()?))
    }
    one.len() == other.len()
        && match one.len() {
            0 => true,
            1..4 => one.iter().eq(other),
            4..8 => ends::<4>(one) == ends(other),
            8..16 => ends::<8>(one) == ends(other),
            16..=32 => ends::<16>(one) == ends(other),
            _ => one == other,
        }
}

impl Kind {
    fn of(name: &[u8]) -> Self {
        match KnownVariable::of(name) {
            Some(known) => Self::KnownVariable(known),
            None if is_withheld(name) => Self::Withheld,
            None if spells_authorization(name) => Self::SpellsAuthorization,
            None => Self::Other,
        }
    }
}

/// Variables that no application may see: `HTTP_PROXY` is a header that HTTP clients take for a
/// setting (CVE-2016-1000110); the next two repeat `CONTENT_…` under a name that RFC 3875 4.1.18
/// gives to other headers. Names that begin with `wsgi.` and `wsgate.` are keys of the server's
/// own, whichever of them a request has.
fn is_withheld(name: &[u8]) -> bool {
    name == b"HTTP_PROXY"
        || name == b"HTTP_CONTENT_LENGTH"
        || name == b"HTTP_CONTENT_TYPE"
        || name.starts_with(b"wsgi.")
        || name.starts_with(b"wsgate.")
}

/// Does `name` stand for `HTTP_AUTHORIZATION`, in one of the spellings under which deployers pass
/// credentials on?
pub(super) fn spells_authorization(name: &[u8]) -> bool {
    let mut rest = name;
    while let Some(inner) = rest.strip_prefix(b"REDIRECT_") {
        rest = inner;
    }
    rest == b"HTTP_AUTHORIZATION" || rest.eq_ignore_ascii_case(b"Authorization")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names that stay of those that come, and the places of those that come twice.
    fn take<'a>(remembered: &mut Remembered, coming: &[&'a str]) -> (Vec<&'a str>, Vec<usize>) {
        let (mut stay, mut twice) = (Vec::new(), Vec::new());
        let mut next = remembered.begin();
        for name in coming {
            let came = next.next(name.as_bytes(), b"", stay.len());
            assert_eq!(came.kind, Kind::of(name.as_bytes()), "{name}");
            match came.time {
                _ if came.kind == Kind::Withheld => {}
                Time::Again(place) => twice.push(place),
                Time::First(_) => stay.push(*name),
            }
        }
        (stay, twice)
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
            (
                &["Authorization", "REDIRECT_HTTP_AUTHORIZATION"],
                &["Authorization", "REDIRECT_HTTP_AUTHORIZATION"],
                &[],
            ),
        ];
        // Each behind each.
        for before in &requests {
            for (coming, stay, twice) in &requests {
                let mut remembered = Remembered::default();
                take(&mut remembered, before.0);
                for _ in 0..2 {
                    assert_eq!(
                        take(&mut remembered, coming),
                        (stay.to_vec(), twice.to_vec()),
                        "{coming:?} after {before:?}"
                    );
                }
            }
        }
    }

    /// The version of the value of the only variable of a request.
    fn version(remembered: &mut Remembered, name: &[u8], value: &[u8]) -> u64 {
        match remembered.begin().next(name, value, 0).time {
            Time::First(version) => version,
            Time::Again(place) => panic!("it stands at {place} already"),
        }
    }

    #[test]
    fn a_value_has_its_version_until_it_is_another() {
        let mut remembered = Remembered::default();
        let mut version = |value: &[u8]| version(&mut remembered, b"A", value);
        let first = version(b"first");
        assert!(first > 0);
        assert_eq!(version(b"first"), first);
        let second = version(b"");
        assert!(second > first);
        assert_eq!(version(b""), second);
        assert_eq!(version(&[b'x'; LONGEST_VALUE + 1]), 0);
        assert!(version(b"") > second, "it was forgotten");
    }

    #[test]
    fn only_so_much_is_remembered_and_nothing_of_it_comes_back_under_another_name() {
        let many: Vec<String> = (0..2000).map(|number| format!("HTTP_X_{number:08}")).collect();
        let coming: Vec<&str> = many.iter().map(String::as_str).collect();
        let mut remembered = Remembered::default();
        for round in 0..3 {
            assert_eq!(take(&mut remembered, &coming).0, coming);
            assert_eq!(remembered.generation, round);
        }
        let before = version(&mut remembered, b"A", b"value");
        assert!(remembered.entries.len() < MOST);
        take(&mut remembered, &coming);
        assert!(version(&mut remembered, b"B", b"value") > before);
    }
}

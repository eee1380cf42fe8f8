//! Limits of an application that a web server may query before sending requests (FastCGI 1.0, 4.1).

use crate::{
    pairs::{self, Pairs},
    record::{Header, RecordType},
};

/// Maximum length of the pairs of all three values in bytes.
const MAX_RESULT: usize = 128;

/// The three values that the protocol defines. `None` means that a value is unknown, not queried,
/// or missing in the response.
///
/// A query (`FCGI_GET_VALUES`) is a list of names, and unknown names are ignored. The response
/// (`FCGI_GET_VALUES_RESULT`) is a list of the known names with their values. [`Values::requested`]
/// reads a query, [`Values::answered`] a response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Values {
    /// `FCGI_MAX_CONNS`: maximum number of concurrent connections of the application.
    pub max_conns: Option<u32>,
    /// `FCGI_MAX_REQS`: maximum number of concurrent requests of the application.
    pub max_reqs: Option<u32>,
    /// `FCGI_MPXS_CONNS`: does the application accept concurrent requests on one connection?
    pub mpxs_conns: Option<bool>,
}

impl Values {
    /// Name of [`Values::max_conns`] on the wire.
    pub const MAX_CONNS: &'static [u8] = b"FCGI_MAX_CONNS";
    /// Name of [`Values::max_reqs`] on the wire.
    pub const MAX_REQS: &'static [u8] = b"FCGI_MAX_REQS";
    /// Name of [`Values::mpxs_conns`] on the wire.
    pub const MPXS_CONNS: &'static [u8] = b"FCGI_MPXS_CONNS";

    /// The values that are named in `query`, the content of `FCGI_GET_VALUES`.
    ///
    /// Unknown names and the values in a query are ignored. If the query is truncated, the names
    /// before the truncated pair count.
    #[must_use]
    pub fn requested(&self, query: &[u8]) -> Self {
        let mut requested = Self::default();
        for (name, _) in Pairs::new(query).map_while(Result::ok) {
            match name {
                Self::MAX_CONNS => requested.max_conns = self.max_conns,
                Self::MAX_REQS => requested.max_reqs = self.max_reqs,
                Self::MPXS_CONNS => requested.mpxs_conns = self.mpxs_conns,
                _ => {}
            }
        }
        requested
    }

    /// The values in `answer`, the content of `FCGI_GET_VALUES_RESULT`. Unknown names, values that
    /// are not numbers, and a truncated pair at the end are ignored.
    pub fn answered(answer: &[u8]) -> Self {
        let mut answered = Self::default();
        for (name, value) in Pairs::new(answer).map_while(Result::ok) {
            let number = decimal(value);
            match name {
                Self::MAX_CONNS => answered.max_conns = number,
                Self::MAX_REQS => answered.max_reqs = number,
                Self::MPXS_CONNS => answered.mpxs_conns = number.map(|number| number != 0),
                _ => {}
            }
        }
        answered
    }

    /// Appends a `FCGI_GET_VALUES` record that queries all three values to `out`.
    pub fn append_query(out: &mut Vec<u8>) {
        append_record(
            RecordType::GetValues,
            [Self::MAX_CONNS, Self::MAX_REQS, Self::MPXS_CONNS].map(|name| (name, "")),
            out,
        );
    }

    /// Appends a `FCGI_GET_VALUES_RESULT` record with the values that are not `None` to `out`.
    pub fn append_result(&self, out: &mut Vec<u8>) {
        let values = [
            self.max_conns.map(|number| (Self::MAX_CONNS, number.to_string())),
            self.max_reqs.map(|number| (Self::MAX_REQS, number.to_string())),
            self.mpxs_conns.map(|yes| (Self::MPXS_CONNS, u8::from(yes).to_string())),
        ];
        append_record(RecordType::GetValuesResult, values.into_iter().flatten(), out);
    }
}

fn append_record(
    record_type: RecordType,
    pairs: impl IntoIterator<Item = (&'static [u8], impl AsRef<[u8]>)>,
    out: &mut Vec<u8>,
) {
    let mut content = Vec::with_capacity(MAX_RESULT);
    for (name, value) in pairs {
        // Names of fifteen and values of ten bytes are never too long.
        let _ = pairs::append(name, value.as_ref(), &mut content);
    }
    // A test checks that the length is at most `MAX_RESULT`.
    let length = u16::try_from(content.len()).unwrap_or_default();
    out.extend_from_slice(&Header::new(record_type, None, length).to_bytes());
    out.extend_from_slice(&content);
}

/// A number in decimal digits, without sign or blank.
fn decimal(value: &[u8]) -> Option<u32> {
    if value.first().is_some_and(u8::is_ascii_digit) {
        str::from_utf8(value).ok()?.parse().ok()
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Values = Values { max_conns: Some(10), max_reqs: Some(50), mpxs_conns: Some(false) };

    fn result(values: Values) -> Vec<u8> {
        let mut out = Vec::new();
        values.append_result(&mut out);
        out
    }

    #[test]
    fn f19_known_names_are_answered_and_unknown_ones_left_out() {
        let query = b"\x0e\0FCGI_MAX_CONNS\x09\0FCGI_ELSE\x0f\0FCGI_MPXS_CONNS";
        assert_eq!(ALL.requested(query), Values { max_reqs: None, ..ALL });
        assert_eq!(
            result(ALL.requested(query)),
            b"\x01\x0a\0\0\0\x24\0\0\x0e\x02FCGI_MAX_CONNS10\x0f\x01FCGI_MPXS_CONNS0"
        );
    }

    #[test]
    fn f19_a_query_for_nothing_is_answered_with_nothing() {
        assert_eq!(result(ALL.requested(b"")), b"\x01\x0a\0\0\0\0\0\0");
    }

    #[test]
    fn f19_a_name_that_is_asked_for_twice_is_answered_once() {
        let query = b"\x0d\0FCGI_MAX_REQS\x0d\0FCGI_MAX_REQS";
        assert_eq!(result(ALL.requested(query)), b"\x01\x0a\0\0\0\x11\0\0\x0d\x02FCGI_MAX_REQS50");
    }

    #[test]
    fn f19_what_comes_before_a_cut_off_pair_is_answered() {
        let query = b"\x0d\0FCGI_MAX_REQS\x0e\0FCGI_MAX";
        assert_eq!(ALL.requested(query), Values { max_reqs: Some(50), ..Values::default() });
    }

    #[test]
    fn f20_values_are_decimal_strings() {
        let largest =
            Values { max_conns: Some(u32::MAX), max_reqs: Some(0), mpxs_conns: Some(true) };
        let record = result(largest);
        assert!(record.ends_with(
            b"\x0e\x0aFCGI_MAX_CONNS4294967295\x0d\x01FCGI_MAX_REQS0\x0f\x01FCGI_MPXS_CONNS1"
        ));
        assert!(record.len() - Header::LEN <= MAX_RESULT);
        assert_eq!(Values::answered(&record[Header::LEN..]), largest);
    }

    #[test]
    fn f20_what_is_no_decimal_number_is_no_answer() {
        for value in [&b""[..], b"-1", b"+1", b" 1", b"1 ", b"many", b"4294967296", b"\xff"] {
            let mut answer = Vec::new();
            pairs::append(Values::MAX_CONNS, value, &mut answer).unwrap();
            assert_eq!(Values::answered(&answer), Values::default());
        }
    }

    #[test]
    fn a_query_asks_for_all_three() {
        let mut query = Vec::new();
        Values::append_query(&mut query);
        assert_eq!(query[..Header::LEN], [1, 9, 0, 0, 0, 0x30, 0, 0]);
        assert_eq!(ALL.requested(&query[Header::LEN..]), ALL);
    }
}

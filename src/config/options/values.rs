//! Parsers for the values of options.

use std::ffi::OsString;

use clap::builder::{RangedI64ValueParser, RangedU64ValueParser};

/// Maximum number of seconds of an option: the kernel's clocks cannot count much further.
pub(crate) const MAX_TIMEOUT_SECS: u64 = u32::MAX as u64;

/// A number of seconds, at least `least`.
pub(crate) fn seconds(least: u64) -> RangedU64ValueParser<u64> {
    clap::value_parser!(u64).range(least..=MAX_TIMEOUT_SECS)
}

/// A number from `least` to `most`.
pub(crate) fn count(least: i64, most: i64) -> RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(least..=most)
}

/// A number of connections.
pub(super) fn connection_count() -> RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..)
}

pub(super) fn assignment(value: &str) -> Result<(OsString, OsString), String> {
    match value.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.into(), value.into())),
        _ => Err(format!("`{value}` is not NAME=VALUE")),
    }
}

/// The path of an application in URLs, without a slash at its end.
pub(super) fn script_name(value: &str) -> Result<String, String> {
    let is_path = value.is_empty() || value.starts_with('/') && !value.ends_with('/');
    if !is_path || value.contains(|c: char| c.is_control() || c == '?' || c == '#') {
        return Err(format!(
            "`{}` does not begin with `/`, or ends with one",
            value.escape_debug()
        ));
    }
    Ok(value.to_owned())
}

/// `/path?query`, or the same after scheme and host.
pub(super) fn warm_up_target(value: &str) -> Result<String, String> {
    let has_host = ["http://", "https://"].iter().any(|scheme| {
        value
            .strip_prefix(scheme)
            .is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['/', '?']))
    });
    if !(value.starts_with('/') || has_host)
        || value.contains(|c: char| c.is_whitespace() || c.is_control())
    {
        return Err(format!("`{}` is neither /PATH nor http://HOST/PATH", value.escape_debug()));
    }
    Ok(value.to_owned())
}

/// A number of bytes, with or without a unit.
pub(super) fn size(value: &str) -> Result<u64, String> {
    let digits = value.trim_end_matches(|unit: char| unit.is_ascii_alphabetic());
    let factor = match value[digits.len()..].to_ascii_uppercase().as_str() {
        "" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        _ => return Err(format!("`{value}` has a unit other than K, M and G")),
    };
    let number: u64 = digits
        .parse()
        .map_err(|_| format!("`{value}` is not a number with a unit, such as 200M"))?;
    number.checked_mul(factor).ok_or_else(|| format!("`{value}` is too large"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warm_up_request_has_a_path_or_a_host() {
        for right in ["/", "/a?b=c", "http://x.example", "https://x.example:8443/a"] {
            assert_eq!(warm_up_target(right).as_deref(), Ok(right));
        }
        for wrong in ["", "a", "http://", "https:///a", "/a b", "/a\r\nX: y", "ftp://x/"] {
            assert!(warm_up_target(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn sizes_have_units() {
        for (value, bytes) in
            [("0", 0), ("512", 512), ("1k", 1024), ("200M", 200 << 20), ("2G", 2 << 30)]
        {
            assert_eq!(size(value), Ok(bytes), "{value}");
        }
        for wrong in ["", "M", "-1", "1.5G", "200MB", "20T", "1 M", "99999999999G", "é"] {
            assert!(size(wrong).is_err(), "{wrong:?}");
        }
    }
}

//! Parsers for the values of options.

use std::{ffi::OsString, fmt::Display, str::FromStr};

use wire::app::App;

/// Maximum number of seconds of an option: the kernel's clocks cannot count much further.
pub(crate) const MAX_TIMEOUT_SECS: u64 = u32::MAX as u64;

/// A parser of an option's value. Its error says what is accepted and gives an example.
pub(crate) trait ValueParser<T>:
    Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static
{
}

impl<T, P: Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static> ValueParser<T> for P {}

/// A number of seconds, at least `least`.
pub(crate) fn seconds(least: u64) -> impl ValueParser<u64> {
    number(least, MAX_TIMEOUT_SECS, "seconds", 30)
}

/// A number from `least` to `most`.
pub(crate) fn count(least: u32, most: u32) -> impl ValueParser<u32> {
    number(least, most, "", 4)
}

/// A number of connections.
pub(super) fn connection_count() -> impl ValueParser<u32> {
    number(1, u32::MAX, "connections", 1000)
}

/// A number of requests.
pub(super) fn request_count() -> impl ValueParser<u64> {
    number(0, u64::MAX, "requests", 1000)
}

/// A whole number of `unit` from `least` to `most`, such as `example`.
fn number<T>(least: T, most: T, unit: &'static str, example: T) -> impl ValueParser<T>
where
    T: Copy + Display + FromStr + PartialOrd + Send + Sync + 'static,
{
    move |value: &str| {
        let number = value.parse().ok().filter(|number| (least..=most).contains(number));
        number.ok_or_else(|| {
            let of = if unit.is_empty() { "" } else { " of " };
            format!("give a whole number{of}{unit} from {least} to {most}, such as `{example}`")
        })
    }
}

/// The name or number of a user or group, such as `example`.
pub(crate) fn account(example: &'static str) -> impl ValueParser<String> {
    move |value: &str| match value {
        "" => Err(format!("give a name or number, such as `{example}`")),
        value => Ok(value.to_owned()),
    }
}

pub(super) fn assignment(value: &str) -> Result<(OsString, OsString), String> {
    match value.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.into(), value.into())),
        _ => Err("give NAME=VALUE, such as `LANG=C.UTF-8`".to_owned()),
    }
}

/// The path of an application in URLs, without a slash at its end.
pub(super) fn script_name(value: &str) -> Result<String, String> {
    let is_path = value.is_empty() || value.starts_with('/') && !value.ends_with('/');
    if !is_path || value.contains(|c: char| c.is_control() || c == '?' || c == '#') {
        return Err(
            "give a URL path that begins with `/` and does not end with one, without `?` and \
                    `#`, such as `/shop`"
                .to_owned(),
        );
    }
    Ok(value.to_owned())
}

/// A callable of an application, or a factory with its arguments.
pub(super) fn callable(value: &str) -> Result<String, String> {
    App::in_file("").with_callable(value).map(|_| value.to_owned()).map_err(|bad| {
        format!("{bad}; give a name or the call of a factory, such as `create_app()`")
    })
}

/// A function of a module, for `--after-fork`.
pub(crate) fn function(value: &str) -> Result<String, String> {
    let is_name = |name: &str| {
        !name.is_empty() && name.chars().all(|letter| letter.is_alphanumeric() || letter == '_')
    };
    match value.split_once(':') {
        Some((module, function)) if module.split('.').all(is_name) && is_name(function) => {
            Ok(value.to_owned())
        }
        _ => Err("give a module and a function of it, such as `site.telemetry:start`".to_owned()),
    }
}

/// `/path?query`, or the same after scheme and host.
pub(crate) fn warm_up_target(value: &str) -> Result<String, String> {
    let has_host = ["http://", "https://"].iter().any(|scheme| {
        value
            .strip_prefix(scheme)
            .is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['/', '?']))
    });
    if !(value.starts_with('/') || has_host)
        || value.contains(|c: char| c.is_whitespace() || c.is_control())
    {
        return Err("give /PATH or http://HOST/PATH without spaces, such as `/` or \
                    `https://www.example.org/shop`"
            .to_owned());
    }
    Ok(value.to_owned())
}

/// The sizes that are accepted.
const SIZES: &str = "give a number of bytes, or a number with the unit K, M or G, such as `200M`";

/// A number of bytes, with or without a unit.
pub(crate) fn size(value: &str) -> Result<u64, String> {
    let digits = value.trim_end_matches(|unit: char| unit.is_ascii_alphabetic());
    let factor = match value[digits.len()..].to_ascii_uppercase().as_str() {
        "" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        _ => return Err(SIZES.to_owned()),
    };
    let number: u64 = digits.parse().map_err(|_| SIZES.to_owned())?;
    number.checked_mul(factor).ok_or_else(|| format!("the size is too large; {SIZES}"))
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

//! Names of variables and their meaning, and the syntax of tokens and numbers.

macro_rules! known {
    ($($variable:ident = $name:literal,)*) => {
        /// The variables that the server itself reads.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum KnownVariable { $(#[doc = $name] $variable,)* }

        impl KnownVariable {
            /// The number of these variables.
            pub(super) const COUNT: usize = Self::ALL.len();

            const ALL: [Self; [$($name),*].len()] = [$(Self::$variable),*];

            /// The name of the variable.
            pub(crate) const fn name(self) -> &'static str {
                match self { $(Self::$variable => $name,)* }
            }

            /// The variable named `name`, if the server reads it.
            pub(super) fn of(name: &[u8]) -> Option<Self> {
                $(if name == $name.as_bytes() { return Some(Self::$variable); })*
                None
            }
        }
    };
}

known! {
    RequestMethod = "REQUEST_METHOD",
    RequestUri = "REQUEST_URI",
    ScriptName = "SCRIPT_NAME",
    PathInfo = "PATH_INFO",
    QueryString = "QUERY_STRING",
    ContentLength = "CONTENT_LENGTH",
    ContentType = "CONTENT_TYPE",
    ServerName = "SERVER_NAME",
    ServerSoftware = "SERVER_SOFTWARE",
    ServerPort = "SERVER_PORT",
    ServerProtocol = "SERVER_PROTOCOL",
    Https = "HTTPS",
    RequestScheme = "REQUEST_SCHEME",
    RedirectStatus = "REDIRECT_STATUS",
    HttpAuthorization = "HTTP_AUTHORIZATION",
    HttpTransferEncoding = "HTTP_TRANSFER_ENCODING",
    UniqueId = "UNIQUE_ID",
}

/// Is `name` a variable that no application may see? HTTP clients treat `HTTP_PROXY` as a setting
/// (CVE-2016-1000110). The next two names repeat `CONTENT_…` under names that RFC 3875 4.1.18 gives
/// to other headers. Names that begin with `wsgi.` and `wsgate.` are keys of the server.
pub(super) fn is_withheld(name: &[u8]) -> bool {
    name == b"HTTP_PROXY"
        || name == b"HTTP_CONTENT_LENGTH"
        || name == b"HTTP_CONTENT_TYPE"
        || name.starts_with(b"wsgi.")
        || name.starts_with(b"wsgate.")
}

/// Is `name` a spelling of `HTTP_AUTHORIZATION` by which administrators pass credentials on?
pub(super) fn spells_authorization(name: &[u8]) -> bool {
    let mut rest = name;
    while let Some(inner) = rest.strip_prefix(b"REDIRECT_") {
        rest = inner;
    }
    rest == b"HTTP_AUTHORIZATION" || rest.eq_ignore_ascii_case(b"Authorization")
}

/// Is `word` a token of RFC 9110, as methods and header names are?
pub(super) fn is_token(word: &[u8]) -> bool {
    !word.is_empty() && word.iter().all(|&byte| TOKEN[usize::from(byte)])
}

/// May a byte be part of a token?
const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        table[byte as usize] = byte.is_ascii_alphanumeric();
        byte += 1;
    }
    let marks = b"!#$%&'*+-.^_`|~";
    let mut mark = 0;
    while mark < marks.len() {
        table[marks[mark] as usize] = true;
        mark += 1;
    }
    table
};

/// The number in a text of decimal digits; `None` for other text, or above the maximum file size
/// (`off_t`).
pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    let number = digits.iter().try_fold(0_i64, |number, &digit| {
        let digit = digit.is_ascii_digit().then(|| i64::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    });
    number.map(i64::cast_unsigned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decimal_is_digits_up_to_the_longest_file() {
        assert_eq!(decimal(b"007"), Some(7));
        assert_eq!(decimal(b"9223372036854775807"), Some(i64::MAX.cast_unsigned()));
        for digits in [&b""[..], b"+1", b"-1", b" 1", b"1 ", b"0x1", b"9223372036854775808"] {
            assert_eq!(decimal(digits), None, "{digits:?}");
        }
    }

    #[test]
    fn a_token_is_not_empty_and_has_no_separator() {
        assert!(is_token(b"GET") && is_token(b"X-1_a!#$%&'*+.^`|~"));
        for word in [&b""[..], b"a b", b"a:b", b"a\n", b"\xe4"] {
            assert!(!is_token(word), "{word:?}");
        }
    }

    #[test]
    fn known_variables_are_found_by_their_names() {
        for known in KnownVariable::ALL {
            assert_eq!(KnownVariable::of(known.name().as_bytes()), Some(known));
        }
        assert_eq!(KnownVariable::of(b"server_name"), None);
    }
}

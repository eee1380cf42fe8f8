//! Recognises Python 2 code by the errors that it causes.

/// Names that only Python 2 has built in, and that nobody gives to a variable.
const NAMES: [&str; 6] = ["basestring", "execfile", "raw_input", "unichr", "unicode", "xrange"];

/// Names that Python 2 has built in, and that variables have, too.
const USUAL_NAMES: [&str; 8] =
    ["apply", "buffer", "cmp", "coerce", "file", "intern", "long", "reload"];

/// Methods that only Python 2 has, each with the type.
const METHODS: [(&str, &str); 8] = [
    ("dict", "has_key"),
    ("dict", "iteritems"),
    ("dict", "iterkeys"),
    ("dict", "itervalues"),
    ("dict", "viewitems"),
    ("dict", "viewkeys"),
    ("generator", "next"),
    ("function", "func_name"),
];

/// Methods of Python 2 that new code calls by mistake, too.
const USUAL_METHODS: [(&str, &str); 1] = [("str", "decode")];

/// How surely an error shows Python 2 code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Evidence {
    Certain,
    Possible,
}

/// Is the syntax error with this `message` in this `line` one about Python 2 code?
pub(super) fn is_syntax(line: &str, message: &str) -> bool {
    is_line(line) || is_message(message)
}

/// Does Python report Python 2 code by the message `message`?
fn is_message(message: &str) -> bool {
    [
        "Missing parentheses in call to 'print'",
        "Missing parentheses in call to 'exec'",
        "multiple exception types must be parenthesized",
        "leading zeros in decimal integer literals are not permitted",
    ]
    .iter()
    .any(|known| message.starts_with(known))
}

/// Is `line`, which Python 3 cannot parse, a line of Python 2?
fn is_line(line: &str) -> bool {
    let line = line.split('#').next().unwrap_or_default().trim();
    let has_statement = |name: &str| {
        line.strip_prefix(name).is_some_and(|rest| {
            let rest = rest.trim_start();
            line.len() > name.len() + 1 && rest.starts_with(['"', '\'', '>', '%'].as_slice())
                || (rest.len() + name.len() < line.len()
                    && rest.starts_with(|first: char| first.is_alphanumeric() || first == '_'))
        })
    };
    let is_except = line.strip_prefix("except ").is_some_and(|rest| {
        rest.trim_end_matches(':').rsplit_once(',').is_some_and(|(_, name)| {
            name.trim().chars().all(|character| character.is_alphanumeric() || character == '_')
        }) && line.ends_with(':')
    });
    let is_raise = line.strip_prefix("raise ").is_some_and(|rest| {
        rest.split_once(',').is_some_and(|(class, _)| {
            class.chars().all(|character| character.is_alphanumeric() || "_.".contains(character))
        })
    });
    has_statement("print")
        || has_statement("exec")
        || is_except
        || is_raise
        || line.contains(" <> ")
        || line.contains(" ur\"")
        || line.contains(" ur'")
}

/// Whether the message of a `NameError` or `AttributeError` names something of Python 2.
pub(super) fn evidence(message: &str) -> Option<Evidence> {
    let quoted: Vec<&str> = message.split('\'').skip(1).step_by(2).collect();
    let (is_certain, is_possible) = match quoted.as_slice() {
        [name, ..] if message.starts_with("name '") => {
            (NAMES.contains(name), USUAL_NAMES.contains(name))
        }
        [class, method, ..] => {
            let method = (*class, *method);
            (METHODS.contains(&method), USUAL_METHODS.contains(&method))
        }
        _ => (false, false),
    };
    match (is_certain, is_possible) {
        (true, _) => Some(Evidence::Certain),
        (false, true) => Some(Evidence::Possible),
        (false, false) => None,
    }
}

/// What to do about Python 2 code in Python `version`.
pub(super) fn advice(version: &str, evidence: Evidence) -> String {
    let (code, otherwise) = match evidence {
        Evidence::Certain => ("this is Python 2 code", ""),
        Evidence::Possible => (
            "this may be Python 2 code",
            "; otherwise correct the line that the traceback ends with",
        ),
    };
    format!(
        "{code}, which Python {version} does not run; convert a copy of it with fissix, which \
         continues `lib2to3` (removed in Python 3.13): `python -m pip install fissix`, then \
         `python -m fissix -w FILE`; then make sure that the response body is bytes{otherwise}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_python_2_are_recognised_and_wrong_lines_of_python_3_are_not() {
        for line in [
            "print 'hello'",
            "    print \"a\", b  # comment",
            "print >>sys.stderr, 'x'",
            "print name",
            "print'x'",
            "exec code in scope",
            "except ValueError, error:",
            "except (A, B), e:",
            "raise ValueError, 'text'",
            "if a <> b:",
            "x = ur'text'",
        ] {
            assert!(is_line(line), "{line}");
        }
        for line in [
            "print('hello'",
            "printer name",
            "print = 3 +",
            "print",
            "except ValueError as error",
            "except (A, B):",
            "raise ValueError('a, b'",
            "def broken(:",
            "x = [1, 2",
            "import a.b as",
        ] {
            assert!(!is_line(line), "{line}");
        }
    }

    #[test]
    fn names_of_python_2_are_recognised_in_messages_of_every_version() {
        for (message, expected) in [
            ("name 'unicode' is not defined", Some(Evidence::Certain)),
            ("name 'xrange' is not defined. Did you mean: 'range'?", Some(Evidence::Certain)),
            ("'dict' object has no attribute 'iteritems'", Some(Evidence::Certain)),
            ("name 'file' is not defined", Some(Evidence::Possible)),
            (
                "'str' object has no attribute 'decode'. Did you mean: 'encode'?",
                Some(Evidence::Possible),
            ),
            ("name 'spam' is not defined", None),
            ("'Site' object has no attribute 'decode'", None),
            ("", None),
        ] {
            assert_eq!(evidence(message), expected, "{message}");
        }
    }
}

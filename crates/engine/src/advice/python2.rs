//! Recognises Python 2 code by the errors that it causes.

/// Names that only Python 2 has built in.
const NAMES: [&str; 14] = [
    "apply",
    "basestring",
    "buffer",
    "cmp",
    "coerce",
    "execfile",
    "file",
    "intern",
    "long",
    "raw_input",
    "reload",
    "unichr",
    "unicode",
    "xrange",
];

/// Methods that only Python 2 has, each with the type.
const METHODS: [(&str, &str); 9] = [
    ("dict", "has_key"),
    ("dict", "iteritems"),
    ("dict", "iterkeys"),
    ("dict", "itervalues"),
    ("dict", "viewitems"),
    ("dict", "viewkeys"),
    ("generator", "next"),
    ("str", "decode"),
    ("function", "func_name"),
];

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

/// Does the message of a `NameError` or `AttributeError` name something of Python 2?
pub(super) fn is_name(message: &str) -> bool {
    let quoted: Vec<&str> = message.split('\'').skip(1).step_by(2).collect();
    match quoted.as_slice() {
        [name, ..] if message.starts_with("name '") => NAMES.contains(name),
        [class, method, ..] => METHODS.contains(&(class, method)),
        _ => false,
    }
}

/// What to do about Python 2 code in Python `version`.
pub(super) fn advice(version: &str) -> String {
    format!(
        "this is Python 2 code, which Python {version} does not run; convert a copy of it with \
         fissix, which continues `lib2to3` (removed in Python 3.13): `python -m pip install \
         fissix`, then `python -m fissix -w FILE`; then make sure that the response body is bytes"
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
        for message in [
            "name 'unicode' is not defined",
            "name 'xrange' is not defined. Did you mean: 'range'?",
            "'dict' object has no attribute 'iteritems'",
            "'str' object has no attribute 'decode'. Did you mean: 'encode'?",
        ] {
            assert!(is_name(message), "{message}");
        }
        for message in ["name 'spam' is not defined", "'Site' object has no attribute 'decode'", ""]
        {
            assert!(!is_name(message), "{message}");
        }
    }
}

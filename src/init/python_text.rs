//! What can be seen in the text of a Python file without running it.

/// An object in a Python file that serves requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Callable {
    pub(super) name: String,
    /// The arguments with which the object has to be called once for the application.
    pub(super) arguments: Option<String>,
}

impl Callable {
    /// The object `name`, which is an application.
    pub(super) fn application(name: &str) -> Self {
        Self { name: name.to_owned(), arguments: None }
    }

    /// The part of the name before its first dot, and the rest.
    pub(super) fn parts(&self) -> (&str, &str) {
        self.name.split_at(self.name.find('.').unwrap_or(self.name.len()))
    }

    /// The call in Python code, if the object has to be called.
    pub(super) fn call(&self) -> String {
        self.arguments.as_ref().map(|arguments| format!("({arguments})")).unwrap_or_default()
    }
}

/// Words of Python that are no names.
const KEYWORDS: [&str; 35] = [
    "False", "None", "True", "and", "as", "assert", "async", "await", "break", "class", "continue",
    "def", "del", "elif", "else", "except", "finally", "for", "from", "global", "if", "import",
    "in", "is", "lambda", "nonlocal", "not", "or", "pass", "raise", "return", "try", "while",
    "with", "yield",
];

/// Names of functions that make an application.
const FACTORIES: [&str; 3] = ["create_app", "make_app", "create_application"];

/// Classes whose instances are applications.
const CLASSES: [&str; 4] = ["Flask", "Bottle", "Quart", "Dash"];

/// The application in `text`: `application`, `app`, an instance of a known class, or a function
/// that makes one and needs no arguments.
pub(super) fn callable_in(text: &str) -> Option<Callable> {
    for name in ["application", "app"] {
        if text.lines().any(|line| binds(line, name)) {
            return Some(Callable::application(name));
        }
    }
    if let Some(name) = text.lines().find_map(name_of_instance) {
        return Some(Callable::application(name));
    }
    let factory = FACTORIES.into_iter().find(|name| is_factory_without_arguments(text, name))?;
    Some(Callable { name: factory.to_owned(), arguments: Some(String::new()) })
}

/// Can the module with `text` have the object `name`? Without the name in the text, only code that
/// makes names itself defines it.
pub(super) fn may_define(text: &str, name: &str) -> bool {
    let makes_names = ["import *", "globals()", "__getattr__", "exec(", "setattr("]
        .iter()
        .any(|it| text.contains(it));
    let is_part = |one: char| one == '_' || one.is_alphanumeric();
    makes_names || text.split(|one| !is_part(one)).any(|word| word == name)
}

/// Does `line`, which is not indented, give `name` a value?
fn binds(line: &str, name: &str) -> bool {
    if let Some((_, imported)) =
        line.strip_prefix("from ").and_then(|rest| rest.split_once(" import "))
    {
        return imported.split(['#', ';']).next().unwrap_or_default().split(',').any(|item| {
            let item = item.trim_matches(['(', ')', ' ', '\t']);
            item.rsplit(" as ").next().map(str::trim) == Some(name)
        });
    }
    for keyword in ["def ", "class "] {
        if let Some(rest) = line.strip_prefix(keyword).and_then(|rest| rest.strip_prefix(name)) {
            return rest.trim_start().starts_with(['(', ':']);
        }
    }
    let Some(rest) = line.strip_prefix(name).map(str::trim_start) else { return false };
    (rest.starts_with('=') && !rest.starts_with("==")) || rest.starts_with(':')
}

/// The name in `name = Flask(...)`.
fn name_of_instance(line: &str) -> Option<&str> {
    let (name, value) = line.split_once('=')?;
    let name = name.trim_end();
    let class = value.trim_start().split('(').next()?.rsplit('.').next()?;
    (is_name(name) && value.contains('(') && CLASSES.contains(&class)).then_some(name)
}

/// Does `text` define the function `name`, all of whose parameters have defaults?
fn is_factory_without_arguments(text: &str, name: &str) -> bool {
    let mut definitions = text.split("\ndef ").skip(1).chain(text.strip_prefix("def "));
    definitions.any(|definition| {
        let Some(rest) = definition.strip_prefix(name) else { return false };
        let Some(rest) = rest.trim_start().strip_prefix('(') else { return false };
        let parameters = rest.split("):").next().unwrap_or_default();
        let parameters = parameters.split(") ->").next().unwrap_or_default();
        parameters
            .split(',')
            .map(str::trim)
            .all(|one| one.is_empty() || one.contains('=') || one.starts_with('*') || one == "/")
    })
}

/// The settings module that Django's `manage.py` names in `text`.
pub(super) fn settings_module(text: &str) -> Option<&str> {
    let rest = text.split("DJANGO_SETTINGS_MODULE").nth(1)?;
    quoted(rest.trim_start_matches(['"', '\'']))
}

/// The value of the setting `name` in `text`, a string.
pub(super) fn string_setting<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| binds(line, name))?;
    quoted(line.split_once('=')?.1)
}

/// The first string in quotes in `text`, if it is the name of a module.
fn quoted(text: &str) -> Option<&str> {
    let start = text.find(['"', '\''])?;
    let quote = text[start..].chars().next()?;
    let value = text[start + 1..].split(quote).next()?;
    is_module(value).then_some(value)
}

/// Is `text` the name of a Python module?
pub(super) fn is_module(text: &str) -> bool {
    text.split('.').all(is_name)
}

/// Can Python code use `text` as a name? Other letters than those of ASCII are not looked at.
pub(super) fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    !KEYWORDS.contains(&text)
        && bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// `text` as a string in Python code.
pub(super) fn literal(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Option<(String, bool)> {
        callable_in(text).map(|found| (found.name, found.arguments.is_some()))
    }

    #[test]
    fn applications_are_found_by_what_a_file_defines() {
        for (text, name, is_factory) in [
            ("application = x\n", "application", false),
            ("import os\napp: Flask = Flask(__name__)\n", "app", false),
            ("def application(environ, start_response):\n", "application", false),
            ("class application:\n    pass\n", "application", false),
            ("from site import app as application  # comment\n", "application", false),
            ("from a import (b, app)\n", "app", false),
            ("server = flask.Flask(__name__)\n", "server", false),
            ("def create_app():\n    return 1\n", "create_app", true),
            ("x = 1\ndef make_app(config=None, **more) -> Flask:\n", "make_app", true),
        ] {
            assert_eq!(found(text), Some((name.to_owned(), is_factory)), "{text}");
        }
        for text in [
            "",
            "application == 1\n",
            "applications = 1\n",
            "    app = 1\n",
            "def create_app(config):\n    pass\n",
            "def create_apps():\n    pass\n",
            "from a import app as other\n",
        ] {
            assert_eq!(found(text), None, "{text}");
        }
    }

    #[test]
    fn settings_of_django_are_read_from_manage_py() {
        let text = "os.environ.setdefault(\"DJANGO_SETTINGS_MODULE\", \"shop.settings\")\n";
        assert_eq!(settings_module(text), Some("shop.settings"));
        let text = "os.environ['DJANGO_SETTINGS_MODULE'] = 'shop.settings.live'\n";
        assert_eq!(settings_module(text), Some("shop.settings.live"));
        assert_eq!(settings_module("x('DJANGO_SETTINGS_MODULE', '../etc')"), None);
        let setting = string_setting(
            "A = 1\nWSGI_APPLICATION = 'shop.wsgi.application'\n",
            "WSGI_APPLICATION",
        );
        assert_eq!(setting, Some("shop.wsgi.application"));
    }
}

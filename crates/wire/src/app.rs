//! `APP`: the argument that names a WSGI application.
//!
//! `path/to/file.wsgi[:callable]`, `package.module[:callable]`, either with
//! `:factory(arguments)`, or `path/to/file.ini[#name]`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A parsed `APP`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct App {
    /// The file or module with the code.
    pub source: Source,
    /// Name of the application in the source. Without a name: `application`, then `app`; in a file
    /// of PasteDeploy: `main`.
    pub callable: Option<String>,
    /// The callable is a factory: the engine calls it once with these arguments, literals of
    /// Python, and it returns the application.
    pub factory: Option<String>,
}

/// The file or module with the code of an application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// A file, by its path as bytes.
    File(Vec<u8>),
    /// A module that Python imports by its dotted name.
    Module(String),
}

impl App {
    /// The application in the file at `path`. A colon in the path is part of the name.
    pub fn in_file(path: impl Into<Vec<u8>>) -> Self {
        Self { source: Source::File(path.into()), callable: None, factory: None }
    }

    /// Parses the argument `argument`. `site.wsgi` may name a file or a module: it names the file
    /// if `is_file` returns true.
    ///
    /// # Errors
    /// If the argument names no source, or a callable that cannot exist.
    pub fn parse(argument: &[u8], is_file: impl Fn(&[u8]) -> bool) -> Result<Self, BadApp> {
        if let Some(app) = Self::in_paste_file(argument) {
            return Ok(app);
        }
        let colon = match call_begin(argument) {
            Some(begin) => argument[..begin].iter().rposition(|&byte| byte == b':'),
            None => argument.iter().rposition(|&byte| byte == b':'),
        };
        let (source, callable) = match colon.map(|colon| argument.split_at(colon)) {
            Some((source, callable))
                if call_begin(argument).is_some() || !callable.contains(&b'/') =>
            {
                (source, Some(String::from_utf8_lossy(&callable[1..]).into_owned()))
            }
            _ => (argument, None),
        };
        if source.is_empty() {
            return Err(BadApp::Empty);
        }
        let (callable, factory) = match callable {
            None => (None, None),
            Some(callable) => {
                let (name, factory) = parse_callable(&callable)?;
                (Some(name), factory)
            }
        };
        let module = str::from_utf8(source).ok().filter(|name| name.split('.').all(is_identifier));
        Ok(Self {
            source: match module.filter(|_| !is_file(source)) {
                Some(module) => Source::Module(module.to_owned()),
                None => Source::File(source.to_vec()),
            },
            callable,
            factory,
        })
    }

    /// This application; `callable` names it, unless this has a name already.
    ///
    /// # Errors
    /// If the name cannot exist.
    pub fn with_callable(self, callable: &str) -> Result<Self, BadApp> {
        let (name, factory) = parse_callable(callable)?;
        match self.callable {
            Some(_) => Ok(self),
            None => Ok(Self { callable: Some(name), factory, ..self }),
        }
    }

    /// The application in a file of PasteDeploy, `file.ini#name`.
    fn in_paste_file(argument: &[u8]) -> Option<Self> {
        let hash = argument.iter().rposition(|&byte| byte == b'#');
        let (path, name) = match hash {
            Some(hash) => (&argument[..hash], String::from_utf8(argument[hash + 1..].into()).ok()),
            None => (argument, None),
        };
        let callable = name.filter(|name| !name.is_empty());
        path.ends_with(b".ini").then(|| Self { callable, ..Self::in_file(path) })
    }

    /// Is the application described by a file of PasteDeploy?
    pub fn is_paste(&self) -> bool {
        matches!(&self.source, Source::File(path) if path.ends_with(b".ini"))
    }
}

impl fmt::Display for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Source::File(path) => write_path(path, f)?,
            Source::Module(name) => f.write_str(name)?,
        }
        if let Some(callable) = &self.callable {
            write!(f, "{}{callable}", if self.is_paste() { '#' } else { ':' })?;
        }
        if let Some(arguments) = &self.factory {
            write!(f, "({arguments})")?;
        }
        Ok(())
    }
}

/// The position of the parenthesis after the callable, if `argument` calls one.
fn call_begin(argument: &[u8]) -> Option<usize> {
    if !argument.ends_with(b")") {
        return None;
    }
    let begins = (0..argument.len()).filter(|&position| argument[position] == b'(');
    begins.into_iter().find(|&begin| {
        let before = &argument[..begin];
        let name = before.iter().rposition(|&byte| byte == b':').map(|colon| &before[colon + 1..]);
        name.and_then(|name| str::from_utf8(name).ok())
            .is_some_and(|name| name.split('.').all(is_identifier))
    })
}

/// Name and arguments of `NAME` or `NAME(ARGUMENTS)`.
fn parse_callable(callable: &str) -> Result<(String, Option<String>), BadApp> {
    let (name, factory) = match callable.split_once('(') {
        Some((name, rest)) => match rest.strip_suffix(')') {
            Some(arguments) => (name, Some(arguments.to_owned())),
            None => return Err(BadApp::Callable(callable.to_owned())),
        },
        None => (callable, None),
    };
    if !name.split('.').all(is_identifier) {
        return Err(BadApp::Callable(name.to_owned()));
    }
    Ok((name.to_owned(), factory))
}

/// Writes a path; bytes that are not UTF-8 as `\xff`.
fn write_path(path: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for chunk in path.utf8_chunks() {
        f.write_str(chunk.valid())?;
        for byte in chunk.invalid() {
            write!(f, "\\x{byte:02x}")?;
        }
    }
    Ok(())
}

/// Why an argument is not an `APP`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadApp {
    /// The argument, or the part before the colon, is empty.
    Empty,
    /// The part after the colon is not a Python name.
    Callable(String),
}

impl fmt::Display for BadApp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("no file or module is named"),
            Self::Callable(name) => write!(f, "`{name}` is not a name of a Python callable"),
        }
    }
}

impl std::error::Error for BadApp {}

/// Can `name` be a Python identifier? Identifiers may have letters of all languages, so only names
/// that certainly are not identifiers are refused.
fn is_identifier(name: &str) -> bool {
    name.chars().next().is_some_and(|first| first.is_alphabetic() || first == '_')
        && name.chars().all(|character| character.is_alphanumeric() || character == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(argument: &str) -> (Source, Option<String>, Option<String>) {
        let is_file = |name: &[u8]| name == b"hello.wsgi" || name == b"site.py";
        let app = App::parse(argument.as_bytes(), is_file).unwrap();
        (app.source, app.callable, app.factory)
    }

    fn file(path: &str) -> Source {
        Source::File(path.as_bytes().to_vec())
    }

    fn module(name: &str) -> Source {
        Source::Module(name.to_owned())
    }

    #[test]
    fn every_form_of_the_contract_is_recognized() {
        assert_eq!(parsed("hello.wsgi"), (file("hello.wsgi"), None, None));
        assert_eq!(
            parsed("/srv/a/hello.wsgi:app"),
            (file("/srv/a/hello.wsgi"), Some("app".into()), None)
        );
        assert_eq!(
            parsed("./site.py:make()"),
            (file("./site.py"), Some("make".into()), Some(String::new()))
        );
        assert_eq!(parsed("site.py"), (file("site.py"), None, None));
        assert_eq!(parsed("mysite.wsgi"), (module("mysite.wsgi"), None, None));
        assert_eq!(
            parsed("./mysite.wsgi:application"),
            (file("./mysite.wsgi"), Some("application".into()), None)
        );
        assert_eq!(parsed("mysite.web"), (module("mysite.web"), None, None));
        assert_eq!(
            parsed("package.module:site.app"),
            (module("package.module"), Some("site.app".into()), None)
        );
        assert_eq!(
            parsed("package:create_app()"),
            (module("package"), Some("create_app".into()), Some(String::new()))
        );
        assert_eq!(parsed("/odd:dir/hello.wsgi"), (file("/odd:dir/hello.wsgi"), None, None));
        assert_eq!(parsed("hello-world.wsgi"), (file("hello-world.wsgi"), None, None));
    }

    #[test]
    fn a_factory_has_arguments() {
        for (argument, arguments) in [
            ("package:make(1)", "1"),
            ("package:make(\"a:b/c\", d=(1, 2))", "\"a:b/c\", d=(1, 2)"),
            ("/a(b):c/hello.wsgi:make(')')", "')'"),
        ] {
            let (_, callable, factory) = parsed(argument);
            assert_eq!((callable.as_deref(), factory.as_deref()), (Some("make"), Some(arguments)));
        }
        let app = App::parse(b"hello.wsgi", |_| true).unwrap();
        assert_eq!(app.clone().with_callable("x(1)").unwrap().to_string(), "hello.wsgi:x(1)");
        assert!(app.with_callable("1x").is_err());
    }

    #[test]
    fn a_file_of_paste_deploy_has_a_name() {
        let app = App::parse(b"/a/site.ini#admin", |_| true).unwrap();
        assert!(app.is_paste());
        assert_eq!(
            (app.source.clone(), app.callable.as_deref()),
            (file("/a/site.ini"), Some("admin"))
        );
        assert_eq!(app.to_string(), "/a/site.ini#admin");
        assert_eq!(App::parse(b"site.ini", |_| true).unwrap().callable, None);
    }

    #[test]
    fn a_path_may_have_any_bytes() {
        let app = App::parse(b"/a\xff.wsgi:app", |_| true).unwrap();
        assert_eq!(app.source, Source::File(b"/a\xff.wsgi".to_vec()));
        assert_eq!(app.callable.as_deref(), Some("app"));
        let module = App::parse(b"a\xff", |_| false).unwrap();
        assert_eq!(module.source, Source::File(b"a\xff".to_vec()));
    }

    #[test]
    fn a_bad_argument_is_refused_with_its_reason() {
        let refused = |argument: &str| App::parse(argument.as_bytes(), |_| true).unwrap_err();
        assert_eq!(refused(""), BadApp::Empty);
        assert_eq!(refused(":app"), BadApp::Empty);
        assert_eq!(refused("a.wsgi:1x"), BadApp::Callable("1x".into()));
        assert_eq!(refused("a.wsgi:f(1"), BadApp::Callable("f(1".into()));
        assert_eq!(refused("a.wsgi:"), BadApp::Callable(String::new()));
    }

    #[test]
    fn an_app_is_displayed_as_it_was_written() {
        for argument in ["a.wsgi", "/x/a.wsgi:app", "pkg.mod:make()", "p:m(1, a='b')"] {
            let app = App::parse(argument.as_bytes(), |_| false).unwrap();
            assert_eq!(app.to_string(), argument);
        }
        assert_eq!(App::in_file(b"/a\xffb\xc3".as_slice()).to_string(), "/a\\xffb\\xc3");
    }
}

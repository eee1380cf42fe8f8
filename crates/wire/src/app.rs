//! `APP`: the words that name a WSGI application.
//!
//! `path/to/file.wsgi[:callable]`, `package.module[:callable]`, or either with `:factory()`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A parsed `APP`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct App {
    /// Where the code stands.
    pub source: Source,
    /// What in it is the application; without it `application`, then `app`.
    pub callable: Option<String>,
    /// The callable is a factory: it is called once, without arguments, and returns the
    /// application.
    pub factory: bool,
}

/// Where the code of an application stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// A file, by its path as bytes.
    File(Vec<u8>),
    /// A module that Python imports by its dotted name.
    Module(String),
}

impl App {
    /// An application in the file at `path`, whatever the path looks like: a colon in it is part of
    /// the name.
    pub fn in_file(path: impl Into<Vec<u8>>) -> Self {
        Self { source: Source::File(path.into()), callable: None, factory: false }
    }
}

impl App {
    /// Reads the word `word`. `site.wsgi` may be a file and `site.wsgi` may be a module: it is the
    /// file if `is_file` says that there is one.
    ///
    /// # Errors
    /// If the word names nothing, or something that can be no callable.
    pub fn parse(word: &str, is_file: impl Fn(&str) -> bool) -> Result<Self, BadApp> {
        let (source, callable) = match word.rsplit_once(':') {
            Some((source, callable)) if !callable.contains('/') => (source, Some(callable)),
            _ => (word, None),
        };
        if source.is_empty() {
            return Err(BadApp::Empty);
        }
        let (callable, factory) = match callable {
            None => (None, false),
            Some(name) => match name.strip_suffix("()") {
                Some(name) => (Some(name), true),
                None => (Some(name), false),
            },
        };
        if let Some(name) = callable
            && !name.split('.').all(is_identifier)
        {
            return Err(BadApp::Callable(name.to_owned()));
        }
        let is_module = source.split('.').all(is_identifier) && !is_file(source);
        Ok(Self {
            source: if is_module {
                Source::Module(source.to_owned())
            } else {
                Source::File(source.as_bytes().to_vec())
            },
            callable: callable.map(str::to_owned),
            factory,
        })
    }
}

impl fmt::Display for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Source::File(path) => f.write_str(&diagnostics::escape::text(path))?,
            Source::Module(name) => f.write_str(name)?,
        }
        if let Some(callable) = &self.callable {
            write!(f, ":{callable}")?;
        }
        if self.factory {
            f.write_str("()")?;
        }
        Ok(())
    }
}

/// Why a word is no `APP`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadApp {
    /// Nothing stands before the colon, or nothing at all.
    Empty,
    /// What stands after the colon is no Python name.
    Callable(String),
}

impl fmt::Display for BadApp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("no file or module is named"),
            Self::Callable(name) => write!(f, "`{name}` is no name of a Python callable"),
        }
    }
}

impl std::error::Error for BadApp {}

/// Python identifiers may hold any letters; only what can certainly be none is refused here.
fn is_identifier(word: &str) -> bool {
    word.chars().next().is_some_and(|first| first.is_alphabetic() || first == '_')
        && word.chars().all(|character| character.is_alphanumeric() || character == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(word: &str) -> (Source, Option<String>, bool) {
        let app = App::parse(word, |name| name == "hello.wsgi" || name == "site.py").unwrap();
        (app.source, app.callable, app.factory)
    }

    fn file(path: &str) -> Source {
        Source::File(path.as_bytes().to_vec())
    }

    fn module(name: &str) -> Source {
        Source::Module(name.to_owned())
    }

    #[test]
    fn every_form_of_the_contract_is_told_apart() {
        assert_eq!(parsed("hello.wsgi"), (file("hello.wsgi"), None, false));
        assert_eq!(
            parsed("/srv/a/hello.wsgi:app"),
            (file("/srv/a/hello.wsgi"), Some("app".into()), false)
        );
        assert_eq!(parsed("./site.py:make()"), (file("./site.py"), Some("make".into()), true));
        assert_eq!(parsed("site.py"), (file("site.py"), None, false));
        assert_eq!(parsed("mysite.wsgi"), (module("mysite.wsgi"), None, false));
        assert_eq!(
            parsed("./mysite.wsgi:application"),
            (file("./mysite.wsgi"), Some("application".into()), false)
        );
        assert_eq!(parsed("mysite.web"), (module("mysite.web"), None, false));
        assert_eq!(
            parsed("package.module:site.app"),
            (module("package.module"), Some("site.app".into()), false)
        );
        assert_eq!(
            parsed("package:create_app()"),
            (module("package"), Some("create_app".into()), true)
        );
        assert_eq!(parsed("/odd:dir/hello.wsgi"), (file("/odd:dir/hello.wsgi"), None, false));
        assert_eq!(parsed("hello-world.wsgi"), (file("hello-world.wsgi"), None, false));
    }

    #[test]
    fn what_names_nothing_is_refused_with_its_reason() {
        let refused = |word| App::parse(word, |_| true).unwrap_err();
        assert_eq!(refused(""), BadApp::Empty);
        assert_eq!(refused(":app"), BadApp::Empty);
        assert_eq!(refused("a.wsgi:1x"), BadApp::Callable("1x".into()));
        assert_eq!(refused("a.wsgi:f(1)"), BadApp::Callable("f(1)".into()));
        assert_eq!(refused("a.wsgi:"), BadApp::Callable(String::new()));
    }

    #[test]
    fn an_app_is_displayed_as_it_was_written() {
        for word in ["a.wsgi", "/x/a.wsgi:app", "pkg.mod:make()"] {
            assert_eq!(App::parse(word, |_| false).unwrap().to_string(), word);
        }
    }
}

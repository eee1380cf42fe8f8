//! Recognises callables that are no WSGI application: ASGI applications, factories, and views of a
//! framework.

use pyo3::prelude::*;

/// Flags of a code object (`inspect.CO_VARARGS`, `CO_COROUTINE`, `CO_ASYNC_GENERATOR`).
const TAKES_ANY_NUMBER: u32 = 0x04;
const IS_ASYNC: u32 = 0x80 | 0x200;

/// How many arguments a WSGI application takes: environ and `start_response`.
const WSGI_ARGUMENTS: usize = 2;

/// Names of functions that create an application.
pub(crate) const FACTORY_NAMES: [&str; 11] = [
    "create_app",
    "make_app",
    "get_app",
    "build_app",
    "app_factory",
    "application_factory",
    "create_application",
    "make_application",
    "get_application",
    "build_application",
    "factory",
];

/// What to do about an ASGI application.
pub(crate) const ASGI_HINT: &str = "wsgate serves WSGI; if the framework has a WSGI application, \
    name that one, as `get_wsgi_application()` of Django; otherwise wrap this one: \
    `from a2wsgi import ASGIMiddleware; application = ASGIMiddleware(application)`, after \
    `python -m pip install a2wsgi`";

/// Why a callable is no WSGI application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mismatch {
    /// An ASGI application.
    Asgi,
    /// A function that takes no arguments, and probably returns the application.
    Factory,
    /// A class that cannot be called with environ and `start_response`.
    Class,
    /// A function that takes one argument, as views of a framework do.
    View,
    /// Another function that does not take two arguments.
    Arguments,
}

impl Mismatch {
    /// The end of a sentence that begins with the callable.
    pub(crate) fn sentence(self) -> &'static str {
        match self {
            Self::Asgi => "is an ASGI application",
            Self::Factory => {
                "can be called without arguments, and not with environ and \
                start_response: it looks like a factory of the application"
            }
            Self::Class => "is a class that cannot be called with environ and start_response",
            Self::View => "takes one argument: it looks like a view, not like an application",
            Self::Arguments => "cannot be called with two arguments, environ and start_response",
        }
    }

    /// What to do. `app` is the application without a callable, and `name` the callable.
    pub(crate) fn hint(self, app: &str, name: &str) -> String {
        match self {
            Self::Asgi => ASGI_HINT.to_owned(),
            Self::Factory => format!(
                "name it `{app}:{name}()`, or call it at the end of the file: `application = \
                 {name}()`"
            ),
            Self::Class => format!("create an object of it: `application = {name}()`"),
            Self::View => "name the application object of the framework, such as \
                `get_wsgi_application()` of Django"
                .to_owned(),
            Self::Arguments => "a WSGI application is a function or object that is called with \
                environ and start_response"
                .to_owned(),
        }
    }
}

/// What to do about `name()` in APP, if `name` cannot be called without arguments. `app` is the
/// application without a callable.
pub(crate) fn no_factory_hint(function: &Bound<'_, PyAny>, app: &str, name: &str) -> String {
    let is_application = python_function(function).is_some_and(|_| mismatch(function).is_none());
    if is_application {
        format!("`{name}` looks like the application itself: remove `()`, as in `{app}:{name}`")
    } else {
        "wsgate calls a factory without arguments: write a function without arguments that calls \
         this one, and name it"
            .to_owned()
    }
}

/// Why `application` is no WSGI application, if its Python code shows that.
pub(crate) fn mismatch(application: &Bound<'_, PyAny>) -> Option<Mismatch> {
    if is_class_without_arguments(application) {
        return Some(Mismatch::Class);
    }
    // A callable without Python code, such as one of C code, is not judged.
    let (function, bound, is_class) = python_function(application)?;
    let look = || -> PyResult<Option<Mismatch>> {
        let code = function.getattr("__code__")?;
        let flags: u32 = code.getattr("co_flags")?.extract()?;
        if flags & IS_ASYNC != 0 {
            return Ok(Some(Mismatch::Asgi));
        }
        let most: usize = code.getattr("co_argcount")?.extract()?;
        let defaults = function.getattr("__defaults__")?;
        let optional = if defaults.is_none() { 0 } else { defaults.len()? };
        let least = most.saturating_sub(optional).saturating_sub(bound);
        let takes_more = flags & TAKES_ANY_NUMBER != 0;
        let names = code.getattr("co_varnames")?;
        let mut arguments: Vec<String> = Vec::new();
        for index in bound..most {
            arguments.push(names.get_item(index)?.extract()?);
        }
        if least <= WSGI_ARGUMENTS && (takes_more || arguments.len() >= WSGI_ARGUMENTS) {
            return Ok(None);
        }
        let is_asgi = ["scope", "receive"].iter().all(|known| arguments.iter().any(|a| a == known));
        Ok(Some(match least {
            _ if is_asgi => Mismatch::Asgi,
            _ if is_class => Mismatch::Class,
            0 => Mismatch::Factory,
            1 if arguments.len() == 1 => Mismatch::View,
            _ => Mismatch::Arguments,
        }))
    };
    look().ok().flatten()
}

/// What the hint says about `returned`, which an application returned instead of an iterable.
pub(crate) fn returned(returned: &Bound<'_, PyAny>) -> Option<(&'static str, &'static str)> {
    let kind = returned.get_type();
    let is_coroutine = kind.name().is_ok_and(|name| name == "coroutine");
    if is_coroutine {
        // Otherwise Python warns that nobody awaits the coroutine.
        let _ = returned.call_method0("close");
        return Some((
            "the application returned a coroutine: it is an ASGI application",
            ASGI_HINT,
        ));
    }
    returned.is_callable().then_some((
        "the application returned another callable instead of a response body: it looks like a \
         factory of the application",
        "call the factory: write `()` after its name in APP, or at the end of the file \
         `application = create_app()`",
    ))
}

/// Is `callable` a class without `__init__` and `__new__`, which takes no arguments?
fn is_class_without_arguments(callable: &Bound<'_, PyAny>) -> bool {
    let py = callable.py();
    let object = py.get_type::<PyAny>();
    let inherits = |name: &str| match (callable.getattr(name), object.getattr(name)) {
        (Ok(own), Ok(of_object)) => own.is(&of_object),
        _ => false,
    };
    callable.get_type().name().is_ok_and(|name| name == "type")
        && inherits("__init__")
        && inherits("__new__")
}

/// The Python function that a call of `callable` runs, and how many of its first arguments Python
/// fills in. Says whether `callable` is a class.
fn python_function<'py>(callable: &Bound<'py, PyAny>) -> Option<(Bound<'py, PyAny>, usize, bool)> {
    let is = |object: &Bound<'py, PyAny>, name: &str| {
        object.get_type().name().is_ok_and(|own| own == name)
    };
    if is(callable, "function") {
        return Some((callable.clone(), 0, false));
    }
    let (method, is_class) = if is(callable, "method") {
        (callable.getattr("__func__").ok()?, false)
    } else if is(callable, "type") {
        (callable.getattr("__init__").ok()?, true)
    } else {
        (callable.get_type().getattr("__call__").ok()?, false)
    };
    is(&method, "function").then_some((method, 1, is_class))
}

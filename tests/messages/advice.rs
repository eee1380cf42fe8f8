//! Hints about common mistakes: they name the next step, at loading and in a request.

use std::fs;

use crate::{each_mode::in_each_mode, support::probe::Probe};

/// The hint of the only log message of this application.
#[track_caller]
fn hint_of(probe: &Probe, code: &str) -> String {
    let response = probe.run();
    assert_eq!(response.codes(), [code], "{}", response.log);
    let hint = response.log.lines().find_map(|line| line.strip_prefix("hint: "));
    hint.unwrap_or_else(|| panic!("no hint in {}", response.log)).to_owned()
}

/// An application that runs `statement` in a request.
fn in_request(statement: &str) -> String {
    format!("def application(environ, start_response):\n    {statement}\n")
}

/// Hides the packages that are installed.
const NO_PACKAGES: &str = "import sys; sys.path[:] = [d for d in sys.path if 'packages' not in d]";

/// A module that is missing everywhere, and the step that the hint names.
const MISSING: [(&str, &str); 9] = [
    ("PIL", "-m pip install pillow"),
    ("yaml", "-m pip install PyYAML"),
    ("cv2", "-m pip install opencv-python"),
    ("MySQLdb", "-m pip install mysqlclient"),
    ("urllib2", "use `urllib.request` of Python 3"),
    ("ConfigParser", "use `configparser` of Python 3"),
    ("dummy_threading", "removed from Python in version 3.9: use `threading`"),
    ("nowhere", "the distribution may have another name"),
    ("nowhere.below", "add its directory with --path DIR"),
];

#[test]
fn a_missing_module_is_explained_at_loading_and_in_a_request() {
    for (module, said) in MISSING {
        let import = format!("{NO_PACKAGES}; import {module}");
        for (probe, code) in
            [(Probe::new(&import), "W0302"), (Probe::new(&in_request(&import)), "W0501")]
        {
            let hint = hint_of(&probe, code);
            assert!(hint.contains(said), "{module}: {hint}");
            assert!(
                !hint.contains(&format!("pip install {module}")),
                "a stranger may have that name: {hint}"
            );
        }
    }
}

#[test]
fn a_module_of_the_application_is_found_where_it_is() {
    let probe = Probe::new("import helper");
    let directory = probe.directory().to_owned();
    fs::create_dir(directory.join("lib")).unwrap();
    fs::write(directory.join("lib/helper.py"), "").unwrap();
    let hint = hint_of(&probe, "W0302");
    assert!(hint.contains(&format!("add `--path {}/lib`", directory.display())), "{hint}");

    // A package without `__init__.py`, in a project that has its packages below `src`.
    let probe = Probe::new("import shop.pages");
    let directory = probe.directory().to_owned();
    fs::create_dir_all(directory.join("src/shop")).unwrap();
    fs::write(directory.join("src/shop/pages.py"), "").unwrap();
    let hint = hint_of(&probe, "W0302");
    assert!(hint.contains(&format!("add `--path {}/src`", directory.display())), "{hint}");

    let probe = Probe::new("import site_settings");
    let file = probe.directory().join("sitesettings.py");
    fs::write(&file, "").unwrap();
    let hint = hint_of(&probe, "W0302");
    assert!(hint.starts_with(&format!("there is `{}`", file.display())), "{hint}");

    let probe = Probe::new("import Utils");
    let file = probe.directory().join("utils.py");
    fs::write(&file, "").unwrap();
    assert!(hint_of(&probe, "W0302").contains("upper and lower case differ"));

    let probe = Probe::new("import flask.views");
    let file = probe.directory().join("flask.py");
    fs::write(&file, "").unwrap();
    let hint = hint_of(&probe, "W0302");
    assert!(hint.contains("hides a package of that name") && hint.contains("rename"), "{hint}");
}

#[test]
fn a_source_file_in_utf_16_is_named_with_its_encoding() {
    let utf_16: Vec<u8> =
        "\u{feff}application = 1\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let probe = Probe::new("import helper");
    fs::write(probe.directory().join("helper.py"), &utf_16).unwrap();
    assert!(hint_of(&probe, "W0301").contains("is saved as UTF-16, or damaged"));
    let probe = Probe::new("");
    let script = probe.directory().join("app.wsgi");
    fs::write(&script, utf_16).unwrap();
    let hint = hint_of(&probe, "W0301");
    let named = format!("`{}` is saved as UTF-16", script.display());
    assert!(hint.starts_with(&named) && hint.contains("iconv -f UTF-16 -t UTF-8"), "{hint}");
}

#[test]
fn an_error_that_names_no_module_is_not_explained_as_one() {
    for arguments in ["'gone'", "'gone', name=''", "'gone', name='../../x'", "'gone', name=5"] {
        let raise = format!("raise ModuleNotFoundError({arguments})");
        for (probe, code) in
            [(Probe::new(&raise), "W0301"), (Probe::new(&in_request(&raise)), "W0501")]
        {
            // Any package above the application has such a file.
            fs::write(probe.directory().join("__init__.py"), "").unwrap();
            let hint = hint_of(&probe, code);
            assert!(!hint.contains("``") && !hint.contains("--path"), "{arguments}: {hint}");
        }
    }
}

#[test]
fn a_module_in_a_directory_that_anybody_may_change_is_not_named() {
    let probe = Probe::new("import helper");
    let shared = probe.directory().join("lib");
    fs::create_dir(&shared).unwrap();
    fs::write(shared.join("helper.py"), "").unwrap();
    fs::set_permissions(&shared, std::os::unix::fs::PermissionsExt::from_mode(0o1777)).unwrap();
    let hint = hint_of(&probe, "W0302");
    assert!(!hint.contains("lib"), "{hint}");
}

#[test]
fn python_2_code_is_recognised() {
    for (code, number) in [
        ("print 'hello'", "W0301"),
        ("try:\n    pass\nexcept ValueError, error:\n    pass\n", "W0301"),
        ("raise ValueError, 'text'", "W0301"),
        ("name = unicode('x')", "W0301"),
        (&in_request("return {}.iteritems()"), "W0501"),
        (&in_request("return [xrange(3)]"), "W0501"),
    ] {
        let hint = hint_of(&Probe::new(code), number);
        assert!(hint.contains("Python 2 code") && hint.contains("fissix"), "{code}: {hint}");
    }
    for code in ["name = file('x')", "name = long", "name = cmp(1, 2)", "name = ''.decode()"] {
        let hint = hint_of(&Probe::new(code), "W0301");
        assert!(hint.contains("this may be Python 2 code, which Python 3."), "{code}: {hint}");
    }
    for code in ["print('x'", "name = spam", "def broken(:"] {
        let hint = hint_of(&Probe::new(code), "W0301");
        assert!(!hint.contains("Python 2"), "{code}: {hint}");
    }
}

#[test]
fn what_is_no_wsgi_application_is_recognised_before_it_is_called() {
    for (code, said) in [
        ("async def application(scope, receive, send): pass", "a2wsgi"),
        (
            "class Site:\n    async def __call__(self, scope, receive, send): pass\napp = Site()\n",
            "a2wsgi",
        ),
        ("def application(scope, receive, send): pass", "a2wsgi"),
        ("def create_app(config=None): pass", "app.wsgi:create_app()`"),
        ("def application(): pass", "app.wsgi:application()`"),
        ("def application(request): pass", "get_wsgi_application"),
        ("class application: pass", "`application = application()`"),
        ("class application:\n    def __init__(self): pass\n", "`application = application()`"),
        ("def application(a, b, c): pass", "called with environ and start_response"),
    ] {
        let hint = hint_of(&Probe::new(code), "W0303");
        assert!(hint.contains(said), "{code}: {hint}");
    }
}

#[test]
fn what_an_application_returns_instead_of_a_body_is_recognised() {
    for (code, said) in [
        (
            "async def page(): pass\ndef application(environ, start_response): return page()",
            "a2wsgi",
        ),
        ("def application(config, debug): return lambda environ, start: []", "call the factory"),
    ] {
        let hint = hint_of(&Probe::new(code), "W0503");
        assert!(hint.contains(said), "{code}: {hint}");
    }
}

#[test]
fn callables_of_every_form_are_served() {
    let body = "start_response('200 OK', [('Content-Type', 'text/plain')]); return [b'hello']";
    for code in [
        "def application(environ, start_response, *rest, more=1): BODY",
        "def application(*arguments):\n    environ, start_response = arguments; BODY",
        "class Site:\n    def __call__(self, environ, start_response): BODY\napp = Site()",
        "class Site:\n    def page(self, environ, start_response): BODY\napp = Site().page",
        "class Site:\n    @staticmethod\n    def page(e, start_response): BODY\napp = Site.page",
        "import functools\ndef page(a, e, start_response): BODY\napp = functools.partial(page, 1)",
        "class application:
    def __init__(self, environ, start_response): self.start = start_response
    def __iter__(self):
        self.start('200 OK', [('Content-Type', 'text/plain')])
        yield b'hello'
",
    ] {
        let response = Probe::new(&code.replace("BODY", body)).run();
        assert_eq!((response.text().as_str(), response.log.as_str()), ("hello", ""), "{code}");
    }
}

#[test]
fn a_request_has_the_hint_in_each_mode() {
    let code = "
        def application(environ, start_response):
            if environ['PATH_INFO'] == '/missing':
                import PIL_is_not_installed, urllib2
            if environ['PATH_INFO'] == '/two':
                import urllib2
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'hello']
        ";
    in_each_mode(code, |served, mode| {
        for path in ["/missing", "/two"] {
            let status = served.request("GET", path, &[], b"").status;
            assert_eq!(status, "500 Internal Server Error", "{mode:?}");
        }
        let log = served.stop();
        assert!(log.contains("the distribution may have another name"), "{mode:?}: {log}");
        assert!(log.contains("use `urllib.request` of Python 3"), "{mode:?}: {log}");
    });
}

//! The forms of APP, and suggestions for misspelt ones.

use crate::{call::Shell, support::web_servers::venv};

const PACKAGE: &str = "
    class Site:
        def __init__(self, *arguments, **named):
            self.text = f'{arguments} {named}'.encode()
        def __call__(self, environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [self.text]
    def create_app(*arguments, **named):
        return Site(*arguments, **named)
    site = Site('attribute')
";

#[test]
fn a_factory_gets_literals_as_arguments() {
    let shell = Shell::new();
    shell.file("shop.py", PACKAGE);
    shell.file("plain.py", "def site(environ, start_response):\n    pass\n");
    for (app, text) in [
        ("shop:create_app()", "() {}"),
        ("shop:create_app(\"prod\", debug=True)", "('prod',) {'debug': True}"),
        (
            "shop.py:create_app('a:b/c)', [1, -2.5], x={'k': None})",
            "('a:b/c)', [1, -2.5]) {'x': {'k': None}}",
        ),
        ("shop:site", "('attribute',) {}"),
        ("shop.site", "('attribute',) {}"),
    ] {
        let ended = shell.run(&[app]);
        let found = (ended.code(), &*ended.text());
        assert_eq!(found, (Some(0), text), "{app}: {}", ended.stderr);
    }
    for (app, said) in [
        ("shop:create_app(open('x', 'w'))", "are not literals of Python"),
        ("shop:create_app(1+1)", "are not literals of Python: `1 + 1` is not a literal"),
        ("shop:create_app(*[1])", "are not literals of Python"),
        ("shop:create_app(**{'a': 1})", "are not literals of Python"),
        ("shop:create_app(1)(2)", "no arguments of one call"),
        ("shop:create_app(1", "is not a name of a Python callable"),
        ("shop:create_ap()", "name it `shop:create_app()`"),
        ("shop:create_app", "call the factory: write `()` after its name"),
        ("plain:stie", "did you mean `plain:site`?"),
        ("shop.sit", "there is no module `shop.sit`"),
        ("./shp.py", "did you mean `shop.py`?"),
    ] {
        let ended = shell.run(&[app]);
        assert!(ended.code() != Some(0), "{app}");
        assert!(ended.stderr.contains(said), "{app}: {}", ended.stderr);
    }
    assert!(!shell.path("x").exists());
}

#[test]
fn a_first_line_names_the_callable() {
    let shell = Shell::new();
    let code = |line: &str| {
        let lines = PACKAGE.lines().map(|line| line.strip_prefix("    ").unwrap_or(line));
        format!("#!/usr/local/bin/wsgate {line}\n{}\n", lines.collect::<Vec<_>>().join("\n"))
    };
    for (line, app, text) in [
        ("--callable site", "shop.wsgi", "('attribute',) {}"),
        ("--callable 'create_app(\"x\", y=1)'", "shop.wsgi", "('x',) {'y': 1}"),
        ("--callable site", "shop.wsgi:create_app()", "() {}"),
    ] {
        std::fs::write(shell.path("shop.wsgi"), code(line)).unwrap();
        let ended = shell.run(&[app]);
        let found = (ended.code(), &*ended.text());
        assert_eq!(found, (Some(0), text), "{line}: {}", ended.stderr);
    }
    let ended = shell.run(&["shop.wsgi", "--callable", "1x"]);
    assert_eq!(ended.code(), Some(2));
    assert!(ended.stderr.contains("such as `create_app()`"), "{}", ended.stderr);
}

#[test]
fn a_file_of_paste_deploy_is_an_application_with_its_logging() {
    let shell = Shell::new();
    shell.file(
        "paste_app.py",
        "
        import logging
        class App:
            def __init__(self, text):
                self.text = text
            def __call__(self, environ, start_response):
                logging.getLogger('paste_app').info('served %s', self.text)
                start_response('200 OK', [('Content-Type', 'text/plain')])
                return [self.text.encode()]
        def make(global_config, text):
            return App(text)
        ",
    );
    shell.file(
        "site.ini",
        "
        [app:main]
        paste.app_factory = paste_app:make
        text = main at %(here)s
        [app:admin]
        paste.app_factory = paste_app:make
        text = admin
        [loggers]
        keys = root
        [handlers]
        keys = console
        [formatters]
        keys = plain
        [logger_root]
        level = INFO
        handlers = console
        [handler_console]
        class = StreamHandler
        args = (sys.stderr,)
        formatter = plain
        [formatter_plain]
        format = LOG %(name)s %(message)s
        ",
    );
    let here = format!("main at {}", shell.path("").to_str().unwrap().trim_end_matches('/'));
    let venv = venv();
    let venv = ["--venv", venv.to_str().unwrap()];
    for (app, text) in [("site.ini", &*here), ("./site.ini#admin", "admin")] {
        let ended = shell.run(&[&[app], &venv[..]].concat());
        let found = (ended.code(), &*ended.text());
        assert_eq!(found, (Some(0), text), "{app}: {}", ended.stderr);
        assert_eq!(ended.stderr, format!("LOG paste_app served {text}\n"), "{app}");
    }
    let ended = shell.run(&[&["site.ini#absent"], &venv[..]].concat());
    assert_eq!(ended.code(), Some(1));
    assert!(ended.stderr.contains("absent"), "{}", ended.stderr);
    shell.file("site/paste/__init__.py", "");
    let ended = shell.run(&["site.ini", "--path", "site", "--python", "/usr/bin/python3"]);
    assert!(ended.stderr.contains("needs PasteDeploy, which is not installed"), "{}", ended.stderr);
    assert!(ended.stderr.contains("pip install PasteDeploy"), "{}", ended.stderr);
}

//! The forms of APP, and what the module of a script looks like from inside.

use crate::support::{
    child_process::run,
    install_dir::InstallDir,
    probe::{Probe, python},
};

fn response(dir: &InstallDir, app: &str) -> String {
    let mut command = std::process::Command::new(dir.wsgate());
    command
        .args(["call", "--python"])
        .arg(python())
        .arg(app)
        .current_dir(dir.path("site"))
        .env_remove("VIRTUAL_ENV");
    let ended = run(&mut command, "");
    format!("{}{}", ended.text(), ended.stderr)
}

fn site() -> InstallDir {
    let dir = InstallDir::new();
    let code = "
        def named(name):
            def application(environ, start_response):
                start_response('200 OK', [('Content-Type', 'text/plain')])
                return [name.encode()]
            return application
        class Container:
            inner = named('inner')
        application, app, other = named('application'), named('app'), named('other')
        Container.inner = staticmethod(Container.inner)
        number = 42
        ";
    dir.file("site/hello.wsgi", code);
    dir.file("site/package/__init__.py", "");
    dir.file("site/package/module.py", code);
    dir.file(
        "site/only_app.py",
        "def app(environ, start_response):\n    start_response('200 OK', [])\n    return []\n",
    );
    dir
}

#[test]
fn every_form_of_app_names_its_application() {
    let dir = site();
    for (app, expected) in [
        ("hello.wsgi", "application"),
        ("./hello.wsgi:app", "app"),
        ("hello.wsgi:other", "other"),
        ("hello.wsgi:Container.inner", "inner"),
        ("package.module", "application"),
        ("package.module:other", "other"),
        ("only_app.py", ""),
        ("only_app", ""),
    ] {
        assert_eq!(response(&dir, app), expected, "{app}");
    }
}

#[test]
fn a_factory_is_called_once_for_its_application() {
    let dir = site();
    dir.file(
        "site/factory.py",
        "def make():\n    print('made')\n    from package.module import other\n    return other\n",
    );
    for app in ["factory.py:make()", "factory:make()"] {
        assert_eq!(response(&dir, app), "othermade\n", "{app}");
    }
}

#[test]
fn a_callable_that_is_missing_or_not_callable_is_named_with_the_present_ones() {
    let dir = site();
    assert!(
        response(&dir, "hello.wsgi:number").contains("is of type `int`, which cannot be called")
    );
    let missing = response(&dir, "hello.wsgi:missing");
    assert!(
        missing.contains("W0303") && missing.contains("found there: `named`, `Container`"),
        "{missing}"
    );
    assert!(response(&dir, "package.nothing").contains("W0302"));
    assert!(response(&dir, "nowhere/app.wsgi").contains("W0102"));
}

#[test]
fn a_script_has_a_module_of_its_own_that_hides_no_package() {
    let code = "
        import sys
        mine = sys.modules[__name__]
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            facts = (__name__, __file__.endswith('/app.wsgi'), mine.application is application, \
            __spec__.origin == __file__,
                     sys.argv == [__file__], sys.path[0] == __file__.rpartition('/')[0], '' in \
                     sys.path)
            return [repr(facts).encode()]
        ";
    assert_eq!(Probe::new(code).run().text(), "('wsgi_app', True, True, True, True, True, False)");
}

#[test]
fn a_file_of_python_keeps_its_name_so_that_others_get_the_same_module() {
    let dir = InstallDir::new();
    dir.file(
        "site/main_site.py",
        "import other\ndef application(environ, start_response):\n    \
        start_response('200 OK', [])\n    return [str(other.same()).encode()]\n",
    );
    dir.file(
        "site/other.py",
        "import sys\ndef same():\n    import main_site\n    return \
            main_site.application.__module__ == 'main_site'\n",
    );
    assert!(response(&dir, "main_site.py").starts_with("True"));
}

#[test]
fn path_and_chdir_are_relative_to_the_script() {
    let dir = InstallDir::new();
    dir.file("lib/extra.py", "WORD = 'extra'\n");
    dir.file("work/here.txt", "");
    let line = format!("#!WSGATE --path ../lib --chdir ../work --python {}", python().display());
    let code = "
        import os, extra
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [repr((extra.WORD, os.listdir())).encode()]
        ";
    let script = dir.script("site/app.wsgi", &line, code);
    let mut command = dir.request(&script);
    // The web server may have started it from anywhere.
    let ended = run(command.current_dir("/"), "");
    assert!(ended.text().ends_with("('extra', ['here.txt'])"), "{ended:?}");
}

#[test]
fn a_script_that_is_run_as_a_program_by_itself_is_not_run_so_here() {
    let code = "
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'as an application']
        if __name__ == '__main__':
            raise SystemExit('as a program')
        ";
    assert_eq!(Probe::new(code).run().text(), "as an application");
}

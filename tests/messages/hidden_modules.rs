//! Modules of an application that are named like those of the standard library.

use crate::each_mode::in_each_mode;

/// Beside the script stands a file for each module of the standard library that Python has not
/// loaded by then.
const HIDES: &str = r#"
    import os, sys
    sys.dont_write_bytecode = True
    here = os.path.dirname(os.path.abspath(__file__))
    for name in getattr(sys, "stdlib_module_names", ()):
        if name not in sys.modules and name not in sys.builtin_module_names:
            with open(os.path.join(here, name + ".py"), "w") as file:
                file.write("import os\nout = os.environ['OUT'] + '/imported'\n")
                file.write("open(out, 'a').write(__name__ + ' ')\n")
    sys.path_importer_cache.clear()

    def application(environ, start_response):
        if environ["PATH_INFO"] == "/raises": raise ValueError("a reason")
        if environ["PATH_INFO"] == "/unclosed":
            class Body(list):
                def close(self): raise ValueError("not closed")
            start_response("200 OK", [("Content-Type", "text/plain")])
            return Body([b"body"])
        if environ["PATH_INFO"] == "/imports":
            import traceback, calendar
            assert traceback.__file__.startswith(here) and calendar.__file__.startswith(here)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"ok"]
"#;

#[test]
fn an_applications_own_traceback_py_is_not_ours() {
    in_each_mode(HIDES, |served, mode| {
        for _ in 0..2 {
            assert_eq!(
                served.request("GET", "/raises", &[], b"").status,
                "500 Internal Server Error",
                "{mode:?}"
            );
            let response = served.request("GET", "/unclosed", &[], b"");
            assert_eq!(response.text(), "body", "{mode:?}: {}", served.stop());
        }
        assert_eq!(served.written("imported"), "", "{mode:?}");
        // The module belongs to the application.
        assert_eq!(served.ask("/imports"), "ok", "{mode:?}");
        assert_eq!(
            served.request("GET", "/raises", &[], b"").status,
            "500 Internal Server Error",
            "{mode:?}"
        );
        let log = served.stop();
        for word in [
            "ValueError: a reason",
            ", in application",
            "    if environ[",
            "ValueError: not closed",
        ] {
            assert!(log.contains(word), "{mode:?}: no `{word}` in {log}");
        }
        assert_eq!(served.written("imported"), "traceback calendar ", "{mode:?}");
    });
}

#[test]
fn a_check_does_not_import_them_either() {
    let dir = crate::support::install_dir::InstallDir::new();
    std::fs::create_dir(dir.path("site")).unwrap();
    dir.script("site/app.wsgi", "#!WSGATE", HIDES);
    let mut command = std::process::Command::new(dir.wsgate());
    command
        .args(["check", "site/app.wsgi"])
        .current_dir(dir.path(""))
        .env("OUT", dir.path(""))
        .env_clear();
    command.env("PATH", "/usr/bin:/bin").env("OUT", dir.path(""));
    let ended = crate::support::child_process::run(&mut command, "");
    let text = ended.text();
    assert_eq!(ended.code(), Some(0), "{text}{}", ended.stderr);
    assert!(
        text.contains("GET / returned 200 OK in")
            && text.contains("not validated: ImportError: `/"),
        "{text}"
    );
    assert_eq!(std::fs::read_to_string(dir.path("imported")).unwrap_or_default(), "", "{text}");
}

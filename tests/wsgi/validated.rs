//! Every application of `cgi-bin/` and `tests/apps/` that keeps to the PEP is also run under
//! `wsgiref.validate`.

use std::{fs, path::PathBuf};

use crate::support::{probe::Probe, web_servers::source};

/// Applications that break the PEP, or end their process, on purpose.
const MISBEHAVING: &[&str] = &[
    "calls_os_exit",
    "calls_os_exit_at_import",
    "calls_sys_exit",
    "ends_early",
    "hangs",
    "hangs_without_python",
    "has_no_type",
    "injects_header",
    "kills_itself",
    "missing_module",
    "never_ends",
    "no_application",
    "no_start_response",
    "python_not_there",
    "raises",
    "raises_at_import",
    "raises_in_first_block",
    "recurses",
    "returns_none",
    "returns_str",
    "segfaults",
    "syntax_error",
    "venv_not_there",
    "waits_between_blocks",
    // Reads without a size, which the validator refuses.
    "inflated",
    // These applications need packages or files, and are tested behind web servers.
    "sends_file",
    "leaves_traces",
    "waits_before_its_response",
    "peak_memory",
    "flask",
    "django",
];

#[test]
fn every_application_that_keeps_to_the_pep_passes_the_validator() {
    let mut seen = 0;
    for directory in ["cgi-bin", "tests/apps"] {
        for entry in fs::read_dir(source(directory)).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            if path.extension().is_none_or(|extension| extension != "wsgi")
                || MISBEHAVING.contains(&name.as_str())
            {
                continue;
            }
            let code = format!(
                "
                import runpy
                from wsgiref.validate import validator
                application = validator(runpy.run_path({path:?})['application'])
                "
            );
            let response = Probe::new(&code).run();
            let is_good = response.status.starts_with(['2', '3']);
            assert!(is_good, "{name}: {} {}", response.status, response.log);
            assert!(!response.log.contains("AssertionError"), "{name}: {}", response.log);
            seen += 1;
        }
    }
    assert!(seen >= 6, "{seen}");
}

#[test]
fn middleware_between_server_and_application_changes_nothing() {
    let code = "
        from wsgiref.validate import validator
        def inner(environ, start_response):
            body = environ['wsgi.input'].read(int(environ['CONTENT_LENGTH']))
            environ['wsgi.errors'].write('seen\\n')
            environ['wsgi.errors'].flush()
            write = start_response('200 OK', [('Content-Type', 'text/plain'), ('Content-Length', \
            str(len(body) + 1))])
            write(b'>')
            return environ['wsgi.file_wrapper'](__import__('io').BytesIO(body))
        application = validator(validator(inner))
        ";
    Probe::new(code).post("through").both(|response| assert_eq!(response.text(), ">through"));
}

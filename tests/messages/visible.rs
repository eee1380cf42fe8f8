//! Characters that move a cursor, turn a line around, or hide.

use std::{fs, process::Command};

use crate::{
    each_mode::{MODES, ServedApp},
    support::{child_process, install_dir::InstallDir},
};

/// U+202E shows what follows from right to left, U+2028 ends a line for some programs, U+009B
/// begins a sequence for terminals.
const HIDDEN: &str = "\u{202e}\u{2028}\u{2066}\u{200b}\u{feff}\u{9b}\u{1b}[31m";

/// Returns whether `text` has an invisible character.
pub(crate) fn hides(text: &str) -> bool {
    text.chars().any(|character| {
        (character.is_control() && character != '\n')
            || "\u{202e}\u{2028}\u{2066}\u{200b}\u{feff}".contains(character)
    })
}

#[test]
fn no_message_holds_what_is_not_seen() {
    for mode in MODES {
        let mut served = ServedApp::start(
            mode,
            &["--debug"],
            "
            def application(environ, start_response):
                if environ['PATH_INFO']: raise \
                ValueError(environ['HTTP_X'].encode('latin-1').decode())
                start_response('200 OK', [('Content-Type', 'text/plain')])
                return [b'ok']
            ",
        );
        let target = format!("/{HIDDEN}");
        let response =
            served.request("GET", "/raises", &[("HTTP_X", HIDDEN), ("REQUEST_URI", &target)], b"");
        assert!(!hides(&response.text()), "{mode:?}: {:?}", response.text());
        let log = served.stop();
        assert!(!hides(&log), "{mode:?}: {log:?}");
        for word in [
            "ValueError: \\u{202e}\\u{2028}\\u{2066}\\u{200b}\\u{feff}\\u{9b}\\u{1b}[31m",
            "GET /\\u{202e}",
        ] {
            assert!(log.contains(word), "{mode:?}: no `{word}` in {log}");
        }
    }
}

#[test]
fn a_check_shows_names_of_files_and_modules_as_they_are() {
    let dir = InstallDir::new();
    let site = dir.path(&format!("site {HIDDEN}"));
    fs::create_dir(&site).unwrap();
    let code = "import sys; sys.path.append('\\udcff')\n\
                def app(environ, start_response): start_response('204 No', []); return []\n";
    fs::write(site.join("app.py"), code).unwrap();
    let mut command = Command::new(dir.wsgate());
    command
        .args(["check", "--user", "daemon"])
        .arg(site.join("app.py"))
        .env_clear()
        .env("PATH", "/usr/bin:/bin");
    let ended = child_process::run(&mut command, "");
    let text = ended.text();
    assert!(
        !hides(&text) && text.contains("site \\u{202e}") && text.contains("\\udcff"),
        "{text:?} {}",
        ended.stderr
    );
    assert!(text.contains("GET / returned 204 No in"), "{text} {}", ended.stderr);
}

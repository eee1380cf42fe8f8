//! Files that a command reads and writes: what is left of them, and what messages say.

use std::fs;

use crate::call::Shell;

#[test]
fn a_failure_without_output_leaves_the_file_of_output_as_it_is() {
    let shell = Shell::new();
    shell.file("to.wsgi", REDIRECT);
    for (args, code, content) in [
        (&["-f", "status.wsgi", "/?404"][..], 1, "before"),
        (&["-f", "-L", "to.wsgi", "/"], 1, "before"),
        (&["-L", "to.wsgi", "/"], 1, "body"),
        (&["-f", "status.wsgi", "/?200"], 0, "body"),
        (&["-f", "status.wsgi", "/?204"], 0, ""),
        (&["status.wsgi", "/?404"], 1, "body"),
    ] {
        for exists in [true, false] {
            let file = shell.path("out");
            let _ = fs::remove_file(&file);
            if exists {
                fs::write(&file, "before").unwrap();
            }
            let ended = shell.run(&[&["-o", "out"], args].concat());
            assert_eq!((ended.code(), &*ended.text()), (Some(code), ""), "{args:?}");
            let found = fs::read_to_string(&file).ok();
            let is_untouched = content == "before" && !exists;
            let expected = (!is_untouched).then(|| content.to_owned());
            assert_eq!(found, expected, "{args:?}: {}", ended.stderr);
        }
    }
    // The headers of a failure are output.
    shell.run(&["-f", "-i", "-o", "out", "status.wsgi", "/?404"]);
    let text = fs::read_to_string(shell.path("out")).unwrap();
    assert!(text.starts_with("HTTP/1.1 404 Odd") && text.ends_with("\r\n\r\n"), "{text}");
}

const REDIRECT: &str = "
    def application(environ, start_response):
        missing = environ['PATH_INFO'] == '/missing'
        headers = [('Content-Type', 'text/plain'), ('Location', '/missing')]
        start_response('404 Not Found' if missing else '302 Found', headers)
        return [b'body']
";

#[test]
fn a_file_that_cannot_be_written_or_read_is_named_with_its_option() {
    let shell = Shell::new();
    for (args, code, said, hint) in [
        (&["-o", "/nonexist/x"][..], 1, "`/nonexist/x` cannot be written: No such file", "-o"),
        (&["-o", "."], 1, "`.` cannot be written: Is a directory", "-o"),
        (&["-o", "/dev/full"], 1, "`/dev/full` cannot be written: No space left", "-o"),
        (&["-c", "/nonexist/jar"], 78, "`/nonexist/jar` cannot be written: No such file", "-c"),
        (&["-c", "."], 78, "`.` cannot be written: Is a directory", "-c"),
        (&["-b", "absent"], 78, "`absent` has no `=`, and cannot be read as a file", "`-b`"),
        (&["-d", "@absent"], 78, "`absent` cannot be opened", "`@`"),
        (&["-F", "a=<absent"], 78, "`absent` cannot be opened", "`<` of -F"),
        (&["-H", "@absent"], 78, "the file of headers cannot be read: `absent`", "`@`"),
        (&["-w", "@absent"], 78, "--write-out cannot be read: `absent`", "`@`"),
    ] {
        let ended = shell.run(&[&["status.wsgi"], args].concat());
        assert_eq!(ended.code(), Some(code), "{args:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(said), "{args:?}: {}", ended.stderr);
        let (_, given) = ended.stderr.split_once("\nhint: ").unwrap();
        let given = given.lines().next().unwrap();
        assert!(given.contains(hint), "{args:?}: {given}");
        assert!(!given.contains("standard output"), "{args:?}: {given}");
        let is_about_at = given.contains("after `@`");
        assert_eq!(is_about_at, args[1].contains(['@', '<']), "{args:?}: {given}");
    }
}

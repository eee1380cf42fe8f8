//! First lines that keep a web server from running a script, each with the command that mends it.

use std::{
    fs::{
        Permissions, {self},
    },
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Command,
};

use crate::{
    check::{CheckSite, HELLO, only_problem},
    support::{
        child_process::{self, ExitedProcess},
        probe::dedent,
    },
};

/// A first line, where `WSGATE` stands for the path of the gateway, and what is said of it.
const LINES: [(&str, &str); 24] = [
    ("\u{feff}#!WSGATE\n", "a byte order mark stands before the `#!`"),
    ("\u{feff} \n #!WSGATE\n", "a byte order mark stands before the `#!`"),
    ("\u{feff}# A comment\n", "begins with a byte order mark, and has no `#!` line"),
    ("\u{feff}# !WSGATE\n", "is not `#!` and a program, but almost"),
    ("\n # !WSGATE\n", "is not `#!` and a program, but almost"),
    ("\n#!WSGATE\n", "is not at the very beginning of the file"),
    (" \t\n\n#!WSGATE --debug\n", "is not at the very beginning of the file"),
    ("  #!WSGATE\n", "is not at the very beginning of the file"),
    ("# !WSGATE\n", "is not `#!` and a program, but almost"),
    ("#WSGATE\n", "is not `#!` and a program, but almost"),
    ("", "has no `#!` line"),
    ("# A comment\n", "has no `#!` line"),
    ("#!WSGATE\r\n", "ends with CR LF"),
    ("#!/usr/bin/python3\n", "starts `/usr/bin/python3`, not wsgate"),
    ("#!/usr/bin/env python3\n", "starts `python3`, not wsgate"),
    ("#!/usr/bin/env WSGATE --debug\n", "passes arguments to `env`"),
    ("#!/usr/bin/env -S wsgate-absent --debug\n", "does not find `wsgate-absent` with the PATH of"),
    ("#!/usr/bin/env -S A=1 B=a|b wsgate-absent --debug\n", "does not find `wsgate-absent` with"),
    ("#!/usr/bin/env -S -i  A=1 wsgate-absent\n", "does not find `wsgate-absent` with the PATH of"),
    ("#!/absent/wsgate --debug\n", "names `/absent/wsgate`, which does not exist"),
    ("#!/absent/my venv/bin/wsgate --debug\n", "takes what stands before the space for the"),
    ("#!/absent/a&b.c/wsgate --debug\n", "names `/absent/a&b.c/wsgate`, which does not exist"),
    ("#!\n", "names no program"),
    ("#!bin/wsgate\n", "names `bin/wsgate`, which is not a path from `/`"),
];

/// Runs the command in the hint of the only problem.
#[track_caller]
pub(super) fn mend(ended: &ExitedProcess) {
    let text = ended.text();
    let (_, hint) = text.rsplit_once("hint: ").unwrap_or_else(|| panic!("no hint in {text}"));
    let hint = hint.lines().next().unwrap();
    let starts = [
        "mkdir -p ",
        "ln -sfn ",
        "mv -n ",
        "LC_ALL=C sed -i",
        "sed -i",
        "iconv ",
        "chmod ",
        "chown ",
        "chgrp ",
        "printf ",
    ];
    let init = hint.rfind(": ").filter(|_| hint.contains(" init ")).map(|at| at + 2);
    let at = starts.iter().filter_map(|start| hint.find(start)).chain(init).min();
    let command = &hint[at.unwrap_or_else(|| panic!("no command in {hint}"))..];
    let status = Command::new("sh").args(["-c", command]).status().unwrap();
    assert!(status.success(), "{command}");
}

#[test]
fn a_wrong_first_line_is_a_problem_and_its_hint_mends_it() {
    let site = CheckSite::new();
    for (line, said) in LINES {
        let line = line.replace("WSGATE", site.dir.wsgate().to_str().unwrap());
        site.dir.executable("site/app.wsgi", format!("{line}{}", dedent(HELLO)));
        let ended = site.check(&["app.wsgi"]);
        only_problem(&ended, said);
        mend(&ended);
        let ended = site.check(&["app.wsgi"]);
        assert_eq!(ended.code(), Some(0), "{line:?}: {}{}", ended.text(), ended.stderr);
    }
}

#[test]
fn the_options_of_a_wrong_first_line_are_used_all_the_same() {
    let site = CheckSite::new();
    site.dir.file("lib/helper.py", "");
    let program = site.dir.wsgate();
    let code = format!("import helper\n{}", dedent(HELLO));
    for line in [
        format!("\u{feff}#!{}", program.display()),
        format!("\n#!{}", program.display()),
        format!("# !{}", program.display()),
        "#!/absent/my venv/bin/wsgate".to_owned(),
        "#!/absent/wsgate".to_owned(),
    ] {
        let text = format!("{line} --path ../lib\n{code}");
        site.dir.executable("site/app.wsgi", text);
        only_problem(&site.check(&["app.wsgi"]), "`#!`");
    }
    // An empty file has another problem, too.
    site.dir.executable("site/app.wsgi", "");
    let ended = site.check(&["app.wsgi"]);
    let hint = ended.text().lines().find_map(|it| Some(it.split_once(": printf ")?.1.to_owned()));
    let command = format!("printf {}", hint.unwrap_or_else(|| panic!("{}", ended.text())));
    assert!(Command::new("sh").args(["-c", &command]).status().unwrap().success(), "{command}");
    let text = fs::read_to_string(site.dir.path("site/app.wsgi")).unwrap();
    assert_eq!(text, format!("#!{}\n", program.display()));
}

#[test]
fn a_cr_after_an_option_of_the_first_line_is_a_note() {
    let site = CheckSite::new();
    let program = site.dir.wsgate();
    let program = program.display();
    for line in [format!("#!{program} --debug"), format!("#!/usr/bin/env -S {program}")] {
        site.dir.executable("site/app.wsgi", format!("{line}\r\n{}", dedent(HELLO)));
        let ended = site.check(&["app.wsgi"]);
        let text = ended.text();
        assert!(text.contains("\nnote           the `#!` line of `"), "{line}: {text}");
        assert!(text.contains("ends with CR LF; wsgate ignores CR"), "{line}: {text}");
        assert_eq!(ended.code(), Some(0), "{line}: {text}");
        let mut request = Command::new(site.dir.path("site/app.wsgi"));
        request.envs([("GATEWAY_INTERFACE", "CGI/1.1"), ("REQUEST_METHOD", "GET")]);
        let response = child_process::run(&mut request, "");
        assert!(response.text().starts_with("Status: 200 OK"), "{line}: {}", response.text());
    }
}

#[test]
fn a_program_after_variables_of_env_keeps_them() {
    let site = CheckSite::new();
    let text = format!("#!/usr/bin/env -S A=1 wsgate-absent --debug\n{}", dedent(HELLO));
    site.dir.executable("site/app.wsgi", text);
    mend(&site.check(&["app.wsgi"]));
    let text = fs::read_to_string(site.dir.path("site/app.wsgi")).unwrap();
    let line = format!("#!/usr/bin/env -S A=1 {} --debug", site.dir.wsgate().display());
    assert_eq!(text.lines().next(), Some(&*line));
}

#[test]
fn a_script_in_another_encoding_is_a_problem_and_its_hint_mends_it() {
    let site = CheckSite::new();
    let line = format!("#!{}\n{}", site.dir.wsgate().display(), dedent(HELLO));
    for (encoding, has_mark, said) in [
        ("UTF-16LE", true, "UTF-16: iconv -f UTF-16 "),
        ("UTF-16BE", true, "UTF-16: iconv -f UTF-16 "),
        ("UTF-16LE", false, "UTF-16: iconv -f UTF-16LE "),
        ("UTF-16BE", false, "UTF-16: iconv -f UTF-16BE "),
        ("UTF-32LE", true, "UTF-32: iconv -f UTF-32 "),
        ("UTF-32BE", true, "UTF-32: iconv -f UTF-32 "),
        ("UTF-32LE", false, "UTF-32: iconv -f UTF-32LE "),
        ("UTF-32BE", false, "UTF-32: iconv -f UTF-32BE "),
    ] {
        let text = if has_mark { format!("\u{feff}{line}") } else { line.clone() };
        let units = text.encode_utf16();
        let characters = text.chars().map(u32::from);
        let bytes: Vec<u8> = match encoding {
            "UTF-16LE" => units.flat_map(u16::to_le_bytes).collect(),
            "UTF-16BE" => units.flat_map(u16::to_be_bytes).collect(),
            "UTF-32LE" => characters.flat_map(u32::to_le_bytes).collect(),
            _ => characters.flat_map(u32::to_be_bytes).collect(),
        };
        site.dir.executable("site/app.wsgi", bytes);
        let ended = site.check(&["app.wsgi"]);
        let text = ended.text();
        let (name, command) = said.split_once(": ").unwrap();
        assert!(text.contains(&format!("is saved as {name}, ")), "{encoding}: {text}");
        let problem = text.lines().find_map(|line| line.split_once("mark: ")).unwrap().1;
        assert!(problem.starts_with(command), "{encoding}: {text}");
        assert!(Command::new("sh").args(["-c", problem]).status().unwrap().success(), "{problem}");
        let ended = site.check(&["app.wsgi"]);
        assert_eq!(ended.code(), Some(0), "{encoding}: {}{}", ended.text(), ended.stderr);
    }
}

#[test]
fn a_script_whose_lines_end_with_cr_alone_is_mended_by_the_hint() {
    let site = CheckSite::new();
    let code = dedent(HELLO).replace('\n', "\r");
    let text = format!("#!{} --debug\r{code}", site.dir.wsgate().display());
    site.dir.executable("site/app.wsgi", text);
    let ended = site.check(&["app.wsgi"]);
    only_problem(&ended, "end with CR alone");
    mend(&ended);
    let ended = site.check(&["app.wsgi"]);
    assert_eq!(ended.code(), Some(0), "{}{}", ended.text(), ended.stderr);
}

#[test]
fn a_program_that_the_kernel_cannot_run_is_a_problem() {
    let site = CheckSite::new();
    let gateway = fs::read(site.dir.wsgate()).unwrap();
    let program = |name: &str, content: &[u8], mode: u32| {
        let path = site.dir.executable(&format!("programs/{name}"), content);
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    };
    let closed = program("wsgate-closed", &gateway, 0o644);
    let half = program("wsgate-half", &gateway[..10_000], 0o755);
    let empty = program("wsgate-empty", b"", 0o755);
    let mut foreign = gateway.clone();
    // The number of the machine in the header: s390, which runs no tests.
    foreign[18..20].copy_from_slice(&22_u16.to_le_bytes());
    let foreign = program("wsgate-foreign", &foreign, 0o755);
    let directory = site.dir.path("programs/wsgate.d");
    fs::create_dir(&directory).unwrap();
    for (path, said) in [
        (&closed, "is not executable"),
        (&half, "is damaged: it has "),
        (&empty, "is empty"),
        (&foreign, "is for s390"),
        (&directory, "is a directory"),
    ] {
        site.dir.script("site/app.wsgi", &format!("#!{}", path.display()), HELLO);
        let ended = site.check(&["app.wsgi"]);
        only_problem(&ended, &format!("names `{}`, which {said}", path.display()));
        mend(&ended);
        let ended = site.check(&["app.wsgi"]);
        assert_eq!(ended.code(), Some(0), "{}", ended.text());
    }
}

#[test]
fn a_program_with_a_path_that_the_kernel_does_not_read_is_a_problem() {
    let site = CheckSite::new();
    let directory = site.dir.path(&format!("{}/{}", "a".repeat(130), "b".repeat(130)));
    fs::create_dir_all(&directory).unwrap();
    let program = directory.join("wsgate");
    std::os::unix::fs::symlink(site.dir.wsgate(), &program).unwrap();
    site.dir.script("site/app.wsgi", &format!("#!{}", program.display()), HELLO);
    let ended = site.check(&["app.wsgi"]);
    only_problem(&ended, "and the kernel reads 256 bytes of the line");
    assert!(ended.text().contains("ln -sfn "), "{}", ended.text());
    let run = Command::new(site.dir.path("site/app.wsgi")).output();
    assert!(run.is_err(), "the kernel refuses the script: {run:?}");
}

#[test]
fn a_file_that_no_web_server_runs_may_have_another_first_line() {
    let site = CheckSite::new();
    site.dir.executable("site/run.py", format!("#!/usr/bin/python3\n{}", dedent(HELLO)));
    let ended = site.check(&["run.py"]);
    assert_eq!(ended.code(), Some(0), "{}", ended.text());
    assert!(ended.text().ends_with("no problem was found; 1 warning\n"), "{}", ended.text());
    site.dir.file("site/plain.wsgi", HELLO);
    let ended = site.check(&["plain.wsgi"]);
    assert_eq!(ended.code(), Some(0), "{}", ended.text());
    assert!(ended.text().contains("has no `#!` line"), "{}", ended.text());
    site.dir.file("site/module.py", HELLO);
    assert!(!site.check(&["module.py"]).text().contains("#!"));
}

#[test]
fn a_path_with_spaces_is_quoted_in_the_command() {
    let site = CheckSite::new();
    let script = site.dir.script("a site/it's app.wsgi", "#!WSGATE", HELLO);
    fs::set_permissions(&script, Permissions::from_mode(0o644)).unwrap();
    let script: &Path = &script;
    let ended = site.check(&[script.to_str().unwrap()]);
    only_problem(&ended, "is not executable");
    mend(&ended);
    assert_eq!(site.check(&[script.to_str().unwrap()]).code(), Some(0));
}

//! Old code is never run by a request that comes after the change.

use std::fs;

use crate::{
    interpreter::make_venv,
    support::{assertions::complete_response, web_servers::eventually},
    warm::{WarmSite, Who},
};

/// An application that gives the value of a module beside it, and one of its own.
fn versions(own: &str) -> String {
    format!(
        "
        import os
        import helper
        BORN = os.getpid()
        OWN = '{own}'
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain'), ('X-Version', OWN + ' ' + \
            helper.VALUE)])
            return [('%d %d' % (BORN, os.getpid())).encode()]
        "
    )
}

/// Asks until a warm process answers; every answer is of `version`.
#[track_caller]
fn await_version(site: &WarmSite, version: &str) {
    eventually(&format!("a warm process answers: {}", site.log()), || {
        let response = site.ask();
        assert_eq!(
            (complete_response(&response.raw).status, response.header("X-Version")),
            (200, Some(version)),
            "{}",
            response.log
        );
        Who::of(&response).is_warm()
    });
}

fn helper(site: &WarmSite, value: &str) {
    // A new file takes the name of the old one, as with many editors.
    let draft = site.dir.file("site/helper.draft", &format!("VALUE = {value:?}\n"));
    fs::rename(draft, site.dir.path("site/helper.py")).unwrap();
}

#[test]
fn a_changed_script_runs_in_its_new_version() {
    let site = WarmSite::new(&versions("one"));
    helper(&site, "x");
    await_version(&site, "one x");
    let mut supervisors = site.supervisors();
    for own in ["two", "three", "four"] {
        site.release(&versions(own));
        await_version(&site, &format!("{own} x"));
        eventually("the old pool has ended", || site.supervisors().len() == 1);
        assert_ne!(site.supervisors(), supervisors);
        supervisors = site.supervisors();
    }
}

#[test]
fn a_changed_module_runs_in_its_new_version() {
    let site = WarmSite::new(&versions("one"));
    helper(&site, "a");
    await_version(&site, "one a");
    for value in ["b1", "c12", "d123"] {
        helper(&site, value);
        await_version(&site, &format!("one {value}"));
    }
    // Some editors write in place.
    fs::write(site.dir.path("site/helper.py"), "VALUE = 'in place'\n").unwrap();
    await_version(&site, "one in place");
}

#[test]
fn a_broken_module_is_reported_until_it_is_repaired() {
    let site = WarmSite::new(&versions("one"));
    helper(&site, "a");
    await_version(&site, "one a");
    fs::write(site.dir.path("site/helper.py"), "VALUE = 'not closed\n").unwrap();
    assert_eq!(complete_response(&site.ask().raw).status, 500);
    eventually("the old pool has ended", || site.supervisors().is_empty());
    assert_eq!(complete_response(&site.ask().raw).status, 500);
    helper(&site, "mended");
    let response = site.ask();
    assert_eq!(response.header("X-Version"), Some("one mended"), "{}", response.log);
}

#[test]
fn a_restart_can_be_requested_by_a_file() {
    let site = WarmSite::new(&versions("one"));
    helper(&site, "a");
    await_version(&site, "one a");
    let before = Who::of(&site.ask());
    site.dir.file("site/tmp/restart.txt", "");
    let response = site.ask();
    assert!(Who::of(&response).born != before.born, "{response:?}");
    await_version(&site, "one a");
    eventually("the old pool has ended", || site.supervisors().len() == 1);
}

#[test]
fn changed_options_take_effect_at_once() {
    let site = WarmSite::new(&versions("one"));
    helper(&site, "a");
    await_version(&site, "one a");
    site.dir.script(
        "site/app.wsgi",
        "#!WSGATE --mode warm --env HELLO=1",
        &versions("one").replace("OWN = 'one'", "OWN = os.environ['HELLO']"),
    );
    await_version(&site, "1 a");
}

#[test]
fn a_changed_virtualenv_is_read_again() {
    let site = WarmSite::new(
        "
        import os, sys
        import installed
        BORN = os.getpid()
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain'), ('X-Version', sys.prefix + ' \
            ' + installed.VALUE)])
            return [('%d %d' % (BORN, os.getpid())).encode()]
        ",
    );
    let packages = |name: &str| {
        make_venv(&site.dir.path(name));
        let library =
            fs::read_dir(site.dir.path(name).join("lib")).unwrap().next().unwrap().unwrap();
        library.path().join("site-packages/installed.py")
    };
    let installed = packages("site/.venv");
    let prefix = site.dir.path("site/.venv");
    fs::write(&installed, "VALUE = 'one'\n").unwrap();
    await_version(&site, &format!("{} one", prefix.display()));

    // A package is upgraded.
    fs::write(&installed, "VALUE = 'second'\n").unwrap();
    await_version(&site, &format!("{} second", prefix.display()));

    // Another virtualenv replaces the first one, as after an upgrade of Python.
    fs::rename(&prefix, site.dir.path("site/old")).unwrap();
    fs::write(packages("site/new"), "VALUE = 'three'\n").unwrap();
    fs::rename(site.dir.path("site/new"), &prefix).unwrap();
    await_version(&site, &format!("{} three", prefix.display()));

    // A changed setting of the virtualenv makes other processes serve.
    let before = site.supervisors();
    let settings = prefix.join("pyvenv.cfg");
    let text = fs::read_to_string(&settings).unwrap();
    fs::write(
        &settings,
        text.replace("include-system-site-packages = false", "include-system-site-packages = true"),
    )
    .unwrap();
    await_version(&site, &format!("{} three", prefix.display()));
    assert!(
        site.supervisors().iter().any(|supervisor| !before.contains(supervisor)),
        "{}",
        site.log()
    );
}

/// Applications that take their version from somewhere beside them, and how another version gets
/// there.
const WAYS: [(&str, &str, &str); 10] = [
    (
        "an archive",
        "import sys; sys.path.insert(0, HERE + '/lib.zip'); from helper import VALUE",
        "python3 -c \"import zipfile; zipfile.ZipFile('new.zip', 'w').write('helper.py')\"; mv \
         new.zip lib.zip",
    ),
    (
        "a package of which links lead to a release",
        "import sys; sys.path.insert(0, HERE + '/current'); from helper import VALUE",
        "mkdir -p $V; cp helper.py $V; ln -s $V new; mv -T new current",
    ),
    (
        "a directory that another takes the place of",
        "import sys; sys.path.insert(0, HERE + '/lib'); from helper import VALUE",
        "mkdir $V; cp helper.py $V; mv lib old-$V; mv $V lib",
    ),
    (
        "a part of a namespace package",
        "import sys; sys.path.insert(0, HERE + '/top'); from space.helper import VALUE",
        "mkdir -p top $V; cp helper.py $V; mv top/space old-$V; mv $V top/space",
    ),
    (
        "code that no module holds",
        "exec(compile(open(HERE + '/code.txt').read() + '\\ndef f(): pass', HERE + '/code.txt', \
            'exec'))",
        "cp helper.py draft; mv draft code.txt",
    ),
    (
        "settings that leave no function",
        "exec(compile(open(HERE + '/settings.cfg').read(), HERE + '/settings.cfg', 'exec'))",
        "cp helper.py draft; mv draft settings.cfg",
    ),
    (
        "settings by a relative path",
        "os.chdir(HERE); exec(open('settings.py').read()); os.chdir('/')",
        "cp helper.py draft; mv draft settings.py",
    ),
    (
        "settings that are run as a program",
        "import runpy; VALUE = runpy.run_path(HERE + '/settings.txt')['VALUE']",
        "cp helper.py draft; mv draft settings.txt",
    ),
    (
        "a module that is not kept",
        "import sys, helper; VALUE = helper.VALUE; del sys.modules['helper'], helper",
        "touch helper.py",
    ),
    (
        "a file that leads to a directory",
        "import site; site.addsitedir(HERE + '/sites'); from version import VALUE",
        "mkdir -p sites $V; cp helper.py $V/version.py; echo ../$V > sites/lib.pth",
    ),
];

#[test]
fn code_that_is_loaded_in_any_way_runs_in_its_new_version() {
    for mode in ["warm", "resident"] {
        for (name, load, put) in WAYS {
            let write = |site: &WarmSite, value: &str| {
                site.dir.file("site/helper.py", &format!("VALUE = {value:?}\n"));
                let mut command = std::process::Command::new("/bin/sh");
                command.args(["-c", put]).env("V", value).current_dir(site.dir.path("site"));
                assert!(
                    crate::support::child_process::run(&mut command, "").status.code().is_some()
                );
            };
            let code = format!(
                "
                import os, sys
                sys.dont_write_bytecode = True
                BORN = os.getpid()
                HERE = os.path.dirname(os.path.abspath(__file__))
                {load}
                def application(environ, start_response):
                    start_response('200 OK', [('Content-Type', 'text/plain'), ('X-Version', VALUE)])
                    return [('%d %d' % (BORN, os.getpid())).encode()]
                "
            );
            let site = WarmSite::of(mode, "", &code);
            for value in ["one", "three", "seven"] {
                write(&site, value);
                eventually(&format!("a warm process has loaded {name}: {}", site.log()), || {
                    let response = site.ask();
                    assert_eq!(
                        complete_response(&response.raw).status,
                        200,
                        "{name}: {}",
                        site.log()
                    );
                    assert_eq!(
                        response.header("X-Version"),
                        Some(value),
                        "{mode}, {name}: {}",
                        site.log()
                    );
                    Who::of(&response).is_warm()
                });
            }
        }
    }
}

#[test]
fn a_path_that_the_script_line_names_is_watched() {
    for mode in ["warm", "resident"] {
        let site = WarmSite::of(mode, "--reload-on settings.ini", &versions("one"));
        helper(&site, "a");
        await_version(&site, "one a");
        let before = Who::of(&site.ask());
        site.dir.file("site/settings.ini", "");
        assert_ne!(Who::of(&site.ask()).born, before.born, "{mode}");
        await_version(&site, "one a");
    }
}

#[test]
fn a_changed_file_of_variables_is_read_again() {
    let code = versions("one").replace("OWN + ' '", "os.environ['SHOWN'] + ' '");
    let site = WarmSite::with("--env-file site.env", &code);
    helper(&site, "x");
    for value in ["first", "second"] {
        let draft = site.dir.file("site/site.draft", &format!("SHOWN={value}\n"));
        fs::rename(draft, site.dir.path("site/site.env")).unwrap();
        await_version(&site, &format!("{value} x"));
    }
}

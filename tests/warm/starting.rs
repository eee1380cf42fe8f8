//! A pool starts itself, once, and ends itself.

use std::{fs, os::unix::fs::PermissionsExt as _, thread};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    support::{assertions::complete_response, web_servers::eventually},
    warm::{TELLS_ITSELF, WarmSite, Who},
};

#[test]
fn a_hundred_first_requests_start_one_pool() {
    let site = WarmSite::new(TELLS_ITSELF);
    thread::scope(|scope| {
        let askers: Vec<_> = (0..100).map(|_| scope.spawn(|| site.ask())).collect();
        for asker in askers {
            assert_eq!(complete_response(&asker.join().unwrap().raw).status, 200);
        }
    });
    site.await_pools(1);
    assert_eq!(site.log().matches("W0710").count(), 1, "{}", site.log());
    assert_eq!(site.supervisors().len(), 1);
}

#[test]
fn an_idle_pool_stops_and_leaves_nothing() {
    let site = WarmSite::with("--warm-idle 1", TELLS_ITSELF);
    site.ask();
    eventually("the pool has served", || site.log().contains("W0710"));
    site.await_no_process();
    for suffix in [".sock", ".pool", ".lock", ".new", ".draft"] {
        assert!(site.files(suffix).is_empty(), "{suffix}: {:?}", site.files(suffix));
    }
    assert_eq!(complete_response(&site.ask().raw).status, 200);
}

#[test]
fn a_pool_that_is_killed_is_replaced_and_no_request_fails() {
    let site = WarmSite::new(TELLS_ITSELF);
    site.warm_up();
    for _ in 0..3 {
        let supervisors = site.supervisors();
        assert_eq!(supervisors.len(), 1, "{supervisors:?}");
        kill_process(Pid::from_raw(supervisors[0]).unwrap(), Signal::KILL).unwrap();
        assert_eq!(complete_response(&site.ask().raw).status, 200);
        eventually("another pool serves", || {
            let response = site.ask();
            assert_eq!(complete_response(&response.raw).status, 200, "{response:?}");
            // A process of the old one may have taken the request just before it was killed, too.
            let now = site.supervisors();
            Who::of(&response).is_warm() && now.len() == 1 && now != supervisors
        });
    }
}

#[test]
fn pools_are_shown_by_status_and_obey_commands() {
    let site = WarmSite::new(TELLS_ITSELF);
    site.warm_up();
    let status = site.wsgate(&["status"]);
    let name = status.split_whitespace().next().unwrap().to_owned();
    assert!(name.starts_with("warm-app-") && status.contains("app.wsgi"), "{status}");
    let before = Who::of(&site.ask());
    site.wsgate(&["reload", &name]);
    eventually("other processes serve", || {
        let who = Who::of(&site.ask());
        who.is_warm() && who.born != before.born
    });
    site.wsgate(&["stop", &name]);
    site.await_no_process();
    assert!(site.files(".sock").is_empty());
}

#[test]
fn without_a_runtime_directory_requests_fall_back_to_cold_cgi_with_a_log_message() {
    let site = WarmSite::new(TELLS_ITSELF);
    let open = site.dir.path("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
    let file = site.dir.file("file", "x");
    for directory in [open, file, "/proc/nowhere".into()] {
        let mut command = site.request();
        command.env("WSGATE_RUNTIME_DIR", &directory);
        let before = site.log().matches("W0801").count();
        let response = site.response(&mut command, "");
        assert!(!Who::of(&response).is_warm());
        assert_eq!(
            site.log().matches("W0801").count(),
            before + 1,
            "{}: {}",
            directory.display(),
            site.log()
        );
    }
}

#[test]
fn other_files_at_the_path_of_the_socket_do_no_harm() {
    let site = WarmSite::new(TELLS_ITSELF);
    site.warm_up();
    let socket = site.files(".sock").remove(0);
    let name = socket.file_stem().unwrap().to_str().unwrap().to_owned();
    site.wsgate(&["stop", &name]);
    site.await_no_process();
    // A file is taken for what a pool has left behind.
    fs::write(&socket, "x").unwrap();
    assert_eq!(complete_response(&site.ask().raw).status, 200);
    eventually("a pool serves", || Who::of(&site.ask()).is_warm());
    site.wsgate(&["stop", &name]);
    site.await_no_process();
    // A directory is not taken away; the log says what stands there.
    fs::create_dir(&socket).unwrap();
    assert!(!Who::of(&site.ask()).is_warm());
    eventually("the log tells", || site.log().contains("W0806"));
    site.await_no_process();
    assert!(!Who::of(&site.ask()).is_warm());
    assert!(socket.is_dir());
}

#[test]
fn an_application_that_cannot_be_loaded_falls_back_to_cold_cgi_and_is_not_tried_each_time() {
    let site = WarmSite::new("raise RuntimeError('broken')");
    for _ in 0..3 {
        let response = site.ask();
        assert_eq!(complete_response(&response.raw).status, 500);
    }
    site.await_no_process();
    let before = site.log().matches("broken").count();
    let response = site.ask();
    assert_eq!(complete_response(&response.raw).status, 500);
    site.await_no_process();
    // Each log message names the module twice: in its sentence and in its traceback.
    let after = site.log().matches("broken").count();
    assert!(after > before && site.log().matches("W0802").count() == 1, "{}", site.log());
    site.release(TELLS_ITSELF);
    site.ask();
    site.await_pools(1);
    assert!(Who::of(&site.ask()).is_warm());
}

#[test]
fn different_settings_of_the_web_server_are_different_pools_and_not_too_many() {
    let site = WarmSite::new(
        "
        import os
        SETTING = os.environ.get('SETTING')
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [('%s %s' % (SETTING, environ.get('SETTING'))).encode()]
        ",
    );
    for number in 0..12 {
        let mut command = site.request();
        let setting = format!("{number}");
        command.env("SETTING", &setting);
        for _ in 0..2 {
            assert_eq!(site.response(&mut command, "").text(), format!("{setting} {setting}"));
        }
        if number < 8 {
            site.await_pools(number + 1);
            assert_eq!(site.response(&mut command, "").text(), format!("{setting} {setting}"));
        }
    }
    assert_eq!(site.supervisors().len(), 8);
    assert_eq!(site.log().matches("W0802").count(), 1, "{}", site.log());
}

#[test]
fn requests_that_differ_in_request_variables_share_one_pool() {
    let site = WarmSite::new(TELLS_ITSELF);
    site.warm_up();
    let directory = site.dir.path("site");
    let shown = directory.display();
    let spelt = [
        format!("{shown}/app.wsgi"),
        format!("{shown}/./app.wsgi"),
        format!("{shown}//app.wsgi"),
        "./app.wsgi".into(),
    ];
    let names = [
        "HTTP_X_ONE",
        "REMOTE_PORT",
        "UNIQUE_ID",
        "PWD",
        "nokeepalive",
        "AUTHENTICATE_CN",
        "OIDC_CLAIM_sub",
        "SYSTEMD_EXEC_PID",
    ];
    let mut born = std::collections::HashSet::new();
    for (number, name) in names.iter().enumerate() {
        for script in &spelt {
            let mut command = std::process::Command::new(script);
            site.dir.describe(&mut command, &directory.join("app.wsgi"));
            command.env(name, number.to_string());
            command
                .stdin(std::process::Stdio::piped())
                .stdout(std::process::Stdio::piped())
                .stderr(site.log_file());
            let mut who = None;
            eventually("a warm process answers", || {
                who = Some(Who::of(&site.response(&mut command, ""))).filter(|who| who.is_warm());
                who.is_some()
            });
            born.extend(who.map(|who| who.born));
        }
    }
    assert_eq!((born.len(), site.supervisors().len()), (1, 1), "{}", site.log());
}

#[test]
fn a_program_of_the_deployer_can_start_a_pool() {
    let site = WarmSite::new(TELLS_ITSELF);
    let program = site.dir.script(
        "site/program",
        "#!/bin/sh",
        &format!("exec {} cgi --mode warm app.wsgi:application", site.dir.wsgate().display()),
    );
    let request = || {
        let mut command = site.request();
        command.env("SCRIPT_FILENAME", &program);
        let mut by_program = std::process::Command::new(&program);
        by_program
            .env_clear()
            .envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        by_program.current_dir(program.parent().unwrap());
        by_program
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(site.log_file());
        Who::of(&site.response(&mut by_program, ""))
    };
    assert!(!request().is_warm());
    eventually("a warm process answers", || request().is_warm());
}

//! Many requests through a real web server, while the script changes all the time and its pools are
//! killed.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    process::Command,
    sync::{
        atomic::{AtomicU64, Ordering},
        mpsc::{RecvTimeoutError, channel},
    },
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    pool::load::turn,
    support::web_servers::{Apache, ApacheSetup, CgiModule, WebServer as _, WebSite, eventually},
};

const REQUESTS: u64 = 5000;
const CLIENTS: usize = 8;

/// Between two releases.
const PACE: Duration = Duration::from_secs(1);

/// After so many releases the pools are killed.
const KILL_AFTER: u64 = 3;

/// Puts a release in place of the one before, as a whole.
fn release(site: &WebSite, number: u64) {
    let first_line = format!("#!{} --mode warm --warm-idle 2", site.path("bin/wsgate").display());
    let code = format!(
        "{first_line}
import os
BORN = os.getpid()
def application(environ, start_response):
    start_response('200 OK', [('Content-Type', 'text/plain')])
    return ['release {number} {{}}.'.format('cold' if BORN == os.getpid() else 'warm').encode()]
"
    );
    let (text, draft) = (site.path("run/release"), site.path("cgi-bin/release.draft"));
    fs::write(&text, code).unwrap();
    // Another process writes the file. A child of this process would inherit the open file, and a
    // file that is open for writing cannot be executed.
    let status =
        Command::new("install").args(["-m", "755"]).args([&text, &draft]).status().unwrap();
    assert!(status.success(), "install {}", draft.display());
    fs::rename(draft, site.path("cgi-bin/release.wsgi")).unwrap();
}

/// The release that answers, and whether a warm process does.
fn ask(address: &str) -> Result<(u64, bool), String> {
    let mut response = String::new();
    let mut exchange = || {
        let mut connection = TcpStream::connect(address)?;
        connection.set_read_timeout(Some(Duration::from_secs(60)))?;
        connection.write_all(b"GET /cgi-bin/release.wsgi HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        connection.read_to_string(&mut response)
    };
    exchange().map_err(|error: std::io::Error| error.to_string())?;
    let parse = || {
        let (head, body) = response.split_once("\r\n\r\n")?;
        let (number, how) = body.strip_prefix("release ")?.strip_suffix('.')?.split_once(' ')?;
        head.starts_with("HTTP/1.1 200 ").then_some((number.parse().ok()?, how == "warm"))
    };
    parse().ok_or_else(|| format!("no whole response: {response}"))
}

/// Supervisors of pools, of which others are descended.
fn supervisors(site: &WebSite) -> Vec<i32> {
    let args = |pid: &i32| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let is_supervisor = |pid: &i32| args(pid).windows(12).any(|part| part == b", supervisor");
    site.pool_processes().into_iter().filter(is_supervisor).collect()
}

#[test]
fn releases_and_kills_fail_no_request_and_no_response_is_of_an_old_release() {
    let _turn = turn();
    let site = WebSite::of_mode("warm");
    release(&site, 0);
    let mut apache = Apache::start(CgiModule::Cgid, ApacheSetup::ScriptAlias, site);
    let address = apache.url("").trim_start_matches("http://").to_owned();
    // Releases that are in place, and those that may be by now.
    let (oldest, newest) = (AtomicU64::new(0), AtomicU64::new(0));
    let (asked, warm) = (AtomicU64::new(0), AtomicU64::new(0));
    let mut kills = 0;
    let client = || {
        while asked.fetch_add(1, Ordering::SeqCst) < REQUESTS {
            let began = oldest.load(Ordering::SeqCst);
            let (number, is_warm) = ask(&address).unwrap_or_else(|wrong| panic!("{wrong}"));
            let current = began..=newest.load(Ordering::SeqCst);
            assert!(current.contains(&number), "release {number}, when {current:?} was current");
            warm.fetch_add(u64::from(is_warm), Ordering::SeqCst);
        }
    };
    thread::scope(|scope| {
        let (alive, all_ended) = channel::<()>();
        for _ in 0..CLIENTS {
            let (alive, client) = (alive.clone(), &client);
            scope.spawn(move || {
                let _alive = alive;
                client();
            });
        }
        drop(alive);
        let mut number = 0;
        while all_ended.recv_timeout(PACE) == Err(RecvTimeoutError::Timeout) {
            number += 1;
            newest.store(number, Ordering::SeqCst);
            release(apache.site(), number);
            oldest.store(number, Ordering::SeqCst);
            if number % KILL_AFTER == 0 {
                for pid in supervisors(apache.site()) {
                    // The process may have exited meanwhile, when its release was replaced.
                    kills +=
                        u64::from(kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).is_ok());
                }
            }
        }
    });
    let (warm, releases) = (warm.into_inner(), newest.into_inner());
    assert!(
        warm > 0 && releases > 0 && kills > 0,
        "{warm} served warm, {releases} releases, {kills} kills"
    );
    eventually("no process is left", || apache.site().all_processes().is_empty());
    let log = apache.stop();
    assert!(!log.contains("wsgate: error["), "{log}");
}

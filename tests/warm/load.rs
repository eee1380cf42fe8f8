//! Many requests at once, while the code changes and the pool is killed.

use std::{
    sync::{
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{RecvTimeoutError, channel},
    },
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    support::{
        assertions::complete_response, child_process::RunningProcess, web_servers::eventually,
    },
    warm::{WarmSite, Who},
};

const CLIENTS: usize = 8;

/// Requests that each of them makes.
const VISITS: usize = 100;

/// Between two changes; every third is a kill, too.
const PACE: Duration = Duration::from_millis(300);

fn release(number: usize) -> String {
    format!(
        "
        import os
        BORN = os.getpid()
        SEEN = []
        def application(environ, start_response):
            SEEN.append(environ['QUERY_STRING'])
            body = environ['wsgi.input'].read().decode()
            start_response('200 OK', [('Content-Type', 'text/plain'), ('X-Release', '{number}'),
                ('X-Seen', ' '.join(SEEN)), ('X-Body', body), ('X-Query', \
                os.environ['QUERY_STRING'])])
            return [('%d %d' % (BORN, os.getpid())).encode()]
        "
    )
}

#[test]
fn no_request_fails_or_meets_old_code_while_code_changes_and_pools_are_killed() {
    let site = WarmSite::with("--warm-idle 2", &release(0));
    site.warm_up();
    let (visible, warm, over) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
    let visit = &|client: usize| {
        for number in 0..VISITS {
            let (least, name) = (visible.load(Ordering::SeqCst), format!("{client}-{number}"));
            let mut command = site.request();
            command
                .env("QUERY_STRING", &name)
                .env("REQUEST_METHOD", "POST")
                .env("CONTENT_LENGTH", name.len().to_string());
            let mut running = RunningProcess::start(&mut command);
            running.give(name.clone());
            let ended = running.end();
            let response = crate::support::probe::CgiResponse::parse(
                ended.stdout,
                String::new(),
                ended.status,
            );
            assert_eq!(complete_response(&response.raw).status, 200, "{response:?} {}", site.log());
            assert!(
                response.header("X-Release").unwrap().parse::<usize>().unwrap() >= least,
                "{least}: {response:?}"
            );
            for header in ["X-Seen", "X-Body", "X-Query"] {
                assert_eq!(response.header(header), Some(name.as_str()), "{response:?}");
            }
            warm.fetch_add(usize::from(Who::of(&response).is_warm()), Ordering::SeqCst);
        }
    };
    let (stop, stopped) = channel::<()>();
    thread::scope(|scope| {
        let (site, visible, over) = (&site, &visible, &over);
        let disturber = scope.spawn(move || {
            for number in 1.. {
                match stopped.recv_timeout(PACE) {
                    Err(RecvTimeoutError::Timeout) if !over.load(Ordering::SeqCst) => {}
                    _ => break,
                }
                site.dir.script(
                    "site/app.next",
                    "#!WSGATE --mode warm --warm-idle 2",
                    &release(number),
                );
                std::fs::rename(site.dir.path("site/app.next"), site.dir.path("site/app.wsgi"))
                    .unwrap();
                visible.store(number, Ordering::SeqCst);
                if number % 3 == 0 {
                    for pid in site.supervisors() {
                        // The process may have just exited by itself.
                        let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
                    }
                }
            }
        });
        let clients: Vec<_> =
            (0..CLIENTS).map(|client| scope.spawn(move || visit(client))).collect();
        let ends: Vec<_> = clients.into_iter().map(thread::ScopedJoinHandle::join).collect();
        over.store(true, Ordering::SeqCst);
        drop(stop);
        disturber.join().unwrap();
        assert!(ends.iter().all(Result::is_ok), "{}", site.log());
    });
    assert!(warm.load(Ordering::SeqCst) > 0, "{}", site.log());
    eventually("no process is left", || site.processes().is_empty());
}

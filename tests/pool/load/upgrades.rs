//! wsgate is upgraded to another build again and again, and no request fails.

use std::{
    fs::{
        Permissions, {self},
    },
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    os::unix::fs::PermissionsExt as _,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use crate::{
    pool::{
        load::{Attempt, Clients, compare, turn},
        upgrading::{await_upgraded, two_builds},
    },
    support::{
        assertions::codes,
        pool::{PoolSetup, children},
        web_servers::{Nginx, WebServer as _, eventually},
    },
};

/// How often the pool is upgraded.
const UPGRADES: usize = 20;

const APP: &str = "
    import os
    def application(environ, start_response):
        body = environ['wsgi.input'].read()
        start_response('200 OK', [('Content-Type', 'text/plain'), ('X-Pid', str(os.getpid()))])
        return [b'echo ', body]
";

fn is_echo(asked: &Attempt) -> Result<(), String> {
    match &asked.outcome {
        Ok(response) => compare(response, &format!("echo {}", asked.body)),
        Err(lost) => Err(format!("{lost:?}, answered before by {:?}", asked.worker)),
    }
}

#[test]
fn twenty_upgrades_under_load_fail_no_request_and_close_no_connection() {
    let _turn = turn();
    let (dir, builds) = two_builds();
    let setup = PoolSetup::new(APP).args(&["--workers", "2", "--threads", "2"]);
    let mut pool = setup.program(dir.wsgate()).start();
    let (pid, before) = (pool.pid(), pool.workers(2));
    let clients = Clients::start(&pool, 8, || 0, is_echo);
    for round in 0..UPGRADES {
        builds[(round + 1) % 2].install(&dir);
        let reported = pool.run_wsgate(&["reload", "--binary", "app"]);
        assert_eq!(reported.code(), Some(0), "upgrade {round}: {}", reported.stderr);
        await_upgraded(&mut pool, &builds[(round + 1) % 2], round / 2 + 1);
        clients.each_answered(5);
    }
    clients.end();
    eventually("one template is left", || children(pid).len() == 1);
    assert!(pool.workers(2).iter().all(|worker| !before.contains(worker)));
    let log = pool.stop();
    assert_eq!(codes(&log), [""; 0], "{log}");
    assert_eq!(log.matches("W0727").count(), UPGRADES, "{log}");
}

/// Requests over a keep-alive connection of HTTP, until `over`. Returns their number.
fn ask_on(url: &str, over: &AtomicBool, answered: &AtomicU64) -> Result<(), String> {
    let address = url.trim_start_matches("http://").trim_end_matches('/');
    let mut connection = BufReader::new(TcpStream::connect(address).unwrap());
    while !over.load(Ordering::Relaxed) {
        let body = format!("request {}", answered.load(Ordering::Relaxed));
        let request =
            format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        connection.get_mut().write_all(request.as_bytes()).map_err(|error| error.to_string())?;
        let mut status = String::new();
        connection.read_line(&mut status).map_err(|error| error.to_string())?;
        let (mut line, mut length) = (String::new(), None);
        while line != "\r\n" {
            line.clear();
            if connection.read_line(&mut line).map_err(|error| error.to_string())? == 0 {
                return Err(format!("the connection ended after `{status}`"));
            }
            let value = line.to_ascii_lowercase();
            length =
                length.or(value.strip_prefix("content-length:").map(str::trim).map(str::to_owned));
        }
        let length = length.and_then(|it| it.parse().ok()).ok_or_else(|| status.clone())?;
        let mut response = vec![0; length];
        connection.read_exact(&mut response).map_err(|error| error.to_string())?;
        if !status.starts_with("HTTP/1.1 200") || response != format!("echo {body}").as_bytes() {
            return Err(format!("{status}{}", String::from_utf8_lossy(&response)));
        }
        answered.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

#[test]
fn behind_nginx_with_keep_alive_connections_upgrades_fail_no_request() {
    let _turn = turn();
    let (dir, builds) = two_builds();
    // The length is what tells the client where the response ends.
    let app = APP.replace("('X-Pid'", "('Content-Length', str(len(body) + 5)), ('X-Pid'");
    let setup = PoolSetup::new(&app).args(&["--workers", "2", "--socket-mode", "0666"]);
    fs::set_permissions(setup.path(""), Permissions::from_mode(0o755)).unwrap();
    let pool = setup.program(dir.wsgate()).start();
    let mut nginx = Nginx::before(&pool.socket());
    let (over, url) = (Arc::new(AtomicBool::new(false)), nginx.url("/"));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (over, url, answered) = (over.clone(), url.clone(), Arc::new(AtomicU64::new(0)));
            let counted = answered.clone();
            (answered, thread::spawn(move || ask_on(&url, &over, &counted)))
        })
        .collect();
    let more = || {
        let counts = |(answered, _): &(Arc<AtomicU64>, _)| answered.load(Ordering::Relaxed) + 20;
        let wanted: Vec<u64> = clients.iter().map(counts).collect();
        eventually("more requests are answered", || {
            clients.iter().zip(&wanted).all(|((answered, client), wanted)| {
                client.is_finished() || answered.load(Ordering::Relaxed) >= *wanted
            })
        });
    };
    more();
    for round in 0..UPGRADES {
        builds[(round + 1) % 2].install(&dir);
        let reported = pool.run_wsgate(&["reload", "--binary", "app"]);
        assert_eq!(reported.code(), Some(0), "upgrade {round}: {}", reported.stderr);
        more();
    }
    over.store(true, Ordering::Relaxed);
    for (_, client) in clients {
        client.join().unwrap().unwrap();
    }
    // nginx names each connection that was reset, and each that ended too early.
    assert_eq!(nginx.stop(), "");
    let log = pool.stop();
    assert_eq!(codes(&log), [""; 0], "{log}");
}

//! The titles of processes, which ps(1) shows in place of their command lines.

use std::{fs, process::Command};

use serde_json::Value;

use crate::{
    pool::{Pool, PoolSetup},
    support::{child_process::run, fastcgi_client::FastcgiRequest, web_servers::eventually},
};

/// Responds with what Python and the kernel say of this process, and waits at the gate if asked to.
pub(crate) const TELLS: &str = "
    import json, os, subprocess, sys
    def file(name):
        with open('/proc/self/' + name, 'rb') as opened:
            return opened.read().decode('latin-1')
    def application(environ, start_response):
        child = 'import json, os, sys; print(json.dumps([dict(os.environ), sys.argv]))'
        printed = subprocess.check_output([sys.executable, '-c', child, 'argument'])
        facts = {
            'title': file('cmdline'),
            'argv': sys.argv,
            'orig_argv': getattr(sys, 'orig_argv', []),
            'os.environ': dict(os.environ),
            'environ': dict(pair.split('=', 1) for pair in file('environ').split('\\0')[:-1]),
            'child': json.loads(printed),
        }
        start_response('200 OK', [('Content-Type', 'application/json')])
        return [json.dumps(facts).encode()]
    ";

/// The title of a process: the kernel shows one text, which ends with NUL.
pub(crate) fn title(pid: i32) -> String {
    let shown = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(shown.strip_suffix(b"\0").unwrap_or(&shown)).into_owned()
}

fn worker(pool: &Pool) -> i32 {
    pool.loaded_workers(1)[0]
}

/// Asserts that neither Python, nor the environment, nor a child process was harmed.
#[track_caller]
pub(crate) fn assert_unharmed(facts: &Value, variable: (&str, &str)) {
    let (name, value) = variable;
    assert_eq!(facts["os.environ"][name], value, "{facts}");
    assert_eq!(facts["environ"][name], value, "{facts}");
    let [environ, argv] = [&facts["child"][0], &facts["child"][1]];
    assert_eq!((&environ[name], &argv[1]), (&value.into(), &"argument".into()), "{facts}");
    let argument = |list: &str| facts[list][0].as_str().map(str::to_owned);
    assert!(!argument("argv").unwrap().contains("wsgate: "), "{facts}");
    if let Some(program) = argument("orig_argv") {
        assert!(program.contains("python"), "{facts}");
    }
}

#[test]
fn each_process_of_a_pool_has_a_title_that_names_pool_role_and_request() {
    for preload in ["yes", "no"] {
        let pool = PoolSetup::new(TELLS).args(&["--preload", preload]).start();
        let worker = worker(&pool);
        assert_eq!(title(pool.pid()), "wsgate: pool app, supervisor");
        assert_eq!(title(pool.template()), "wsgate: pool app, template");
        eventually("the worker is idle", || title(worker) == "wsgate: pool app, worker 1 (idle)");
        let facts = pool.ask(&FastcgiRequest::get("/a/path?secret=1")).text();
        let facts: Value = serde_json::from_str(&facts).unwrap();
        assert_eq!(facts["title"], "wsgate: pool app, worker 1 (GET /a/path)\0");
        assert_unharmed(
            &facts,
            ("MARK", pool.setup().path("").to_str().unwrap().trim_end_matches('/')),
        );
        eventually("the worker is idle", || title(worker) == "wsgate: pool app, worker 1 (idle)");
        let shown = run(Command::new("ps").args(["-o", "args=", "-p", &worker.to_string()]), "");
        assert_eq!(shown.text().trim(), "wsgate: pool app, worker 1 (idle)");
        pool.stop();
    }
}

#[test]
fn a_title_shows_no_byte_that_a_terminal_would_obey_and_is_cut() {
    let pool = PoolSetup::new(TELLS).args(&["--threads", "2"]).start();
    let request = FastcgiRequest::get("/").without("REQUEST_URI");
    for (target, shown) in [
        ("/\x1b[2J\r\n\u{202e}?x=1".to_owned(), "/?[2J?????".to_owned()),
        (format!("/{}", "x".repeat(5000)), "/xxxxxxxxxxxxxxxxxxxxxxxx".to_owned()),
    ] {
        let facts = pool.ask(&request.clone().param("REQUEST_URI", &target)).text();
        let facts: Value = serde_json::from_str(&facts).unwrap();
        let title = facts["title"].as_str().unwrap();
        assert!(
            title.starts_with(&format!("wsgate: pool app, worker 1 (GET {shown}")),
            "{title:?}"
        );
        assert!(title.len() <= 129 && title.bytes().all(|byte| byte == 0 || byte >= b' '));
    }
    pool.stop();
}

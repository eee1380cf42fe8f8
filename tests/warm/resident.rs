//! `--mode resident`: processes that stay, and still leave nothing of one request to the next but
//! what the application keeps.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    support::{
        assertions::complete_response, child_process::RunningProcess, probe::CgiResponse,
        web_servers::eventually,
    },
    warm::{WarmSite, Who},
};

const COUNTS: &str = "
    import os, sys, signal
    BORN = os.getpid()
    COUNT = [0]
    def application(environ, start_response):
        COUNT[0] += 1
        query = environ['QUERY_STRING']
        sys.stdout.write('no line end of %s' % query)
        if query.startswith('import'):
            import lazy
            query = lazy.VALUE
        if query == 'die' and BORN != os.getpid():
            os.kill(os.getpid(), signal.SIGKILL)
        if query == 'wait':
            print('serving as %d.' % os.getpid())
            signal.pause()
        names = sorted(name for name in os.environ if name.startswith('HTTP_X_'))
        start_response('200 OK', [('Content-Type', 'text/plain'), ('X-Count', str(COUNT[0])), \
        ('X-Query', query),
            ('X-Names', ' '.join(names)), ('X-Body', environ['wsgi.input'].read().decode())])
        return [('%d %d' % (BORN, os.getpid())).encode()]
    ";

fn resident(options: &str) -> WarmSite {
    let site = WarmSite::new(COUNTS);
    site.dir.script("site/app.wsgi", &format!("#!WSGATE --mode resident {options}"), COUNTS);
    site
}

/// The response to a request that a process of the pool has served.
#[track_caller]
fn by_resident(site: &WarmSite, query: &str, variable: &str) -> CgiResponse {
    let mut found = None;
    eventually(&format!("a process of the pool answers: {}", site.log()), || {
        let mut command = site.request();
        command.env("QUERY_STRING", query).env(variable, "1");
        command.env("REQUEST_METHOD", "POST").env("CONTENT_LENGTH", "4");
        let response = site.response(&mut command, "body");
        assert_eq!(complete_response(&response.raw).status, 200, "{response:?}");
        found = Some(response).filter(|response| Who::of(response).is_warm());
        found.is_some()
    });
    found.unwrap()
}

#[test]
fn processes_stay_and_each_request_has_its_own_environment() {
    let site = resident("");
    let mut most = 0;
    for number in 0..30 {
        let (query, variable) = (format!("q{number}"), format!("HTTP_X_{number}"));
        let response = by_resident(&site, &query, &variable);
        assert_eq!(
            (response.header("X-Query"), response.header("X-Names")),
            (Some(query.as_str()), Some(variable.as_str()))
        );
        assert_eq!(response.header("X-Body"), Some("body"));
        eventually("what it printed is in the log", || {
            site.log().contains(&format!("no line end of {query}"))
        });
        most = most.max(response.header("X-Count").unwrap().parse::<u32>().unwrap());
    }
    // Two processes, and now and then one that was added.
    assert!(most >= 4, "{most}");
}

#[test]
fn a_process_that_crashes_is_answered_with_an_error_page_and_replaced() {
    let site = resident("");
    by_resident(&site, "x", "HTTP_X_A");
    for _ in 0..3 {
        let mut command = site.request();
        let response = site.response(command.env("QUERY_STRING", "die"), "");
        assert!([200, 502].contains(&complete_response(&response.raw).status), "{response:?}");
        by_resident(&site, "x", "HTTP_X_A");
    }
    assert!(site.log().contains("W0601"), "{}", site.log());
}

#[test]
fn modules_that_are_imported_late_are_watched_too() {
    let site = resident("");
    // Of different lengths: Python itself takes files of one size and second for the same.
    for value in ["one", "four", "seven"] {
        let draft =
            site.dir.file("site/lazy.draft", &format!("VALUE = {:?}\n", format!("{value}{value}")));
        fs::rename(draft, site.dir.path("site/lazy.py")).unwrap();
        for _ in 0..6 {
            let response = by_resident(&site, "import", "HTTP_X_A");
            assert_eq!(
                response.header("X-Query"),
                Some(format!("{value}{value}").as_str()),
                "{}",
                response.log
            );
        }
    }
}

#[test]
fn a_web_server_that_ends_its_request_ends_the_process() {
    for signal in [Signal::TERM, Signal::KILL] {
        let site = resident("");
        let pid = Who::of(&by_resident(&site, "x", "HTTP_X_A")).pid;
        assert!(pid > 0);
        let mut command = site.request();
        let mut running = RunningProcess::start(command.env("QUERY_STRING", "wait"));
        running.stdin = None;
        let mut serving = None;
        eventually("a process serves", || {
            let log = site.log();
            serving = log
                .split_once("serving as ")
                .and_then(|(_, rest)| rest.split_once('.')?.0.parse().ok());
            serving.is_some()
        });
        running.signal(signal);
        let ended = running.end();
        if signal == Signal::TERM {
            assert_eq!(complete_response(&ended.stdout).status, 503, "{}", site.log());
        } else {
            let pid: i32 = serving.unwrap();
            eventually("it has ended", || {
                let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
                stat.is_empty() || stat.contains(") Z ")
            });
        }
        by_resident(&site, "x", "HTTP_X_A");
    }
}

#[test]
fn a_pool_stops_on_a_command_and_when_it_is_idle() {
    let site = resident("--warm-idle 1");
    by_resident(&site, "x", "HTTP_X_A");
    site.await_no_process();
    let site = resident("");
    by_resident(&site, "x", "HTTP_X_A");
    for pid in site.supervisors() {
        kill_process(Pid::from_raw(pid).unwrap(), Signal::TERM).unwrap();
    }
    site.await_no_process();
}

#[test]
fn each_request_has_its_own_environment_in_every_view_of_it() {
    // Uses only documented properties of `os.environb`.
    let shown = "
    import os, collections.abc
    class Shown(collections.abc.MutableMapping):
        def __init__(self, view):
            self.view = view
        def __getitem__(self, name):
            return self.view[name]
        def __setitem__(self, name, value):
            self.view[name] = value
        def __delitem__(self, name):
            del self.view[name]
        def __iter__(self):
            return iter(self.view)
        def __len__(self):
            return len(self.view)
        def copy(self):
            return dict(self)
    os.environb = Shown(os.environb)
    ";
    let site = resident("");
    site.dir.script("site/app.wsgi", "#!WSGATE --mode resident", &format!("{shown}{COUNTS}"));
    for name in ["HTTP_X_A", "HTTP_X_B", "HTTP_X_A"] {
        assert_eq!(by_resident(&site, "x", name).header("X-Names"), Some(name));
    }
}

/// Changes its environment as the query says, and answers with the environment of a shell.
const MEDDLES: &str = "
    import os, subprocess
    BORN = os.getpid()
    def application(environ, start_response):
        exec(environ['QUERY_STRING'])
        seen = subprocess.run(['/usr/bin/env'], stdout=subprocess.PIPE, env=None).stdout.decode()
        start_response('200 OK', [('Content-Type', 'text/plain'), ('X-Kept', str('KEPT' in \
        globals())),
            ('X-Left', ' '.join(sorted(line for line in seen.splitlines() if \
            line.startswith(('LEFT', 'PATH=', 'HTTP_X_')))))])
        globals()['KEPT'] = True
        return [('%d %d' % (BORN, os.getpid())).encode()]
    ";

#[test]
fn what_a_request_does_to_the_environment_is_undone() {
    let site = WarmSite::of("resident", "--max-processes 1 --queue 60", MEDDLES);
    let request = |code: &str, is_known_by: &str| {
        let mut command = site.request();
        command.env("QUERY_STRING", code).env(is_known_by, "1").env("PATH", "/bin");
        let response = site.response(&mut command, "");
        assert_eq!(complete_response(&response.raw).status, 200, "{}", site.log());
        response
    };
    request("", "HTTP_X_FIRST");
    site.await_pools(1);
    for code in [
        "os.putenv('LEFT', 'secret')",
        "os.environ['LEFT'] = 'secret'",
        "os.unsetenv('PATH')",
        "os.environ = {'LEFT': 'secret'}",
        "os.environb.clear()",
        "os.environb = None",
        "del os.environ",
    ] {
        request(code, "HTTP_X_SPOILT");
        let after = request("", "HTTP_X_NEXT");
        assert!(Who::of(&after).is_warm(), "{}", site.log());
        let seen = (after.header("X-Kept"), after.header("X-Left"));
        assert_eq!(
            seen,
            (Some("True"), Some("HTTP_X_NEXT=1 PATH=/bin")),
            "after `{code}`: {}",
            site.log()
        );
    }
}

#[test]
fn a_process_whose_descriptors_were_closed_is_answered_with_an_error_page_and_replaced() {
    let site = WarmSite::of("resident", "", MEDDLES);
    site.warm_up();
    for code in [
        "os.closerange(3, 1000)",
        "os.closerange(3, 1000); FILES = [open('/dev/null') for _ in range(40)]",
    ] {
        let mut command = site.request();
        let response = site.response(command.env("QUERY_STRING", code), "");
        assert!([500, 502].contains(&complete_response(&response.raw).status), "{}", site.log());
        let response = site.ask();
        assert_eq!(complete_response(&response.raw).status, 200, "{}", site.log());
    }
}

//! Every request finds the process state that loading has set, and no change of another request.

use crate::{
    pool::state::{DEEDS, STREAMS, assert_lines, has_all_lines},
    support::{assertions::complete_response, web_servers::eventually},
    warm::{WarmSite, Who},
};

/// Configures its process when it is loaded, and shows what a request finds of that. A request
/// spoils it.
pub(crate) const CONFIGURES: &str = "
    import decimal, os, resource, signal, socket, subprocess, sys, threading, time, warnings
    BORN = os.getpid()
    SIGNALS = ['SIGHUP', 'SIGALRM', 'SIGCHLD', 'SIGWINCH', 'SIGPIPE']
    if os.environ.get('ALL_SIGNALS'):
        SIGNALS += ['SIGUSR1', 'SIGUSR2', 'SIGINT']
    os.environ['TRAC_ENV'] = '/srv/trac'
    os.environ['PATH'] = '/opt/bin:' + os.environ['PATH']
    del os.environ['GONE']
    os.putenv('PUT', 'put')
    os.unsetenv('UNSET')
    os.environ['TZ'] = 'XYZ-3'
    time.tzset()
    os.chdir('/')
    os.umask(0o077)
    CALLS = []
    def handle(number, frame):
        CALLS.append(number)
    for name in SIGNALS:
        signal.signal(getattr(signal, name), handle)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGURG})
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
    sys.path.append('/made/up')
    sys.setrecursionlimit(1234)
    socket.setdefaulttimeout(77)
    decimal.getcontext().prec = 7
    warnings.simplefilter('error', UserWarning)
    os.nice(1)

    def state():
        del CALLS[:]
        for name in SIGNALS:
            os.kill(os.getpid(), getattr(signal, name))
        time.sleep(0)
        del CALLS[len(set(CALLS)):]
        shell = 'echo $PUT $TRAC_ENV $GONE $UNSET $PATH; umask; pwd; ulimit -n'
        return repr([
            os.environ.get('TRAC_ENV'), os.environ['PATH'], os.environ.get('GONE'), \
            os.environ.get('PUT'),
            os.environ.get('UNSET'), os.environb.get(b'TZ'), time.tzname, \
            time.localtime(0).tm_hour, os.getcwd(),
            ['%s %s' % (name, signal.getsignal(getattr(signal, name)) is handle) for name in \
            SIGNALS],
            sorted(CALLS), sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])), sys.path[-1],
            sys.getrecursionlimit(), socket.getdefaulttimeout(), decimal.getcontext().prec, \
            warnings.filters[0][0],
            os.getpriority(os.PRIO_PROCESS, 0), subprocess.check_output(['/bin/sh', '-c', \
            shell]).decode()])

    def application(environ, start_response):
        found = state()
        user, language = os.environ.get('REMOTE_USER'), os.environ.get('LC_CTYPE')
        if 'spoil' in environ['QUERY_STRING']:
            os.environ['TRAC_ENV'] = 'spoilt'
            del os.environ['PATH']
            os.environ['GONE'] = os.environ['LC_CTYPE'] = 'spoilt'
            os.putenv('PUT', 'spoilt')
            os.putenv('UNSET', 'spoilt')
            os.environ['TZ'] = 'ABC+5'
            time.tzset()
            os.chdir('/tmp')
            os.umask(0)
            signal.pthread_sigmask(signal.SIG_SETMASK, {signal.SIGHUP})
        start_response('200 OK', [('Content-Type', 'text/plain'), ('X-State', found.replace('\\n', \
        ' ')),
            ('X-User', str(user)), ('X-Language', str(language))])
        return [('%d %d' % (BORN, os.getpid())).encode()]
    ";

/// The state that a request finds, its user, `LC_CTYPE`, and the process that served it.
fn state(site: &WarmSite, query: &str, user: &str) -> ([String; 3], Who) {
    let mut command = site.request();
    command.envs([("GONE", "1"), ("UNSET", "1"), ("ALL_SIGNALS", "1"), ("QUERY_STRING", query)]);
    if !user.is_empty() {
        command.env("REMOTE_USER", user);
    }
    let response = site.response(&mut command, "");
    assert_eq!(complete_response(&response.raw).status, 200, "{response:?}");
    let header = |name: &str| response.header(name).unwrap().to_owned();
    (["X-State", "X-User", "X-Language"].map(header), Who::of(&response))
}

#[test]
fn the_process_state_that_loading_has_set_is_there_for_every_request() {
    for mode in ["warm", "resident"] {
        let site = WarmSite::of(mode, "", CONFIGURES);
        let (cold, who) = state(&site, "", "");
        assert!(!who.is_warm());
        assert!(
            cold[0].starts_with("['/srv/trac', '/opt/bin:") && !cold[0].contains("False"),
            "{cold:?}"
        );
        site.await_pools(1);
        let mut warm = 0;
        let mut number = 0;
        eventually(&format!("warm processes have served: {}", site.log()), || {
            number += 1;
            let user = if number % 2 == 0 { "ada" } else { "" };
            let (found, who) = state(&site, "spoil", user);
            assert_eq!(
                (&found[0], &found[2]),
                (&cold[0], &cold[2]),
                "{mode}, {number}: {}",
                site.log()
            );
            // The name that the request brings is nobody else's.
            assert_eq!(found[1], if user.is_empty() { "None" } else { user }, "{mode}, {number}");
            warm += u32::from(who.is_warm());
            warm >= 6
        });
    }
}

#[test]
fn a_variable_of_loading_and_of_the_request_has_the_value_of_the_request() {
    for mode in ["warm", "resident"] {
        let site = WarmSite::of(
            mode,
            "",
            &CONFIGURES.replace("os.chdir('/')", "os.environ['REMOTE_USER'] = 'loader'"),
        );
        state(&site, "", "eve");
        site.await_pools(1);
        for user in ["ada", "", "grace", ""] {
            let mut found = None;
            eventually("a warm process serves", || {
                found = Some(state(&site, "", user)).filter(|(_, who)| who.is_warm());
                found.is_some()
            });
            let expected = if user.is_empty() { "loader" } else { user };
            assert_eq!(found.unwrap().0[1], expected, "{mode}: {}", site.log());
        }
    }
}

#[test]
fn environment_variables_that_loading_sets_are_in_environ_as_with_cgi_handler() {
    let code = "
        import os
        BORN = os.getpid()
        os.environ['HTTPS'] = 'on'
        os.environ['SITE'] = 'set'
        os.environ.setdefault('REMOTE_USER', 'nobody')
        os.environ['HTTP_PROXY'] = 'http://proxy.example/'
        os.environ['wsgi.errors'] = 'a text'
        os.environ.pop('GONE', None)
        def application(environ, start_response):
            names = ['HTTPS', 'wsgi.url_scheme', 'SITE', 'REMOTE_USER', 'HTTP_PROXY', 'GONE', \
            'QUERY_STRING']
            found = ' '.join(str(environ.get(name)) for name in names)
            environ['wsgi.errors'].write('')
            start_response('200 OK', [('Content-Type', 'text/plain'), ('X-Found', found)])
            return [('%d %d' % (BORN, os.getpid())).encode()]
        ";
    for mode in ["cold", "warm", "resident"] {
        let site = WarmSite::of(mode, "", code);
        let found = |user: Option<&str>| {
            let mut command = site.request();
            command
                .envs([("GONE", "1"), ("QUERY_STRING", "q")])
                .envs(user.map(|user| ("REMOTE_USER", user)));
            let response = site.response(&mut command, "");
            assert_eq!(complete_response(&response.raw).status, 200, "{mode}: {}", site.log());
            let is_warm = Who::of(&response).is_warm();
            (response.header("X-Found").unwrap().to_owned(), is_warm)
        };
        found(None);
        for (user, expected) in [(None, "nobody"), (Some("ada"), "ada")] {
            eventually("a process of the mode serves", || {
                let (found, is_warm) = found(user);
                assert_eq!(found, format!("on https set {expected} None None q"), "{mode}");
                is_warm == (mode != "cold")
            });
        }
    }
}

#[test]
fn standard_error_that_loading_redirects_stays_redirected() {
    for mode in ["warm", "resident"] {
        let site = WarmSite::of(
            mode,
            "",
            "
            import os, sys
            BORN = os.getpid()
            os.dup2(os.open(os.environ['OWN_LOG'], os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
            def application(environ, start_response):
                sys.stderr.write('%s of %s\\n' % (environ['QUERY_STRING'], 'warm' if os.getpid() \
                != BORN else 'cold'))
                start_response('200 OK', [('Content-Type', 'text/plain')])
                return [('%d %d' % (BORN, os.getpid())).encode()]
            ",
        );
        let own = site.dir.path("own.log");
        let text = || std::fs::read_to_string(&own).unwrap_or_default();
        let mut number = 0;
        eventually("two warm processes have written to the application's own log", || {
            number += 1;
            let mut command = site.request();
            command.env("OWN_LOG", &own).env("QUERY_STRING", format!("request {number}"));
            assert_eq!(complete_response(&site.response(&mut command, "").raw).status, 200);
            text().matches("of warm").count() >= 2
        });
        assert!(!site.log().contains("request 1"), "{mode}: {}", site.log());
        assert_eq!(text().lines().count(), number, "{mode}");
    }
}

#[test]
fn a_sigterm_handler_that_loading_has_set_is_called_when_a_request_is_stopped() {
    for mode in ["cold", "warm", "resident"] {
        let site = WarmSite::of(
            mode,
            "--timeout 1",
            "
            import os, signal, sys, time
            BORN = os.getpid()
            class Terminated(Exception):
                pass
            def terminate(number, frame):
                raise Terminated(number)
            signal.signal(signal.SIGTERM, terminate)
            def application(environ, start_response):
                text = b''
                try:
                    while environ['QUERY_STRING'] == 'wait':
                        time.sleep(0.01)
                except Terminated:
                    text = b' terminated'
                start_response('200 OK', [('Content-Type', 'text/plain')])
                return [('%d %d' % (BORN, os.getpid())).encode() + text]
            ",
        );
        site.ask();
        if mode != "cold" {
            site.await_pools(1);
        }
        let mut command = site.request();
        let response = site.response(command.env("QUERY_STRING", "wait"), "");
        assert!(response.text().ends_with(" terminated"), "{mode}: {response:?}");
    }
}

#[test]
fn changes_of_a_request_to_the_standard_streams_end_with_it() {
    for mode in ["cold", "warm", "resident"] {
        let site = WarmSite::of(mode, "", STREAMS);
        site.ask();
        if mode != "cold" {
            site.await_pools(1);
        }
        let queries: Vec<String> =
            (0..3).flat_map(|round| DEEDS.map(|deed| format!("{deed}{round}"))).collect();
        for query in &queries {
            let mut command = site.request();
            let response = site.response(command.env("QUERY_STRING", query), "");
            assert_eq!(
                complete_response(&response.raw).status,
                200,
                "{mode} {query}: {}",
                site.log()
            );
        }
        // A process writes its last lines after the response has ended.
        eventually(&format!("{mode}: the log has all lines: {}", site.log()), || {
            has_all_lines(&site.log(), &queries)
        });
        assert_lines(&site.log(), &queries);
    }
}

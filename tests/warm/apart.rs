//! Requests at once: an application that looks for what belongs to others, and finds nothing.

use std::fs::{
    File, {self},
};

use crate::{
    support::{
        assertions::complete_response,
        child_process::{Gate, RunningProcess},
        probe::CgiResponse,
        web_servers::eventually,
    },
    warm::WarmSite,
};

/// Leaves its secret wherever it can, waits until all others have done so, and responds with every
/// secret that is in its memory, in a file that it has open, or in what the kernel says of its
/// environment.
const TRIES: &str = r#"
    import os, re, tempfile
    BORN = os.getpid()
    LEFT = {}
    SECRET = re.compile(rb'secret-[0-9]')

    def contents():
        with open('/proc/self/maps') as maps, open('/proc/self/mem', 'rb', 0) as memory:
            for line in maps:
                place, rights = line.split()[:2]
                if rights.startswith('rw'):
                    begin, end = (int(number, 16) for number in place.split('-'))
                    memory.seek(begin)
                    yield memory.read(end - begin)
        with open('/proc/self/environ', 'rb') as environment:
            yield environment.read()
        for number in os.listdir('/proc/self/fd'):
            try:
                with open('/proc/self/fd/' + number, 'rb') as other:
                    yield other.read() if os.path.isfile('/proc/self/fd/' + number) else b''
            except OSError:
                pass

    def application(environ, start_response):
        own = environ['HTTP_X_SECRET']
        LEFT['secret'] = os.environ['LEFT'] = own
        file = tempfile.TemporaryFile()
        file.write(own.encode())
        file.flush()
        if BORN != os.getpid():
            # The error log of the first request is that of its pool, too.
            print('left by', own, flush=True)
            os.read(os.open(os.environ['GATE'], os.O_RDONLY), 1)
        found = set()
        for content in contents():
            found.update(SECRET.findall(content))
        start_response('200 OK', [('Content-Type', 'text/plain')])
        return [b' '.join(sorted(found))]
    "#;

#[test]
fn requests_at_once_find_nothing_of_each_other() {
    let site = WarmSite::of("warm", "--queue 60", TRIES);
    let gate = Gate::new(&site.dir.path("site"));
    let request = |number: usize| {
        let mut command = site.request();
        command.env("HTTP_X_SECRET", format!("secret-{number}")).env("GATE", gate.path());
        command
    };
    // This request starts the pool.
    assert_eq!(site.response(&mut request(9), "").text(), "secret-9");
    site.await_pools(1);
    let log_of = |number: usize| site.dir.path(&format!("error-{number}.log"));
    let requests: Vec<RunningProcess> = (0..8)
        .map(|number| {
            let mut running = RunningProcess::start(
                request(number).stderr(File::create(log_of(number)).unwrap()),
            );
            running.stdin = None;
            running
        })
        .collect();
    let said = |number: usize| fs::read_to_string(log_of(number)).unwrap();
    eventually("all have left their secrets", || {
        (0..8).all(|number| said(number).contains("left by"))
    });
    requests.iter().for_each(|_| gate.open());
    for (number, running) in requests.into_iter().enumerate() {
        let ended = running.end();
        let response = CgiResponse::parse(ended.stdout, site.log(), ended.status);
        assert_eq!(complete_response(&response.raw).status, 200, "{}", said(number));
        assert_eq!(response.text(), format!("secret-{number}"));
        assert_eq!(said(number), format!("left by secret-{number}\n"));
    }
}

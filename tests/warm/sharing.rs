//! The memory of a process: its private part, and the part that it shares with its template.

use std::{collections::BTreeMap, fs, process::Command};

use crate::{
    support::{
        child_process::{Gate, RunningProcess},
        web_servers::eventually,
    },
    warm::{WarmSite, Who},
};

/// Imports much when it is first asked, and then waits at the gate.
const IMPORTS_LATE: &str = "
    import os
    BORN = os.getpid()
    MUCH = [bytes(1000) for _ in range(20000)]
    def application(environ, start_response):
        import asyncio, decimal, email.mime.multipart, http.client, sqlite3, unittest, \
        urllib.request, xml.dom.minidom
        if 'GATE' in environ and BORN != os.getpid():
            print('serving as %d.' % os.getpid())
            gate = os.open(environ['GATE'], os.O_RDONLY)
            os.read(gate, 1)
            os.close(gate)
        start_response('200 OK', [('Content-Type', 'text/plain')])
        return [('%d %d' % (BORN, os.getpid())).encode()]
    ";

/// On a busy machine a process may take long to be forked. No request falls back to cold CGI.
const LONG_QUEUE: &str = "--queue 50";

/// Memory of a process, in KiB.
#[derive(Clone, Copy, Debug)]
struct Memory {
    resident: u64,
    /// Pages that it has written to, so that they are its own.
    own: u64,
}

impl Memory {
    /// Reads the memory of a process, unless it has exited.
    fn of(pid: i32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        let numbers: BTreeMap<&str, u64> = text
            .lines()
            .filter_map(|line| line.strip_suffix(" kB")?.split_once(':'))
            .map(|(name, number)| (name, number.trim().parse().unwrap()))
            .collect();
        Some(Self { resident: *numbers.get("Rss")?, own: *numbers.get("Private_Dirty")? })
    }
}

/// The memory of a process that has done what its request wants, but not ended yet.
#[track_caller]
fn memory_during_a_request(site: &WarmSite) -> Memory {
    let gate = Gate::new(&site.dir.path("site"));
    let request = || {
        let mut command: Command = site.request();
        command.env("GATE", gate.path());
        command
    };
    // The request may fall back to cold CGI, which does not wait.
    assert!(!Who::of(&site.response(&mut request(), "")).is_warm());
    site.await_pools(1);
    let running = RunningProcess::start(&mut request());
    let mut pid = None;
    eventually(&format!("a process serves: {}", site.log()), || {
        let log = site.log();
        pid = log
            .split_once("serving as ")
            .and_then(|(_, rest)| rest.split_once('.')?.0.parse().ok());
        pid.is_some()
    });
    let memory = Memory::of(pid.unwrap()).unwrap();
    gate.open();
    running.end();
    memory
}

#[test]
fn a_process_shares_the_memory_of_its_template_and_more_after_a_warm_up_request() {
    let without = memory_during_a_request(&WarmSite::with(LONG_QUEUE, IMPORTS_LATE));
    let with = memory_during_a_request(&WarmSite::with(
        &format!("--warm-up / {LONG_QUEUE}"),
        IMPORTS_LATE,
    ));
    // The 20 MB that the module has made are not copied, whatever else is.
    assert!(without.own + 15_000 < without.resident, "{without:?}");
    assert!(with.own * 4 < with.resident, "{with:?} {without:?}");
    // The modules that the first request has imported are not copied, either.
    assert!(with.own + 2_000 < without.own, "{with:?} {without:?}");
}

/// Writes to each page of so many megabytes, and tells at how many of them the kernel has
/// interrupted it.
const WRITES: &str = "
    import os, resource
    BORN = os.getpid()
    PAGES = [bytearray(4096) for _ in range(256 * MEGABYTES)]
    def faults():
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    def application(environ, start_response):
        before = faults()
        for page in PAGES:
            page[2000] = 1
        start_response('200 OK', [('Content-Type', 'text/plain'), ('X-Faults', str(faults() - \
        before))])
        return [('%d %d' % (BORN, os.getpid())).encode()]
    ";

/// The faults of a request that a process of a pool serves.
#[track_caller]
fn faults(site: &WarmSite) -> u64 {
    let response = site.ask();
    assert!(Who::of(&response).is_warm(), "{}", site.log());
    response.header("X-Faults").unwrap().parse().unwrap()
}

#[test]
fn pages_that_requests_write_to_are_copied_before_the_next_request() {
    let site = WarmSite::with(LONG_QUEUE, &WRITES.replace("MEGABYTES", "4"));
    site.warm_up();
    assert!(faults(&site) > 1000);
    // Some processes were forked before the first request had ended.
    eventually(&format!("few faults: {}", site.log()), || faults(&site) < 100);
}

#[test]
fn an_idle_process_has_little_private_memory() {
    // Pages with others between them, and in one piece.
    let in_one = "[memoryview(ALL)[4096 * number:][:4096] for ALL in [bytearray(64 << 20)] for \
        number in range(1 << 14)]";
    for code in
        [WRITES, &WRITES.replace("[bytearray(4096) for _ in range(256 * MEGABYTES)]", in_one)]
    {
        let site = WarmSite::with(LONG_QUEUE, &code.replace("MEGABYTES", "64"));
        site.warm_up();
        for _ in 0..6 {
            assert!(faults(&site) > 10_000);
        }
        // Until those that have served have ended, these are among them.
        let is_small = |memory: Memory| memory.resident > 64_000 && memory.own < 24_000;
        let is_waiting = |pid: i32| Memory::of(pid).is_some_and(is_small);
        eventually("all that wait share most of their memory", || {
            let workers = site.workers();
            !workers.is_empty() && workers.into_iter().all(is_waiting)
        });
    }
}

#[test]
fn a_process_close_to_its_address_space_limit_exits_regularly() {
    let site = WarmSite::with(
        LONG_QUEUE,
        "
        import mmap, os, resource
        BORN = os.getpid()
        def application(environ, start_response):
            global area
            if BORN != os.getpid():
                without_reserve = 0x4000
                area = mmap.mmap(-1, 8 << 30, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | \
                without_reserve)
                with open('/proc/self/statm') as file:
                    size = int(file.read().split()[0]) * resource.getpagesize() + (8 << 20)
                resource.setrlimit(resource.RLIMIT_AS, (size, size))
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [('%d %d' % (BORN, os.getpid())).encode()]
        ",
    );
    site.warm_up();
    for _ in 0..3 {
        let who = Who::of(&site.ask());
        assert!(who.is_warm(), "{}", site.log());
        eventually("it has ended", || !site.workers().contains(&who.pid));
    }
    assert!(!site.log().contains("memory"), "{}", site.log());
}

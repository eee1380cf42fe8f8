//! Pools in a control group with few processes or little memory.

use crate::support::{
    assertions::codes,
    control_group::{ControlGroup, GroupLimits},
    fastcgi_client::FastcgiRequest,
    pool::{Pool, PoolSetup},
    web_servers::eventually,
};

const HELLO: &str = "
    def application(environ, start_response):
        start_response('200 OK', [('Content-Type', 'text/plain')])
        return [b'hello']
    ";

const ENOUGH: GroupLimits = GroupLimits { processes: 100, bytes: 512 << 20, processors: 2 };

fn launch(group: &ControlGroup, setup: PoolSetup) -> Pool {
    let args = group.arguments();
    setup.launch_by(&args.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn a_worker_that_the_group_does_not_allow_is_forked_when_it_does() {
    // Supervisor and template process.
    let Some(group) = ControlGroup::new(GroupLimits { processes: 2, ..ENOUGH }) else { return };
    let mut pool = launch(&group, PoolSetup::new(HELLO).args(&["--preload", "yes"]));
    pool.await_log("cannot fork a worker: Resource temporarily unavailable");
    pool.await_log("`pids.max`");
    assert_eq!(pool.ask(&FastcgiRequest::get("/")).valid().status, 503);
    group.allow_processes(100);
    eventually("the pool serves", || pool.ask(&FastcgiRequest::get("/")).valid().status == 200);
    pool.stop();
}

#[test]
fn a_default_number_of_workers_stays_within_the_memory_of_the_group() {
    if std::thread::available_parallelism().unwrap().get() < 2 {
        return;
    }
    // Half of 120 MB holds one worker of 32 MB.
    let Some(group) = ControlGroup::new(GroupLimits { bytes: 120 << 20, ..ENOUGH }) else { return };
    let mut pool = launch(&group, PoolSetup::new(HELLO).dynamic(&[]));
    pool.await_log("W0710");
    pool.await_log("notice[W0726]");
    assert_eq!(pool.workers(1).len(), 1);
    assert_eq!(pool.ask(&FastcgiRequest::get("/")).valid().status, 200);
    let log = pool.stop();
    assert!(log.contains("of 120 MB"), "{log}");
}

#[test]
fn an_option_that_the_memory_of_the_group_does_not_hold_is_used_with_a_warning() {
    let Some(group) = ControlGroup::new(GroupLimits { bytes: 120 << 20, ..ENOUGH }) else { return };
    let setup = PoolSetup::new(HELLO).dynamic(&["--max", "60"]);
    let mut pool = launch(&group, setup);
    pool.await_log("W0710");
    assert_eq!(pool.ask(&FastcgiRequest::get("/")).valid().status, 200);
    let log = pool.stop();
    assert_eq!(codes(&log), ["W0719"], "{log}");
    assert!(log.contains("--max 60 needs at least 240 MB of memory"), "{log}");
}

#[test]
fn the_group_has_one_worker_for_each_processor_that_it_may_use() {
    let Some(group) = ControlGroup::new(GroupLimits { processors: 1, ..ENOUGH }) else { return };
    let mut pool = launch(&group, PoolSetup::new(HELLO).dynamic(&[]));
    pool.await_log("W0710");
    assert_eq!(pool.workers(1).len(), 1);
    let log = pool.stop();
    assert!(!log.contains("W0726"), "{log}");
}

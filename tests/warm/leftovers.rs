//! Files that stopped pools leave behind are removed by the next pool.

use std::{
    fs::{
        File, {self},
    },
    os::unix::{fs::PermissionsExt as _, net::UnixListener},
    time::{Duration, SystemTime},
};

use rustix::fs::{FlockOperation, flock};

use crate::warm::{TELLS_ITSELF, WarmSite};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[test]
fn files_of_pools_that_no_longer_run_are_removed_when_a_pool_starts() {
    let site = WarmSite::new(TELLS_ITSELF);
    let run = site.dir.path("run");
    fs::create_dir_all(&run).unwrap();
    fs::set_permissions(&run, fs::Permissions::from_mode(0o700)).unwrap();
    let write = |name: &str, age: Duration| {
        let file = File::create(run.join(name)).unwrap();
        file.set_modified(SystemTime::now() - age).unwrap();
        file
    };
    let old = DAY + Duration::from_secs(60);
    // Of a version of another application, long ago.
    let gone = ["warm-old-000001-a.log", "warm-old-000001-a.lock", "warm-old-000001-0381.logged"];
    gone.iter().for_each(|name| drop(write(name, old)));
    // The files of a running pool that has not logged for long.
    let held = write("warm-old-000001-b.lock", old);
    flock(&held, FlockOperation::NonBlockingLockExclusive).unwrap();
    let kept =
        ["warm-old-000001-b.log", "warm-old-000001-b.lock", "shop.log", "warm-old-000001-c.txt"];
    kept.iter()
        .filter(|name| **name != "warm-old-000001-b.lock")
        .for_each(|name| drop(write(name, old)));
    // The files of a pool that has just failed, whose log says why.
    let fresh = ["warm-new-000002-a.log", "warm-new-000002-a.lock"];
    fresh.iter().for_each(|name| drop(write(name, Duration::ZERO)));
    // Many versions in a day.
    let many: Vec<String> =
        (0..12).map(|number| format!("warm-many-000003-{number:02}.log")).collect();
    many.iter()
        .zip(0..)
        .for_each(|(name, hours)| drop(write(name, Duration::from_secs(hours * 60))));
    // Of a supervisor that was killed while its pool ended, and of one that lives.
    drop(UnixListener::bind(run.join("warm-old-000001-ends-1.pool")).unwrap());
    let _lives = UnixListener::bind(run.join("warm-old-000001-ends-2.pool")).unwrap();
    site.warm_up();
    let is_there = |name: &str| run.join(name).symlink_metadata().is_ok();
    gone.iter().for_each(|name| assert!(!is_there(name), "{name}"));
    kept.iter().chain(&fresh).for_each(|name| assert!(is_there(name), "{name}"));
    many.iter()
        .zip(0..)
        .for_each(|(name, number)| assert_eq!(is_there(name), number < 8, "{name}"));
    assert!(!is_there("warm-old-000001-ends-1.pool") && is_there("warm-old-000001-ends-2.pool"));
}

//! Limits that are reached and lifted again, while others are served.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, atomic::Ordering},
};

use rustix::process::{Pid, Resource, Rlimit, Signal, getuid, kill_process, prlimit};

use crate::{
    attack::{
        BOUND, ECHO,
        load::Load,
        outcome::Outcome,
        report::Counts,
        target::{Options, Target, lock},
        times, turn_in_short_form,
    },
    each_mode::Mode,
    support::{
        assertions::codes, fastcgi_client::FastcgiConnection, install_dir::InstallDir,
        own_user::OwnUser, random::Random, web_servers::eventually,
    },
};

/// Workers of a pool.
const WORKERS: usize = 2;

/// Sets the soft limit of processes; none is no limit but the hard one.
fn limit(pids: &[i32], resource: Resource, soft: impl Fn(i32) -> Option<u64>) {
    for &pid in pids {
        let Some(process) = Pid::from_raw(pid) else { continue };
        let maximum = hard(pid, resource);
        let soft = soft(pid).or(maximum);
        // The process may have exited.
        let _ = prlimit(Some(process), resource, Rlimit { current: soft, maximum });
    }
}

/// The hard limit of a process.
fn hard(pid: i32, resource: Resource) -> Option<u64> {
    let name = match resource {
        Resource::Nofile => "Max open files",
        Resource::Nproc => "Max processes",
        _ => "Max address space",
    };
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap_or_default();
    let line =
        limits.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().to_owned();
    line.split_whitespace().nth(1)?.parse().ok()
}

/// All processes of a pool.
fn all(target: &Target) -> Vec<i32> {
    [target.supervisors(), target.templates(), target.workers()].concat()
}

/// A field of the status of a process, in KiB.
fn field(pid: i32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line =
        status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().to_owned();
    line.trim().trim_end_matches(" kB").parse().unwrap_or_default()
}

/// Reaches a limit again and again by `reach`, and lifts it by `lift`. The value of `reach` is
/// dropped when the limit is lifted.
fn attack<R>(
    row: &str,
    what: &str,
    target: &Arc<Target>,
    expected: &[&str],
    reach: impl Fn(&Target, &mut Random, usize) -> R,
    lift: impl Fn(&Target),
) {
    let mut random = Random::new();
    let load = Load::start(target, 4);
    let rounds = times(3, 40);
    for round in 0..rounds {
        let reached = reach(target, &mut random, round);
        // A worker exits in each third round.
        if round % 3 == 2
            && let Some(pid) = target.workers().first().copied().and_then(Pid::from_raw)
        {
            let _ = kill_process(pid, Signal::KILL);
        }
        let limited = load.await_answers(target, 10);
        lift(target);
        drop(reached);
        limited.unwrap_or_else(|wrong| panic!("round {round}: {wrong}\n{}", target.log()));
        if !target.is_cgi() {
            eventually(&format!("all workers are there: {}", target.log()), || {
                // Processes that started meanwhile inherited the limit.
                lift(target);
                target.workers().len() == WORKERS
            });
        }
        load.await_answers(target, 20)
            .unwrap_or_else(|wrong| panic!("round {round}: {wrong}\n{}", target.log()));
    }
    let tally = load.end().unwrap_or_else(|wrong| panic!("{wrong}\n{}", target.log()));
    assert!(target.ends().is_empty(), "{:?}\n{}", target.ends(), target.log());
    let log = target.stop().unwrap_or_else(|wrong| panic!("{wrong}\n{}", target.log()));
    for code in codes(&log) {
        assert!(expected.contains(&code), "{code}\n{log}");
    }
    Counts {
        tried: format!("{rounds} times {what}"),
        answered: tally.answered.load(Ordering::Relaxed),
        lost: tally.lost(),
        how: "requests of workers that were killed, error pages".to_owned(),
    }
    .report(row);
    assert!(tally.lost() <= 12 * rounds as u64, "{:?}\n{log}", lock(&tally.how));
}

fn pool(dir: &Arc<InstallDir>, threads: u32, args: &[&str], options: Options<'_>) -> Arc<Target> {
    let args = [&["--workers", "2"], args].concat();
    Arc::new(Target::start(
        dir,
        "limits",
        Mode::Preloaded(threads),
        ECHO,
        Options { args: &args, ..options },
    ))
}

fn descriptors(threads: u32, row: &str) {
    let _turn = turn_in_short_form();
    let dir = Arc::new(InstallDir::new());
    let target = pool(&dir, threads, &[], Options::default());
    let open = |pid: i32| {
        fs::read_dir(format!("/proc/{pid}/fd")).map(Iterator::count).unwrap_or_default() as u64
    };
    let expected = ["W0701", "W0703", "W0715", "W0704", "W0204", "W0706", "W0707", "W0404"];
    attack(
        row,
        "no more descriptors, and 100 connections without a word",
        &target,
        &expected,
        |target, random, _| {
            let spare = random.below(5) as u64;
            limit(&all(target), Resource::Nofile, |pid| Some(open(pid) + spare));
            (0..100).map(|_| target.connect()).collect::<Vec<FastcgiConnection>>()
        },
        |target| limit(&all(target), Resource::Nofile, |_| None),
    );
}

#[test]
fn a_pool_of_one_thread_out_of_descriptors_keeps_serving() {
    descriptors(1, "Descriptors, 1 thread");
}

#[test]
fn a_pool_of_eight_threads_out_of_descriptors_keeps_serving() {
    descriptors(8, "Descriptors, 8 threads");
}

fn processes(threads: u32, row: &str) {
    // Root may have as many as it likes.
    let Some(user) = OwnUser::new() else {
        return;
    };
    let _turn = turn_in_short_form();
    let dir = Arc::new(InstallDir::new());
    let target = pool(&dir, threads, &[], Options { user: Some(user.id()), ..Options::default() });
    let expected = ["W0701", "W0703", "W0715", "W0704", "W0706"];
    attack(
        row,
        "no more processes",
        &target,
        &expected,
        |target, _, _| limit(&all(target), Resource::Nproc, |_| Some(1)),
        |target| limit(&all(target), Resource::Nproc, |_| None),
    );
}

#[test]
fn a_pool_of_one_thread_out_of_processes_keeps_serving() {
    processes(1, "Processes, 1 thread");
}

#[test]
fn a_pool_of_eight_threads_out_of_processes_keeps_serving() {
    processes(8, "Processes, 8 threads");
}

fn memory(threads: u32, row: &str) {
    let _turn = turn_in_short_form();
    let dir = Arc::new(InstallDir::new());
    let target = pool(&dir, threads, &[], Options::default());
    let expected = ["W0701", "W0703", "W0715", "W0704", "W0706", "W0501", "W0204", "W0401"];
    let large = "x".repeat(4 << 20);
    attack(
        row,
        "no more memory, and 3 requests of 4 MiB",
        &target,
        &expected,
        |target, random, _| {
            let spare = (random.below(4) as u64) << 18;
            limit(&target.workers(), Resource::As, |pid| {
                Some((field(pid, "VmSize:") << 10) + spare)
            });
            for _ in 0..3 {
                let outcome = target.ask("/good-large", &large, BOUND);
                if let Outcome::Hung(_) | Outcome::Invalid(_) = outcome {
                    panic!("{outcome:?}\n{}", target.log());
                }
            }
        },
        |target| limit(&all(target), Resource::As, |_| None),
    );
}

#[test]
fn a_pool_of_one_thread_out_of_memory_keeps_serving() {
    memory(1, "Memory, 1 thread");
}

#[test]
fn a_pool_of_eight_threads_out_of_memory_keeps_serving() {
    memory(8, "Memory, 8 threads");
}

/// A small file system.
struct Disk(PathBuf);

impl Disk {
    fn mount(path: PathBuf) -> Self {
        fs::create_dir_all(&path).unwrap();
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m,mode=1777", "none"])
            .arg(&path)
            .status();
        assert!(status.unwrap().success(), "mount {}", path.display());
        Self(path)
    }

    fn fill(&self) {
        let mut file = fs::File::create(self.0.join("full")).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
    }

    fn make_room(path: &Path) {
        let _ = fs::remove_file(path.join("full"));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

fn disk(modes: &[Mode], row: &str) {
    // Mounting is for root.
    if !getuid().is_root() {
        return;
    }
    let _turn = turn_in_short_form();
    let dir = Arc::new(InstallDir::new());
    let disk = Disk::mount(dir.path("disk"));
    let path = disk.0.clone();
    let text = |name: &str| path.join(name).display().to_string();
    let (access, temporary, run) = (text("access.log"), text("tmp"), text("run"));
    fs::create_dir(&temporary).unwrap();
    for &mode in modes {
        let logs = ["--access-log", access.as_str()];
        let args = ["--workers", "2", logs[0], logs[1]];
        let variables = [("TMPDIR", temporary.as_str()), ("WSGATE_RUNTIME_DIR", run.as_str())];
        let is_pool = matches!(mode, Mode::Preloaded(_));
        let args: &[&str] = if is_pool { &args } else { &[] };
        let options = Options { args, variables: &variables, ..Options::default() };
        let target = Arc::new(Target::start(&dir, &format!("disk-{mode:?}"), mode, ECHO, options));
        let body = "x".repeat(300_000);
        attack(
            row,
            "no more room for logs, temporary files, `.pyc` files and the runtime directory",
            &target,
            &["W0740", "W0801", "W0802", "W0803", "W0701", "W0601", "W0603"],
            |target, _, _| {
                disk.fill();
                for _ in 0..3 {
                    let outcome = target.ask("/good-large", &body, BOUND);
                    if let Outcome::Hung(_) | Outcome::Invalid(_) = outcome {
                        panic!("{outcome:?}\n{}", target.log());
                    }
                }
            },
            |_| Disk::make_room(&path),
        );
        assert!(!is_pool || fs::metadata(&access).unwrap().len() > 0);
    }
}

#[test]
fn a_full_disk_fails_no_request_of_one_thread() {
    disk(&[Mode::Preloaded(1)], "Disk, 1 thread");
}

#[test]
fn a_full_disk_fails_no_request_of_eight_threads() {
    disk(&[Mode::Preloaded(8)], "Disk, 8 threads");
}

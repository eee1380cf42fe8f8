//! `wsgate check` reports what an application needs of the limits.

use crate::{
    check::{CheckSite, HELLO},
    support::{
        child_process,
        control_group::{ControlGroup, GroupLimits},
        own_user::OwnUser,
        processes::{pids, user_and_group_ids},
    },
};

/// The budget that a user with these limits gets, and the user.
fn budget(args: &[&str], processes: usize, code: &str) -> Option<(String, OwnUser)> {
    let user = OwnUser::new()?;
    let site = CheckSite::new();
    site.dir.script("site/app.wsgi", "#!WSGATE", code);
    user.give(&site.dir.path("site"));
    user.give(&site.dir.path("run"));
    std::fs::set_permissions(
        site.dir.path("run"),
        std::os::unix::fs::PermissionsExt::from_mode(0o700),
    )
    .unwrap();
    let command = site.command(&[args, &["app.wsgi"]].concat());
    let mut command = user.limit(&command, processes);
    command.env("WSGATE_RUNTIME_DIR", site.dir.path("run"));
    let ended = child_process::run(&mut command, "");
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    let text = ended.text();
    let (_, lines) = text.split_once("\nbudget ").unwrap_or_else(|| panic!("{text}"));
    let left = std::fs::read_dir(site.dir.path("run")).unwrap();
    let left: Vec<_> =
        left.filter_map(|entry| entry.unwrap().file_name().into_string().ok()).collect();
    assert!(!left.iter().any(|file| file.starts_with("check-")), "{left:?}");
    Some((lines.to_owned(), user))
}

/// The numbers at the start of a line: processes and megabytes.
#[track_caller]
fn numbers(line: &str) -> (u64, u64) {
    let (processes, rest) = line.trim().split_once(" processes, ").unwrap();
    (processes.parse().unwrap(), rest.split_once(" MB").unwrap().0.parse().unwrap())
}

#[test]
fn a_budget_has_measured_numbers_and_the_limits() {
    let Some((warm, user)) = budget(&["--mode", "warm"], 100, HELLO) else { return };
    let line = warm.lines().find(|line| line.contains("a warm pool without requests")).unwrap();
    let (processes, small) = numbers(line);
    assert!(processes == 4 && (5..100).contains(&small), "{warm}");
    assert!(line.contains("of your 100 processes"), "{warm}");
    assert!(warm.contains("RLIMIT_NPROC: 1 of 100 processes and threads are in use"), "{warm}");
    assert!(warm.contains("up to 23 requests"), "{warm}");
    let is_left = |pid: &i32| user_and_group_ids(*pid).first() == Some(&user.id().to_string());
    assert_eq!(pids().find(is_left), None, "the pool has exited");
    // The memory is that of this application.
    let code = format!("{HELLO}\n    DATA = b'x' * (64 << 20)\n");
    let Some((cold, _)) = budget(&[], 100, &code) else { return };
    let line = cold.lines().find(|line| line.contains("each request")).unwrap();
    let (processes, large) = numbers(line);
    assert!(processes == 2 && (64..164).contains(&large), "{cold}");
    let line = cold.lines().find(|line| line.contains("a warm pool without requests")).unwrap();
    let (_, pool) = numbers(line);
    assert!(pool > small + 60 && pool < small + 120, "shared once: {cold}");
}

#[test]
fn a_budget_has_the_limits_of_the_control_group() {
    let limits = GroupLimits { processes: 100, bytes: 512 << 20, processors: 1 };
    let Some(group) = ControlGroup::new(limits) else { return };
    let site = CheckSite::new();
    site.dir.script("site/app.wsgi", "#!WSGATE --mode warm --max-processes 7", HELLO);
    let mut command = group.command(&site.command(&["app.wsgi"]));
    command.env("WSGATE_RUNTIME_DIR", site.dir.path("run"));
    let text = child_process::run(&mut command, "").text();
    assert!(text.contains("of your 100 and 512 MB: a warm pool without requests"), "{text}");
    assert!(text.contains("up to 7 requests"), "{text}");
    assert!(text.contains("`wsgate fastcgi` with 1 worker\n"), "one processor: {text}");
    assert!(text.contains("pids.max: 1 of 100 processes and threads are in use"), "{text}");
}

#[test]
fn a_small_limit_leaves_few_requests() {
    let Some((text, _)) = budget(&["--mode", "warm"], 12, HELLO) else { return };
    assert!(text.contains("of your 12 processes"), "{text}");
    assert!(text.contains("up to 1 request\n"), "{text}");
}

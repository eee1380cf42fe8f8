//! The live view of workers: `wsgate top`, on a terminal of script(1) and into a pipe.

use std::io::Write as _;

use rustix::process::Signal;

use crate::{
    pool::{GATED, Pool, PoolSetup, children},
    support::{
        artefacts,
        child_process::{self, RunningProcess, piped},
        fastcgi_client::{FastcgiConnection, FastcgiRequest},
        pool::signal,
        web_servers::eventually,
    },
};

/// Ends what [`on_terminal`] prints.
const RESTORED: &str = "the same settings as before";

/// A pool with a request that waits at the gate.
fn busy_pool() -> (Pool, FastcgiConnection) {
    let mut pool = PoolSetup::new(GATED).gated().args(&["--workers", "2"]).start();
    let slow = pool.connect();
    slow.send(&FastcgiRequest::get("/slow?\u{1b}]0;title\u{7}").bytes());
    pool.await_log("at the gate");
    (pool, slow)
}

/// `wsgate top` with `args`, on a terminal of this many lines and columns. At its end the code and
/// the settings of the terminal are printed.
fn on_terminal(pool: &Pool, (lines, columns): (u32, u32), args: &str) -> RunningProcess {
    let script = format!(
        "stty rows {lines} cols {columns}; before=$(stty -g); {} top {args}; echo \"ended with $?\"
        [ \"$before\" = \"$(stty -g)\" ] && echo {RESTORED}",
        artefacts::gateway().display()
    );
    let mut command = child_process::on_terminal(&script);
    command.env("WSGATE_RUNTIME_DIR", pool.setup().path("run"));
    RunningProcess::start(piped(&mut command))
}

fn press(top: &RunningProcess, keys: &str) {
    top.stdin.as_ref().unwrap().write_all(keys.as_bytes()).unwrap();
}

/// The rest of what the terminal was sent; it is restored.
fn end(top: RunningProcess, code: u32) -> String {
    let text = top.end().text();
    let last = "\u{1b}[?7h\u{1b}[?25h\u{1b}[?1049l";
    let (screen, after) = text.rsplit_once(last).unwrap_or_else(|| panic!("{text:?}"));
    assert!(after.contains(&format!("ended with {code}\r\n{RESTORED}")), "{after:?}");
    screen.to_owned()
}

#[test]
fn the_longest_request_comes_first_and_its_stacks_are_shown_on_a_key() {
    let (pool, mut slow) = busy_pool();
    let mut top = on_terminal(&pool, (12, 100), "");
    top.await_output("1 pool, 1 of 2 threads busy");
    top.await_output("\u{1b}[7mapp ");
    press(&top, "\r");
    top.await_output("    application (/");
    top.await_output("Esc: back");
    press(&top, "\u{1b}");
    press(&top, "p\u{1b}[B");
    top.await_output(" idle ");
    press(&top, "q");
    let screen = end(top, 0);
    let selected = screen.split("\u{1b}[7m").nth(1).unwrap();
    assert!(selected.contains(" busy ") && selected.contains(" GET /slow?\\u{1b}"), "{selected}");
    // Nothing that a client has sent has an effect on the terminal.
    assert!(!screen.contains('\u{7}') && !screen.contains("\u{1b}]"), "{screen:?}");
    pool.open_gate();
    assert!(slow.response().text().starts_with("/slow"));
    pool.stop();
}

#[test]
fn no_line_is_wider_than_a_narrow_terminal_and_a_new_size_is_used() {
    let (pool, _slow) = busy_pool();
    let mut top = on_terminal(&pool, (3, 20), "app");
    top.await_output("\u{1b}[7mapp ");
    press(&top, "q");
    let screen = end(top, 0);
    let pages: Vec<&str> = screen.split("\u{1b}[H").skip(1).collect();
    for page in pages {
        let lines: Vec<&str> = page.split("\r\n").collect();
        assert_eq!(lines.len(), 3, "{page:?}");
        for line in lines {
            let text = line.replace("\u{1b}[7m", "").replace("\u{1b}[0m", "");
            let text = text.replace("\u{1b}[K", "").replace("\u{1b}[J", "").replace('\r', "");
            assert!(text.chars().count() <= 20, "{text:?}");
        }
    }
    pool.signal(Signal::QUIT);
}

#[test]
fn the_terminal_is_restored_after_a_signal_and_while_a_pool_does_not_answer() {
    let (pool, _slow) = busy_pool();
    for (number, sent) in [(143, Signal::TERM), (129, Signal::HUP), (130, Signal::INT)] {
        let mut top = on_terminal(&pool, (24, 80), "");
        top.await_output("\u{1b}[7mapp ");
        let shell = children(top.pid().as_raw_nonzero().get())[0];
        signal(children(shell)[0], sent);
        end(top, number);
    }
    pool.signal(Signal::STOP);
    let mut top = on_terminal(&pool, (24, 80), "");
    top.await_output("asking the pools");
    press(&top, "\u{3}");
    end(top, 0);
    pool.signal(Signal::CONT);
    pool.signal(Signal::QUIT);
}

#[test]
fn the_shell_has_its_terminal_while_the_view_is_suspended() {
    let (pool, _slow) = busy_pool();
    let mut top = on_terminal(&pool, (24, 80), "");
    top.await_output("\u{1b}[7mapp ");
    let shell = children(top.pid().as_raw_nonzero().get())[0];
    let view = children(shell)[0];
    let is_stopped = || {
        let stat = std::fs::read_to_string(format!("/proc/{view}/stat")).unwrap_or_default();
        stat.contains(") T ")
    };
    signal(view, Signal::TSTP);
    top.await_output("\u{1b}[?1049l");
    eventually("the view is stopped", is_stopped);
    signal(view, Signal::CONT);
    eventually("the view goes on", || !is_stopped());
    press(&top, "q");
    end(top, 0);
    pool.signal(Signal::QUIT);
}

#[test]
fn a_pipe_gets_one_table_of_text_or_as_many_as_are_asked_for() {
    let (pool, mut slow) = busy_pool();
    let ended = pool.run_wsgate(&["top"]);
    assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
    let text = ended.text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "1 pool, 1 of 2 threads busy");
    assert!(lines[2].contains(" busy ") && lines[2].contains(" GET /slow?\\u{1b}]0;"), "{text}");
    assert_eq!((lines.len(), text.contains('\u{1b}')), (4, false), "{text}");
    let twice = pool.run_wsgate(&["top", "app", "-n", "2", "--interval", "1", "--sort", "pid"]);
    assert_eq!(twice.text().matches("1 pool, ").count(), 2, "{}", twice.text());
    let other = pool.run_wsgate(&["top", "other"]);
    assert_eq!(other.code(), Some(0));
    assert!(other.text().contains("no pool named `other` runs"), "{}", other.text());
    for wrong in [["--interval", "0"], ["-n", "0"], ["--sort", "name"]] {
        assert_eq!(pool.run_wsgate(&["top", wrong[0], wrong[1]]).code(), Some(2), "{wrong:?}");
    }
    pool.open_gate();
    assert!(slow.response().text().starts_with("/slow"));
    eventually("the request is over", || {
        pool.run_wsgate(&["top"]).text().starts_with("1 pool, 0 of 2 threads busy")
    });
    pool.stop();
}

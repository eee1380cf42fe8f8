//! An application on a terminal: debuggers and `input()` read what a person types.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use crate::{
    call::Shell,
    support::{child_process, install_dir::InstallDir},
};

/// A terminal of tmux with a shell in it.
struct Tmux<'a> {
    dir: &'a InstallDir,
}

impl<'a> Tmux<'a> {
    fn start(dir: &'a InstallDir) -> Self {
        let tmux = Self { dir };
        let site = dir.path("site");
        let shell = "env -i PATH=/usr/bin:/bin TERM=screen LC_ALL=C.UTF-8 PS1='$ ' \
            bash --norc --noprofile";
        tmux.run(&["new-session", "-d", "-x", "120", "-y", "50", "-c", path(&site), shell]);
        tmux.await_text("$ ");
        tmux
    }

    #[track_caller]
    fn run(&self, args: &[&str]) -> String {
        let mut command = Command::new("tmux");
        command.args(["-f", "/dev/null", "-S", path(&self.dir.path("tmux"))]).args(args);
        let ended = child_process::run(&mut command, "");
        assert_eq!(ended.code(), Some(0), "{args:?}: {}", ended.stderr);
        ended.text()
    }

    /// Types `text` and Enter.
    fn enter(&self, text: &str) {
        self.run(&["send-keys", "-l", text]);
        self.run(&["send-keys", "Enter"]);
    }

    /// Waits until the screen ends with `text`.
    #[track_caller]
    fn await_text(&self, text: &str) {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let screen = self.run(&["capture-pane", "-p"]);
            if screen.trim_end().ends_with(text.trim_end()) {
                return;
            }
            assert!(Instant::now() < deadline, "no `{text}` at the end of: {screen}");
            std::thread::yield_now();
        }
    }
}

impl Drop for Tmux<'_> {
    fn drop(&mut self) {
        self.run(&["kill-server"]);
    }
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn shell_with_a_breakpoint() -> Shell {
    let shell = Shell::new();
    shell.file(
        "stops.wsgi",
        "
        def application(environ, start_response):
            value = 6 * 7
            breakpoint()
            name = input('name? ')
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [f'{value} {name}\\n'.encode()]
        ",
    );
    shell
}

#[test]
fn breakpoint_and_input_read_from_the_terminal() {
    let shell = shell_with_a_breakpoint();
    let tmux = Tmux::start(&shell.dir);
    tmux.enter(&format!("{} call stops.wsgi; echo exit $?", shell.dir.wsgate().display()));
    tmux.await_text("(Pdb)");
    tmux.enter("p value");
    tmux.await_text("42\n(Pdb)");
    tmux.enter("value = 43");
    tmux.await_text("(Pdb)");
    tmux.enter("c");
    tmux.await_text("name?");
    tmux.enter("ada");
    tmux.await_text("name? ada\n43 ada\nexit 0\n$");
    // The shell has its terminal back.
    tmux.enter("read -p 'line? ' line; echo \"<$line>\"");
    tmux.await_text("line?");
    tmux.enter("typed");
    tmux.await_text("<typed>\n$");
}

#[test]
fn a_debugger_can_be_suspended_and_interrupted() {
    let shell = shell_with_a_breakpoint();
    let tmux = Tmux::start(&shell.dir);
    tmux.enter(&format!("{} call stops.wsgi", shell.dir.wsgate().display()));
    tmux.await_text("(Pdb)");
    tmux.run(&["send-keys", "C-z"]);
    tmux.await_text("$");
    tmux.enter("fg");
    tmux.enter("p value + 1");
    tmux.await_text("43\n(Pdb)");
    tmux.enter("q");
    tmux.await_text("$");
    tmux.enter("clear; echo exit $?");
    tmux.await_text("exit 0\n$");
}

#[test]
fn an_application_that_reads_nothing_is_interrupted_by_control_c() {
    let shell = Shell::new();
    shell.file("hangs.wsgi", "import signal\nprint('works')\nsignal.pause()\n");
    let tmux = Tmux::start(&shell.dir);
    tmux.enter(&format!("{} call -s hangs.wsgi; echo exit $?", shell.dir.wsgate().display()));
    tmux.await_text("works");
    tmux.run(&["send-keys", "C-c"]);
    tmux.await_text("exit 130\n$");
}

#[test]
fn without_a_terminal_there_is_no_input() {
    let shell = shell_with_a_breakpoint();
    let ended = child_process::run(&mut shell.call(&["stops.wsgi"]), "c\nada\n");
    assert_eq!(ended.code(), Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("bdb.BdbQuit"), "{}", ended.stderr);
}

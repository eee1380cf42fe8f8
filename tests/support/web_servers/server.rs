//! The process of a web server: a free port, readiness, and its end.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::support::waiting::{DEADLINE, exits_within};

/// A web server that answers.
pub(crate) struct ServerProcess {
    child: Child,
    address: SocketAddr,
    log: PathBuf,
}

impl ServerProcess {
    /// Starts what `command` makes for a port; it must stay in the foreground and write `pid_file`
    /// once it listens.
    pub(crate) fn start(
        pid_file: &Path,
        log: &Path,
        mut command: impl FnMut(u16) -> Command,
    ) -> Self {
        for _ in 0..5 {
            // Free now. If another program takes it before the server does, the server exits, and
            // another port is tried.
            let port =
                TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
            let mut command = command(port);
            let child = command
                .spawn()
                .unwrap_or_else(|error| panic!("{command:?}: {error}: run tests/setup.sh"));
            let mut server =
                Self { child, address: (Ipv4Addr::LOCALHOST, port).into(), log: log.to_owned() };
            if server.becomes_ready(pid_file) {
                return server;
            }
        }
        panic!("the server does not start:\n{}", fs::read_to_string(log).unwrap_or_default());
    }

    /// The address of `path`.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The content of the error log so far.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Waits for the pid file and a connection; false if the server has ended instead.
    fn becomes_ready(&mut self, pid_file: &Path) -> bool {
        let pid = self.child.id().cast_signed();
        let start = Instant::now();
        while start.elapsed() < DEADLINE {
            // A connection alone could be another's, who has taken the port.
            let ours =
                fs::read_to_string(pid_file).is_ok_and(|text| text.trim() == pid.to_string());
            if ours && TcpStream::connect_timeout(&self.address, Duration::from_secs(1)).is_ok() {
                return true;
            }
            if exits_within(pid, Duration::from_millis(5)) {
                self.child.wait().unwrap();
                return false;
            }
        }
        panic!("the server starts and never listens");
    }

    /// Ends the server and all of its processes.
    pub(crate) fn stop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        let pid = self.child.id().cast_signed();
        let group = Pid::from_child(&self.child);
        // The server may have ended by itself meanwhile.
        let _ = kill_process(group, Signal::TERM);
        // A server that ignores SIGTERM must not outlive the test. The process group keeps its
        // number until its leader is waited for.
        exits_within(pid, Duration::from_secs(10));
        let _ = kill_process_group(group, Signal::KILL);
        let _ = self.child.wait();
    }
}

impl Drop for ServerProcess {
    #[expect(clippy::print_stderr, reason = "a failed test shows what the server has to say")]
    fn drop(&mut self) {
        self.stop();
        if std::thread::panicking() {
            eprintln!("{}:\n{}", self.log.display(), self.log());
        }
    }
}

/// A command for a server: in the environment of an init system rather than of the user who runs
/// the tests, with what it says at start in its log.
pub(crate) fn command(name: &str, log: &Path) -> Command {
    let mut command = Command::new("setpriv");
    // A test run that is interrupted takes its servers along.
    command.args(["--pdeathsig", "TERM", "--"]).arg(program(name));
    // Apache ends its whole process group, and the tests are not to be in it.
    command.process_group(0);
    command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    let log = fs::File::options().create(true).append(true).open(log).unwrap();
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    command
}

/// The program `name`, in the directories of servers too: those are not on everybody's PATH.
fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.exists())
        .unwrap_or_else(|| panic!("no `{name}` on this machine: run tests/setup.sh"))
}

//! A process that a test talks to. It cannot hang the test: every wait has a deadline. It cannot
//! outlive it either.

use std::{
    fs::File,
    io::{Read, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::mpsc::{
        Receiver, RecvTimeoutError, {self},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open},
};

use crate::support::waiting::DEADLINE;

/// A process that runs.
pub(crate) struct RunningProcess {
    child: Child,
    /// Its standard input, if that is a pipe.
    pub(crate) stdin: Option<ChildStdin>,
    stdout: OutputReader,
    stderr: OutputReader,
}

/// A process that has ended, and what it wrote to the streams that were pipes.
#[derive(Debug)]
pub(crate) struct ExitedProcess {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl ExitedProcess {
    /// Standard output as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The exit code; none after a signal.
    pub(crate) fn code(&self) -> Option<i32> {
        self.status.code()
    }
}

/// A place where processes wait until the test lets them go on: a named pipe that they read a line
/// from.
pub(crate) struct Gate {
    path: PathBuf,
    pipe: File,
}

impl Gate {
    /// A closed gate in `directory`.
    pub(crate) fn new(directory: &Path) -> Self {
        let path = directory.join("gate");
        assert!(
            Command::new("mkfifo").args(["-m", "666"]).arg(&path).status().unwrap().success(),
            "mkfifo"
        );
        // Open for both, so that nobody ever waits for another end to be opened.
        let pipe = File::options().read(true).write(true).open(&path).unwrap();
        Self { path, pipe }
    }

    /// The path of the pipe that processes read the line from.
    pub(crate) fn path(&self) -> &str {
        self.path.to_str().unwrap()
    }

    /// Lets one process pass, whether it is here already or comes later.
    pub(crate) fn open(&self) {
        (&self.pipe).write_all(b"\n").unwrap();
    }
}

/// Collects the output of a process on one of its streams.
struct OutputReader {
    pieces: Receiver<Vec<u8>>,
    bytes: Vec<u8>,
    over: bool,
}

/// Runs `command` to its end, with `input` on its standard input.
#[track_caller]
pub(crate) fn run(command: &mut Command, input: impl Into<Vec<u8>>) -> ExitedProcess {
    let mut running = RunningProcess::start(piped(command));
    running.give(input);
    running.end()
}

/// `command`, with pipes for its standard streams.
pub(crate) fn piped(command: &mut Command) -> &mut Command {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped())
}

/// The commands in `script`, on a terminal of script(1), with the variables that they need.
pub(crate) fn on_terminal(script: &str) -> Command {
    let mut command = Command::new("script");
    command
        .args(["--quiet", "--flush", "--command", script, "/dev/null"])
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("SHELL", "/bin/sh")
        .env("TERM", "xterm");
    command
}

impl RunningProcess {
    /// Starts `command`, whose streams have been decided on.
    #[track_caller]
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self {
            stdin: child.stdin.take(),
            stdout: OutputReader::of(child.stdout.take()),
            stderr: OutputReader::of(child.stderr.take()),
            child,
        }
    }

    /// Writes `input` to its standard input and closes that, beside everything else: it need not be
    /// read.
    pub(crate) fn give(&mut self, input: impl Into<Vec<u8>>) {
        let (mut stdin, input) = (self.stdin.take().unwrap(), input.into());
        // The end of the process ends this thread, too.
        thread::spawn(move || drop(stdin.write_all(&input)));
    }

    /// Waits until its standard output holds `word`.
    #[track_caller]
    pub(crate) fn await_output(&mut self, word: &str) {
        let met = self.stdout.read_until(word, Instant::now() + DEADLINE);
        assert!(met, "no `{word}` on standard output: {}", self.so_far());
    }

    /// Waits until its standard error holds `word`.
    #[track_caller]
    pub(crate) fn await_log(&mut self, word: &str) {
        let met = self.stderr.read_until(word, Instant::now() + DEADLINE);
        assert!(met, "no `{word}` on standard error: {}", self.so_far());
    }

    /// Waits until its standard error holds `word` so many times.
    #[track_caller]
    pub(crate) fn await_log_times(&mut self, word: &str, times: usize) {
        let deadline = Instant::now() + DEADLINE;
        while self.log().matches(word).count() < times {
            let met = !self.stderr.over && self.stderr.read_more(deadline);
            assert!(met, "`{word}` is not {times} times on standard error: {}", self.so_far());
        }
    }

    /// Waits until every holder of its standard output has closed it, and returns all output.
    #[track_caller]
    pub(crate) fn await_end_of_output(&mut self) -> &[u8] {
        let met = self.stdout.read_to_end(Instant::now() + DEADLINE);
        assert!(met, "standard output is not closed: {}", self.so_far());
        &self.stdout.bytes
    }

    /// The content of its standard error so far.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&self.stderr.bytes).into_owned()
    }

    /// The content of its standard output so far.
    pub(crate) fn output(&self) -> String {
        String::from_utf8_lossy(&self.stdout.bytes).into_owned()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Waits for its end and for that of everything that holds its streams.
    #[track_caller]
    pub(crate) fn end(mut self) -> ExitedProcess {
        self.stdin = None;
        let deadline = Instant::now() + DEADLINE;
        let met = self.stdout.read_to_end(deadline) && self.stderr.read_to_end(deadline);
        assert!(met, "it does not come to an end: {}", self.so_far());
        let has_ended = match pidfd_open(self.pid(), PidfdFlags::empty()) {
            Ok(ended) => {
                let limit =
                    Timespec::try_from(deadline.saturating_duration_since(Instant::now())).unwrap();
                poll(&mut [PollFd::new(&ended, PollFlags::IN)], Some(&limit)).unwrap() > 0
            }
            // The emulated kernel has no such thing.
            Err(_) => loop {
                match self.child.try_wait().unwrap() {
                    Some(_) => break true,
                    None if Instant::now() > deadline => break false,
                    None => thread::sleep(Duration::from_millis(5)),
                }
            },
        };
        assert!(has_ended, "it closes its streams and goes on: {}", self.so_far());
        ExitedProcess {
            status: self.child.wait().unwrap(),
            stdout: std::mem::take(&mut self.stdout.bytes),
            stderr: self.log(),
        }
    }

    fn so_far(&self) -> String {
        format!("{:?}\n{}", String::from_utf8_lossy(&self.stdout.bytes), self.log())
    }
}

impl Drop for RunningProcess {
    fn drop(&mut self) {
        // After a failure it may run still; otherwise both do nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl OutputReader {
    fn of(source: Option<impl Read + Send + 'static>) -> Self {
        let (sender, pieces) = mpsc::channel();
        let over = source.is_none();
        if let Some(mut source) = source {
            thread::spawn(move || {
                let mut piece = vec![0; 64 * 1024];
                while let Ok(length @ 1..) = source.read(&mut piece) {
                    if sender.send(piece[..length].to_vec()).is_err() {
                        break;
                    }
                }
            });
        }
        Self { pieces, bytes: Vec::new(), over }
    }

    /// Reads until `word` has come; tells whether it came before the end and before `deadline`.
    fn read_until(&mut self, word: &str, deadline: Instant) -> bool {
        let holds =
            |bytes: &[u8]| bytes.windows(word.len()).any(|window| window == word.as_bytes());
        while !holds(&self.bytes) {
            if self.over || !self.read_more(deadline) {
                return false;
            }
        }
        true
    }

    /// Reads to the end; tells whether that came before `deadline`.
    fn read_to_end(&mut self, deadline: Instant) -> bool {
        while !self.over {
            if !self.read_more(deadline) {
                return false;
            }
        }
        true
    }

    /// Waits for the next piece or the end; tells whether one of them came before `deadline`.
    fn read_more(&mut self, deadline: Instant) -> bool {
        match self.pieces.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(piece) => self.bytes.extend(piece),
            Err(RecvTimeoutError::Disconnected) => self.over = true,
            Err(RecvTimeoutError::Timeout) => return false,
        }
        true
    }
}

//! `wsgate top`: a live view of the workers of all pools.

mod fetcher;
mod screen;
mod table;

use std::{
    io::{self, Write as _},
    os::fd::AsFd as _,
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use control::process_stacks::ProcessStacks;
use diagnostics::{
    escape::Escaped,
    message::{Code, LogMessage},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    stdio::stdin,
};
use signal_hook::low_level::emulate_default_handler;

use crate::{
    config::options::{count, seconds},
    exit::{CommandError, Exit},
    pool::{
        args::name_with_user,
        stacks_command::Shown,
        top::{
            fetcher::{Answer, Fetcher, Question, answer},
            screen::{Key, Screen},
            table::{Row, Snapshot, SortKey},
        },
    },
    system::signals::SignalPipe,
};

/// Signals that end the command, after the terminal was restored.
const ENDING: [Signal; 4] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT];

/// The last line of the screen.
const KEYS: &str = "sort: time, requests, cpu, memory, pid   arrows, Enter: stacks   q: quit";
const KEYS_OF_STACKS: &str = "arrows: scroll   Esc: back   q: quit";

/// Lowest terminal whose last line shows the keys.
const MIN_HEIGHT_WITH_KEYS: usize = 5;

/// The arguments of `wsgate top`.
#[derive(Args, Clone, Debug)]
pub(crate) struct TopArgs {
    /// Name of the pool to show, or USER/NAME [default: all pools; those of all users for root]
    #[arg(value_name = "POOL", value_parser = name_with_user)]
    pool: Option<String>,

    /// Show the workers COUNT times, and exit [default: without limit on a terminal, otherwise 1]
    ///
    /// If standard output is no terminal, each time is a table of text.
    #[arg(short = 'n', long, value_name = "COUNT", help_heading = "Output",
        value_parser = count(1, u32::MAX))]
    count: Option<u32>,

    /// Wait SECONDS from one time to the next
    #[arg(long, value_name = "SECONDS", help_heading = "Output", default_value_t = 1,
        value_parser = seconds(1))]
    interval: u64,

    /// Show the workers sorted by KEY
    #[arg(long, value_name = "KEY", value_enum, help_heading = "Output",
        default_value_t = SortKey::Time)]
    sort: SortKey,
}

/// Shows the workers of pools until the user quits.
///
/// # Errors
/// If the terminal or standard output cannot be written.
pub(crate) fn run(args: &TopArgs) -> Result<Exit, CommandError> {
    let shown = if Screen::is_possible() { run_on_screen(args) } else { print_tables(args) };
    match shown {
        Ok(()) => Ok(Exit::Success),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Exit::Success),
        Err(error) => Err(CommandError::failed(
            LogMessage::new(Code::NotWritten, format!("the workers cannot be shown: {error}"))
                .hint("check what standard output is connected to"),
        )),
    }
}

/// Writes the table to a file or pipe.
fn print_tables(args: &TopArgs) -> io::Result<()> {
    for number in 0..args.count.unwrap_or(1) {
        if number > 0 {
            thread::sleep(Duration::from_secs(args.interval));
        }
        let Answer::Status(snapshot) = answer(Question::Status(args.pool.clone())) else {
            continue;
        };
        let rows = snapshot.rows(args.sort);
        let lines = snapshot.lines(&rows, None, (usize::MAX, usize::MAX));
        let gap = if number > 0 { "\n" } else { "" };
        let mut output = io::stdout().lock();
        output.write_all(format!("{gap}{}\n", lines.join("\n")).as_bytes())?;
        output.flush()?;
    }
    Ok(())
}

fn run_on_screen(args: &TopArgs) -> io::Result<()> {
    let all = [&ENDING[..], &[Signal::SIGWINCH, Signal::SIGCONT, Signal::SIGTSTP]].concat();
    let recorded = [&ENDING[..], &[Signal::SIGTSTP]].concat();
    let signals = SignalPipe::recording(&all, &recorded)?;
    let mut fetcher = Fetcher::start()?;
    let mut view = View::new(args);
    let screen = Screen::enter()?;
    let (mut due, mut left) = (Instant::now(), args.count);
    let mut asked = None;
    let ended_by = loop {
        if asked.is_none() && Instant::now() >= due {
            fetcher.ask(view.question());
            asked = Some(view.question());
        }
        Screen::show(&view.lines(Screen::size()))?;
        if left == Some(0) {
            break None;
        }
        let wait = asked.is_none().then(|| due.saturating_duration_since(Instant::now()));
        let wait = wait.and_then(|wait| Timespec::try_from(wait).ok());
        let input = stdin();
        let keys = screen.has_keys().then(|| input.as_fd());
        let watched = [signals.as_fd(), fetcher.as_fd()].into_iter().chain(keys);
        let mut watched: Vec<_> =
            watched.map(|it| PollFd::from_borrowed_fd(it, PollFlags::IN)).collect();
        // A signal that interrupts the wait is in the pipe.
        let _ = poll(&mut watched, wait.as_ref());
        let has_input = watched.get(2).is_some_and(|keys| !keys.revents().is_empty());
        if signals.received() {
            match signals.take_last() {
                // The shell gets its terminal back until it continues this process.
                Some(Signal::SIGTSTP) => {
                    screen.leave();
                    kill(Pid::this(), Signal::SIGSTOP)?;
                }
                Some(signal) => break Some(signal),
                None => {}
            }
            screen.enter_again()?;
        }
        if let Some(answer) = fetcher.answer() {
            // Another page may be shown by now, whose content is needed at once.
            let is_of_page = asked.take().is_some_and(|question| question == view.question());
            let pause = if is_of_page { args.interval } else { 0 };
            due = Instant::now() + Duration::from_secs(pause);
            left = left.map(|left| left - 1);
            view.accept(answer);
        }
        let keys = if has_input { Screen::keys() } else { Vec::new() };
        if keys.contains(&Key::Quit) {
            break None;
        }
        for key in keys {
            if view.on_key(key) {
                due = Instant::now();
            }
        }
    };
    drop(screen);
    match ended_by {
        // The shell sees how the command ended.
        Some(signal) => emulate_default_handler(signal as i32),
        None => Ok(()),
    }
}

/// What the screen shows.
struct View {
    pool: Option<String>,
    sort: SortKey,
    /// `None` until the pools answer.
    snapshot: Option<Snapshot>,
    rows: Vec<Row>,
    selected: usize,
    /// The user has moved the selection, which stays at its row then.
    has_selected: bool,
    /// The process whose stacks are shown.
    opened: Option<OpenedProcess>,
}

/// A process whose stacks are shown.
struct OpenedProcess {
    pool: String,
    pid: i32,
    /// The stacks, or why there are none; `None` until the pool answers.
    stacks: Option<Result<Vec<ProcessStacks>, String>>,
    /// Lines above the screen.
    scroll: usize,
}

impl View {
    fn new(args: &TopArgs) -> Self {
        Self {
            pool: args.pool.clone(),
            sort: args.sort,
            snapshot: None,
            rows: Vec::new(),
            selected: 0,
            has_selected: false,
            opened: None,
        }
    }

    /// What must be known for the present page.
    fn question(&self) -> Question {
        match &self.opened {
            Some(process) => Question::Stacks(process.pool.clone(), process.pid),
            None => Question::Status(self.pool.clone()),
        }
    }

    fn accept(&mut self, answer: Answer) {
        match (answer, &mut self.opened) {
            (Answer::Status(snapshot), _) => {
                self.snapshot = Some(snapshot);
                self.sort_rows();
            }
            (Answer::Stacks(stacks), Some(opened)) => {
                // The answer may be about the process of the page before.
                let is_of_page = stacks.as_ref().is_ok_and(|processes| {
                    processes.iter().any(|process| process.pid == opened.pid)
                });
                if is_of_page || stacks.is_err() {
                    opened.stacks = Some(stacks);
                }
            }
            (Answer::Stacks(_), None) => {}
        }
    }

    /// Sorts the rows; the selected thread stays selected, or another one of its process.
    fn sort_rows(&mut self) {
        let selected = self.rows.get(self.selected).cloned();
        self.rows = self.snapshot.iter().flat_map(|snapshot| snapshot.rows(self.sort)).collect();
        // Until the user selects a row, the first one is selected, whatever it is.
        if let Some(selected) = selected.filter(|_| self.has_selected) {
            let position = |is_same: &dyn Fn(&Row) -> bool| self.rows.iter().position(is_same);
            let found = position(&|row| row.thread() == selected.thread())
                .or_else(|| position(&|row| row.process() == selected.process()));
            self.selected = found.unwrap_or(self.selected).min(self.rows.len().saturating_sub(1));
        }
    }

    /// Handles a key. Returns whether another page is to be shown.
    fn on_key(&mut self, key: Key) -> bool {
        if let Some(opened) = &mut self.opened {
            match key {
                Key::Move(lines) => opened.scroll = opened.scroll.saturating_add_signed(lines),
                Key::Back => {
                    self.opened = None;
                    return true;
                }
                _ => {}
            }
            return false;
        }
        match key {
            Key::Move(lines) => {
                let last = self.rows.len().saturating_sub(1);
                self.selected = self.selected.saturating_add_signed(lines).min(last);
                self.has_selected = true;
            }
            Key::Open => {
                self.opened = self.rows.get(self.selected).map(|row| {
                    let (pool, pid) = row.process();
                    OpenedProcess { pool, pid, stacks: None, scroll: 0 }
                });
                return self.opened.is_some();
            }
            Key::Character(character) => {
                let sort = match character {
                    't' => SortKey::Time,
                    'r' => SortKey::Requests,
                    'c' => SortKey::Cpu,
                    'm' => SortKey::Memory,
                    'p' => SortKey::Pid,
                    _ => return false,
                };
                self.sort = sort;
                self.sort_rows();
            }
            Key::Back | Key::Quit => {}
        }
        false
    }

    /// The lines of the present page, the keys at the end.
    fn lines(&mut self, (width, height): (usize, usize)) -> Vec<String> {
        // A low terminal shows a row in place of the keys.
        let shows_keys = height >= MIN_HEIGHT_WITH_KEYS;
        let room = height.saturating_sub(usize::from(shows_keys)).max(1);
        let (mut lines, keys) = match &mut self.opened {
            Some(opened) => (opened.lines(room), KEYS_OF_STACKS),
            None => {
                let selected = (!self.rows.is_empty()).then_some(self.selected);
                let lines = match &self.snapshot {
                    Some(snapshot) => snapshot.lines(&self.rows, selected, (width, room)),
                    None => vec!["asking the pools".chars().take(width).collect()],
                };
                (lines, KEYS)
            }
        };
        lines.resize(room, String::new());
        if shows_keys {
            lines.push(keys.chars().take(width).collect());
        }
        lines
    }
}

impl OpenedProcess {
    fn lines(&mut self, room: usize) -> Vec<String> {
        let text = match &self.stacks {
            None => format!("asking process {} for its stacks", self.pid),
            Some(Err(reason)) => Escaped(reason).to_string(),
            Some(Ok(processes)) => {
                processes.iter().map(|process| Shown(process).to_string()).collect()
            }
        };
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        self.scroll = self.scroll.min(lines.len().saturating_sub(room));
        lines.into_iter().skip(self.scroll).take(room).collect()
    }
}

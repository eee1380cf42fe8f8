//! The log files of a process of a pool, which are opened again when a rotation has renamed them.
//!
//! The supervisor opens a file again, and then counts that in the scoreboard. Whoever is about to
//! write compares; so no line goes to the old file once the supervisor has said that there is a new
//! one. An event wakes those that have nothing to write.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd},
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use diagnostics::{
    error_log::await_reader,
    message::{Code, LogMessage},
};
use rustix::{
    fs::fstat,
    io::{Errno, write},
    stdio::{dup2_stderr, dup2_stdout, stderr, stdout},
};
use wire::{
    pool_logs::{LineFormat, LogKind, open_file, set_nonblocking},
    scoreboard::{OneTimeWarning, Scoreboard},
};

use crate::{
    log::{
        Log, {self},
    },
    process::forks::{
        Descriptor, {self},
    },
};

/// How long a line waits for somebody to read a pipe that is full.
const READER_TIME_LIMIT: Duration = Duration::from_secs(1);

/// How often a log that cannot be written may be told of.
const SELDOM: Duration = Duration::from_secs(60);

static FILES: OnceLock<Files> = OnceLock::new();

/// The files of this process.
struct Files {
    scoreboard: Scoreboard,
    error: Option<Place>,
    access: Option<Access>,
    bell: Option<Descriptor>,
}

/// Where a file is, and which one is open.
struct Place {
    which: LogKind,
    path: Vec<u8>,
    generation: AtomicU32,
}

struct Access {
    form: LineFormat,
    file: Option<(Place, Mutex<Sink>)>,
}

/// An open access log.
struct Sink {
    file: Descriptor,
    /// A part of a line was written last, since the disk was full.
    torn: bool,
    /// When it was last said that lines are lost.
    told: Option<Instant>,
    /// Lines that were lost since it was last said how many.
    lost: u64,
    /// Nobody has read for so long that no line waits any more.
    is_stuck: bool,
}

/// What is to be said of an access log.
enum Trouble {
    /// Lines are lost, for this reason.
    Losing(Errno),
    /// So many were.
    Lost(u64),
}

/// Descriptors that were handed over for the logs.
pub(crate) struct Handed {
    /// The access log.
    pub(crate) access: Option<Descriptor>,
    /// Rings when files are to be opened again.
    pub(crate) bell: Option<Descriptor>,
}

/// Takes the files of this process over, once.
///
/// # Errors
/// If the scoreboard cannot be mapped.
pub(crate) fn take_over(
    logs: &wire::pool_logs::PoolLogs,
    handed: Handed,
    scoreboard: BorrowedFd<'_>,
) -> io::Result<()> {
    let place = |which, path: &[u8], generation: u32| Place {
        which,
        path: path.to_vec(),
        generation: AtomicU32::new(generation),
    };
    let files = Files {
        scoreboard: Scoreboard::attach(scoreboard.try_clone_to_owned()?)?,
        error: logs
            .error
            .as_ref()
            .map(|(path, generation)| place(LogKind::Error, path, *generation)),
        access: logs.access.as_ref().map(|access| Access {
            form: access.format,
            file: access.file.as_ref().zip(handed.access).map(|(file, descriptor)| {
                let sink =
                    Sink { file: descriptor, torn: false, told: None, lost: 0, is_stuck: false };
                (place(LogKind::Access, &file.path, file.generation), Mutex::new(sink))
            }),
        }),
        bell: handed.bell,
    };
    // There are none yet: this is called once.
    drop(FILES.set(files));
    Ok(())
}

/// Opens again what the supervisor has opened again since.
pub(crate) fn look() {
    // A child that the application has forked may have led its standard streams elsewhere.
    if let Some(files) = FILES.get().filter(|_| !forks::is_child()) {
        files.look();
    }
}

/// Is this the first call for this warning in the life of the pool, or of a process that belongs to
/// none?
pub(crate) fn is_first_warning(warning: OneTimeWarning) -> bool {
    static WARNED: AtomicU32 = AtomicU32::new(0);
    match FILES.get() {
        Some(files) => files.scoreboard.is_first_warning(warning),
        None => WARNED.fetch_or(warning.bit(), Ordering::Relaxed) & warning.bit() == 0,
    }
}

/// Rings when [`look`] is due, again and again once it has rung: only edges of it mean something.
pub(crate) fn bell() -> Option<BorrowedFd<'static>> {
    Some(FILES.get()?.bell.as_ref()?.as_fd())
}

/// The form of the access log's lines, if there is an access log.
pub(crate) fn access_form() -> Option<LineFormat> {
    Some(FILES.get()?.access.as_ref()?.form)
}

/// Writes one whole line, with its end, to the access log.
pub(crate) fn write_access(line: &[u8]) {
    let Some(access) = FILES.get().and_then(|files| files.access.as_ref()) else {
        return;
    };
    let Some((_, sink)) = &access.file else {
        return log::write_all(line);
    };
    look();
    let trouble = lock(sink).write(line);
    let entry = match trouble {
        None => return,
        Some(Trouble::Losing(Errno::AGAIN)) => LogMessage::warning(
            Code::AccessNotLogged,
            "lines of the access log are lost: nobody reads it",
        )
        .hint("see what the program that reads it waits for; this is told once a minute"),
        Some(Trouble::Losing(error)) => LogMessage::warning(
            Code::AccessNotLogged,
            format!("lines of the access log are lost: {}", io::Error::from(error)),
        )
        .hint("make room on its disk; this is told once a minute"),
        Some(Trouble::Lost(count)) => LogMessage::warning(
            Code::AccessNotLogged,
            format!(
                "the access log is written again; lines of this process that were lost: {count}"
            ),
        )
        .hint("an entry above says why"),
    };
    Log::new("-", "(access log)").entry(&entry);
}

impl Files {
    fn look(&self) {
        if let Some(place) = self.error.as_ref().filter(|place| place.is_old(&self.scoreboard)) {
            place.reopen(|file| {
                let files = [stdout(), stderr(), forks::log()];
                let [printed, errors, logged] =
                    files.map(|file| fstat(file).map(|stat| (stat.st_dev, stat.st_ino)));
                // What is printed goes to the same file, unless the application has led it
                // elsewhere.
                if printed.is_ok() && printed == logged {
                    dup2_stdout(&file)?;
                }
                if errors.is_ok() && errors == logged {
                    dup2_stderr(&file)?;
                }
                forks::lead_log(file.as_fd());
                Ok(())
            });
            forks::keep_standard();
        }
        if let Some((place, sink)) = self.access.as_ref().and_then(|access| access.file.as_ref())
            && place.is_old(&self.scoreboard)
        {
            place.reopen(|file| {
                set_nonblocking(&file)?;
                lock(sink).file = file;
                Ok(())
            });
        }
    }
}

impl Place {
    /// Has another thread not seen yet that there is a new file?
    fn is_old(&self, scoreboard: &Scoreboard) -> bool {
        let generation = scoreboard.log_generation(self.which);
        self.generation.load(Ordering::Relaxed) != generation
            && self.generation.swap(generation, Ordering::Relaxed) != generation
    }

    fn reopen(&self, replace: impl FnOnce(Descriptor) -> io::Result<()>) {
        if let Err(error) = Descriptor::made(|| open_file(&self.path)).and_then(replace) {
            // The supervisor could.
            let path = String::from_utf8_lossy(&self.path);
            Log::new("-", "(worker)").entry(
                &LogMessage::warning(
                    Code::LogNotReopened,
                    format!("the log `{path}` cannot be opened again: {error}"),
                )
                .hint(
                    "this process goes on with the file that it has; see whether its user may \
                     write in that directory",
                ),
            );
        }
    }
}

impl Sink {
    /// Writes a line. It is lost if there is no room for it, and nobody makes some in time.
    fn write(&mut self, line: &[u8]) -> Option<Trouble> {
        // A disk that has become full tears a line; the next one is whole again.
        let mended;
        let line = if self.torn {
            mended = [b"\n", line].concat();
            &mended
        } else {
            line
        };
        let due = if self.is_stuck { None } else { Some(Instant::now() + READER_TIME_LIMIT) };
        let written = loop {
            match write(&self.file, line) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if due.is_some_and(|due| Instant::now() < due) => {
                    await_reader(self.file.as_fd(), READER_TIME_LIMIT);
                }
                written => break written,
            }
        };
        self.is_stuck = written == Err(Errno::AGAIN);
        match written {
            Ok(count) if count == line.len() => {
                self.torn = false;
                let lost = std::mem::take(&mut self.lost);
                (lost > 0).then_some(Trouble::Lost(lost))
            }
            written => {
                self.torn |= matches!(written, Ok(1..));
                self.lost += 1;
                if self.told.is_some_and(|told| told.elapsed() < SELDOM) {
                    return None;
                }
                self.told = Some(Instant::now());
                Some(Trouble::Losing(written.map_or_else(|error| error, |_| Errno::NOSPC)))
            }
        }
    }
}

fn lock(sink: &Mutex<Sink>) -> MutexGuard<'_, Sink> {
    sink.lock().unwrap_or_else(PoisonError::into_inner)
}

//! Descriptors that are the engine's own.
//!
//! A bit for each number says that the descriptor belongs to the engine. A child that the
//! application forks closes all of these before any of its code runs, and clears the bits. A value
//! that lives on in the child then closes nothing: by that time its number may be another file of
//! the application's.

use std::{
    cell::UnsafeCell,
    io,
    mem::ManuallyDrop,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize, Ordering},
    },
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

/// Numbers that can be registered: as many descriptors as Linux lets a process have by default
/// (`fs.nr_open`).
const NUMBERS: usize = 1 << 20;

const BITS: usize = u64::BITS as usize;

/// The bits. Nobody writes to most of them, and so they take no memory.
static OURS: [AtomicU64; NUMBERS / BITS] = [const { AtomicU64::new(0) }; NUMBERS / BITS];

/// How many words of `OURS` may hold a bit.
static WORDS: AtomicUsize = AtomicUsize::new(0);

/// Locked while registers and reality differ, and by each fork.
static GATE: Gate = Gate(UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER));

/// A descriptor of the engine's. It is closed on drop, except in a child that the application has
/// forked.
#[derive(Debug)]
pub(crate) struct Descriptor(ManuallyDrop<OwnedFd>);

impl Descriptor {
    /// Registers the descriptor that `make` opens. No thread forks meanwhile. `make` must not drop
    /// another [`Descriptor`].
    ///
    /// # Errors
    /// As `make`.
    pub(crate) fn made<E>(make: impl FnOnce() -> Result<OwnedFd, E>) -> Result<Self, E> {
        without_forks(|| make().map(Self::from))
    }

    /// Makes a second descriptor of the same file.
    ///
    /// # Errors
    /// If descriptors are short.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Self::made(|| self.0.try_clone())
    }

    /// Takes the descriptor out of the register: children get it from now on.
    pub(crate) fn into_owned(self) -> OwnedFd {
        let number = ManuallyDrop::new(self).0.as_raw_fd();
        take_out(number);
        // SAFETY: `self` owned the number and is never dropped. In a child, where the number may be
        // closed, nothing of the engine runs.
        unsafe { OwnedFd::from_raw_fd(number) }
    }
}

impl From<OwnedFd> for Descriptor {
    fn from(descriptor: OwnedFd) -> Self {
        let descriptor = beyond_standard(descriptor);
        put_in(descriptor.as_raw_fd());
        Self(ManuallyDrop::new(descriptor))
    }
}

/// Copies of the descriptors 0 to 2, for when the application closes these; -1 if there is none.
static STANDARD: [AtomicI32; 3] = [const { AtomicI32::new(-1) }; 3];

/// What keeps the copies.
static COPIES: Mutex<Vec<Descriptor>> = Mutex::new(Vec::new());

/// Takes copies of the descriptors 0 to 2 as they are now. Of one that is closed, or while
/// descriptors are short, there is none.
pub(crate) fn keep_standard() {
    let copies: Vec<_> = [0, 1, 2].map(|number| Descriptor::made(|| duplicate(number)).ok()).into();
    for (copy, place) in copies.iter().zip(&STANDARD) {
        place.store(copy.as_ref().map_or(-1, AsRawFd::as_raw_fd), Ordering::Relaxed);
    }
    let old = std::mem::replace(
        &mut *COPIES.lock().unwrap_or_else(PoisonError::into_inner),
        copies.into_iter().flatten().collect(),
    );
    drop(old);
}

/// The error log, at a number that no file of the application's gets: descriptor 2 may be closed,
/// and its number be a file's. -1 if there is none, as in a child that the application has forked.
static LOG: AtomicI32 = AtomicI32::new(-1);

/// Numbers from here on are given to nobody who does not ask for them, and most limits allow them.
const HIGH: RawFd = 1000;

/// Keeps the error log, which is descriptor 2 as yet.
pub(crate) fn keep_log() {
    if let Ok(log) = Descriptor::made(|| duplicate_beyond(2, HIGH).or_else(|_| duplicate(2))) {
        LOG.store(log.as_raw_fd(), Ordering::Relaxed);
        // It is open until the process ends.
        std::mem::forget(log);
    }
}

/// The error log.
pub(crate) fn log() -> BorrowedFd<'static> {
    // SAFETY: the call borrows a number, and the kernel says so if nothing has it: what is open
    // stays so.
    unsafe { BorrowedFd::borrow_raw(log_number()) }
}

/// The number of the error log, which does not change.
pub(crate) fn log_number() -> RawFd {
    match LOG.load(Ordering::Relaxed) {
        -1 => libc::STDERR_FILENO,
        number => number,
    }
}

/// From now on the error log is `file`.
pub(crate) fn lead_log(file: BorrowedFd<'_>) {
    let number = LOG.load(Ordering::Relaxed);
    // SAFETY: the number is that of the log, which nobody owns; descriptors that are borrowed of it
    // go on.
    if number >= 0 && unsafe { libc::dup3(file.as_raw_fd(), number, libc::O_CLOEXEC) } < 0 {
        // The application may have lowered the limit of descriptors.
        LOG.store(-1, Ordering::Relaxed);
    }
}

/// Writes `bytes` to the error log, as a signal handler may, unless nobody reads the log and it is
/// full: a signal handler must not wait. Tells whether there is room for more.
pub(crate) fn write_to_log(bytes: &[u8]) -> bool {
    // A pipe that has room has it for so many bytes.
    let bytes = &bytes[..bytes.len().min(libc::PIPE_BUF)];
    // SAFETY: `errno` is this thread's own; poll(2) and write(2) are async-signal-safe, and the
    // bytes are live.
    unsafe {
        let errno = *libc::__errno_location();
        let has_room = |number| {
            let mut log = libc::pollfd { fd: number, events: libc::POLLOUT, revents: 0 };
            libc::poll(&raw mut log, 1, 0) != 0
        };
        if has_room(log_number())
            && libc::write(log_number(), bytes.as_ptr().cast(), bytes.len()) < 0
            && *libc::__errno_location() == libc::EBADF
            && has_room(libc::STDERR_FILENO)
        {
            libc::write(libc::STDERR_FILENO, bytes.as_ptr().cast(), bytes.len());
        }
        let has_room = has_room(log_number());
        *libc::__errno_location() = errno;
        has_room
    }
}

/// `descriptor` with a number above 2. One below was free since the application has closed it: what
/// is printed would go there, and so what was there comes back.
fn beyond_standard(descriptor: OwnedFd) -> OwnedFd {
    let number = descriptor.as_raw_fd();
    if number > 2 || crate::process::forks::is_child() {
        return descriptor;
    }
    match duplicate(number) {
        Ok(moved) => {
            if !restore(number) {
                // Nothing else may get the number.
                let nothing = rustix::fs::open(
                    c"/dev/null",
                    rustix::fs::OFlags::RDWR,
                    rustix::fs::Mode::empty(),
                );
                // SAFETY: `number` is `descriptor`'s, whose file has a number of its own by now.
                nothing.iter().for_each(|nothing| unsafe {
                    libc::dup2(nothing.as_raw_fd(), number);
                });
            }
            // Whoever has closed one has closed others, and nothing of ours may come to have their
            // numbers.
            for other in (0..3).filter(|&other| other != number && is_closed(other)) {
                restore(other);
            }
            // The number is no longer a descriptor of ours.
            std::mem::forget(descriptor);
            moved
        }
        Err(_) => descriptor,
    }
}

/// A copy of descriptor `number`, above 2, which programs that are started do not get.
fn duplicate(number: RawFd) -> io::Result<OwnedFd> {
    duplicate_beyond(number, 3)
}

fn duplicate_beyond(number: RawFd, least: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the call borrows a number, and says so if nothing has it; the result is nobody
    // else's.
    unsafe {
        match libc::fcntl(number, libc::F_DUPFD_CLOEXEC, least) {
            -1 => Err(io::Error::last_os_error()),
            copy => Ok(OwnedFd::from_raw_fd(copy)),
        }
    }
}

fn is_closed(number: RawFd) -> bool {
    // SAFETY: the call borrows a number, and says so if nothing has it.
    unsafe { libc::fcntl(number, libc::F_GETFD) == -1 }
}

/// Puts the copy of a standard descriptor in its place.
fn restore(number: RawFd) -> bool {
    let copy = usize::try_from(number).ok().and_then(|number| STANDARD.get(number));
    let copy = copy.map_or(-1, |copy| copy.load(Ordering::Relaxed));
    // SAFETY: a standard descriptor is nobody's own; where the copy is closed, too, the kernel says
    // so.
    copy >= 0 && unsafe { libc::dup2(copy, number) } == number
}

/// This process cannot serve any more, since it has lost descriptors; and nobody has said so.
static HAS_LOST: AtomicBool = AtomicBool::new(false);
static IS_UNTOLD: AtomicBool = AtomicBool::new(false);

/// The application has closed descriptors of this process that its requests need. Was the gateway,
/// or the log, `told`?
pub(crate) fn mark_lost(told: bool) {
    HAS_LOST.store(true, Ordering::Relaxed);
    if !told {
        IS_UNTOLD.store(true, Ordering::Relaxed);
    }
}

/// Was [`mark_lost`] called?
pub(crate) fn has_lost() -> bool {
    HAS_LOST.load(Ordering::Relaxed)
}

/// Has nobody said so? Whoever asks does.
pub(crate) fn is_untold() -> bool {
    IS_UNTOLD.swap(false, Ordering::Relaxed)
}

/// Descriptors that this process needs until it ends, with what they were.
#[derive(Default)]
pub(crate) struct Inventory(Vec<(RawFd, Option<Identity>)>);

/// Device and inode of a file.
type Identity = (u64, u64);

impl Inventory {
    /// An inventory of `descriptors`.
    pub(crate) fn of<'a>(descriptors: impl IntoIterator<Item = BorrowedFd<'a>>) -> Self {
        Self(descriptors.into_iter().map(|one| (one.as_raw_fd(), identity(one))).collect())
    }

    /// Numbers behind which there is another file by now, or none.
    pub(crate) fn lost(&self) -> Vec<RawFd> {
        let now = |number| {
            // SAFETY: the call borrows a number, and says so if nothing has it.
            identity(unsafe { BorrowedFd::borrow_raw(number) })
        };
        self.0
            .iter()
            .filter(|(number, before)| now(*number) != *before)
            .map(|(number, _)| *number)
            .collect()
    }
}

/// Which file is behind `descriptor`; nothing if it is closed.
fn identity(descriptor: BorrowedFd<'_>) -> Option<Identity> {
    rustix::fs::fstat(descriptor).ok().map(|found| (found.st_dev, found.st_ino))
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        let number = self.0.as_raw_fd();
        without_forks(|| {
            if take_out(number) {
                close(number);
            }
        });
    }
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Two connected Unix sockets.
///
/// # Errors
/// If descriptors are short.
pub(crate) fn pair(kind: SocketType) -> io::Result<(Descriptor, Descriptor)> {
    without_forks(|| {
        let (one, other) = socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
        Ok((one.into(), other.into()))
    })
}

/// Runs `change` while no thread forks. A [`Descriptor`] that is dropped in there would wait for
/// itself.
pub(crate) fn without_forks<T>(change: impl FnOnce() -> T) -> T {
    struct Open;
    impl Drop for Open {
        fn drop(&mut self) {
            open_gate();
        }
    }
    shut_gate();
    let _open = Open;
    change()
}

/// Closes all descriptors of the engine's. Does nothing that a child of a process with threads may
/// not do.
pub(crate) fn close_all() {
    LOG.store(-1, Ordering::Relaxed);
    for (word, bits) in OURS.iter().take(WORDS.load(Ordering::Relaxed)).enumerate() {
        let mut left = bits.swap(0, Ordering::Relaxed);
        while left != 0 {
            if let Ok(number) = RawFd::try_from(word * BITS + left.trailing_zeros() as usize) {
                close(number);
            }
            left &= left - 1;
        }
    }
}

fn put_in(number: RawFd) {
    if let Some((word, bit)) = place(number) {
        WORDS.fetch_max(word + 1, Ordering::Relaxed);
        OURS[word].fetch_or(bit, Ordering::Relaxed);
    }
}

/// Tells whether the number was still registered. Numbers beyond the register count as such outside
/// of children.
fn take_out(number: RawFd) -> bool {
    match place(number) {
        Some((word, bit)) => OURS[word].fetch_and(!bit, Ordering::Relaxed) & bit != 0,
        None => !crate::process::forks::is_child(),
    }
}

fn place(number: RawFd) -> Option<(usize, u64)> {
    let number = usize::try_from(number).ok().filter(|&number| number < NUMBERS)?;
    Some((number / BITS, 1 << (number % BITS)))
}

fn close(number: RawFd) {
    // SAFETY: the register says that the number is the engine's, whose owner is gone or never runs
    // again.
    unsafe { libc::close(number) };
}

/// A mutex that one process locks and its child unlocks, which std's cannot do.
struct Gate(UnsafeCell<libc::pthread_mutex_t>);

// SAFETY: only the functions of pthread_mutex_lock(3) touch it, which are made for several threads.
unsafe impl Sync for Gate {}

pub(crate) fn shut_gate() {
    // SAFETY: the mutex is initialised and is never moved.
    unsafe { libc::pthread_mutex_lock(GATE.0.get()) };
}

pub(crate) fn open_gate() {
    // SAFETY: as above; the caller, or the thread that it is a copy of, has locked it.
    unsafe { libc::pthread_mutex_unlock(GATE.0.get()) };
}

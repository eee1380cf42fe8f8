//! Descriptors that belong to the engine.
//!
//! A bit for each number says that the descriptor belongs to the engine. In a child that the
//! application forks, all these descriptors are closed and the bits cleared before any code of the
//! application runs. A [`Descriptor`] that survives in the child then closes nothing, since the
//! application may have reused its number.

use std::{
    cell::UnsafeCell,
    io,
    mem::ManuallyDrop,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

use rustix::{
    io::{FdFlags, fcntl_getfd, fcntl_setfd},
    net::{AddressFamily, SocketFlags, SocketType, socketpair},
};

use crate::process::forks::{
    child_flag::is_child,
    numbers::{duplicate, move_above},
};

/// The highest number of descriptors that can be registered: the default limit of Linux for a
/// process (`fs.nr_open`).
const MAX_NUMBERS: usize = 1 << 20;

const BITS: usize = u64::BITS as usize;

/// A bit for each descriptor of the engine. Pages that are never written take no memory.
static REGISTERED: [AtomicU64; MAX_NUMBERS / BITS] =
    [const { AtomicU64::new(0) }; MAX_NUMBERS / BITS];

/// How many words of `REGISTERED` may have a bit set.
static WORDS: AtomicUsize = AtomicUsize::new(0);

/// Locked while a register differs from the kernel's state, and during each fork.
static GATE: Gate = Gate(UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER));

/// A descriptor of the engine. Dropping it closes the descriptor, except in a child that the
/// application has forked.
#[derive(Debug)]
pub(crate) struct Descriptor(ManuallyDrop<OwnedFd>);

impl Descriptor {
    /// Opens a descriptor by `make` and registers it. No thread forks meanwhile. `make` must not
    /// drop another [`Descriptor`].
    ///
    /// # Errors
    /// As `make`.
    pub(crate) fn made<E>(make: impl FnOnce() -> Result<OwnedFd, E>) -> Result<Self, E> {
        without_forks(|| make().map(Self::from))
    }

    /// Duplicates the descriptor.
    ///
    /// # Errors
    /// If descriptors are short.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Self::made(|| self.0.try_clone())
    }

    /// Takes over the descriptor `number`, which the process that started this one has passed on.
    /// Programs that the application starts do not inherit it.
    ///
    /// A descriptor that was passed on lacks the flag CLOEXEC until it is taken over. Python and
    /// the engine set the flag on everything that they open, so such a descriptor has no other
    /// owner.
    ///
    /// # Errors
    /// If the descriptor is not open or was not passed on. The standard descriptors are not passed
    /// on: they belong to the whole process.
    pub(crate) fn take_over(number: RawFd) -> io::Result<Self> {
        let not_passed_on = || io::Error::other("not passed on by another process");
        if number <= libc::STDERR_FILENO || is_registered(number) {
            return Err(not_passed_on());
        }
        // SAFETY: the borrow ends with the function, and the kernel refuses a number that is not
        // open.
        let passed_on = unsafe { BorrowedFd::borrow_raw(number) };
        if fcntl_getfd(passed_on)?.contains(FdFlags::CLOEXEC) {
            return Err(not_passed_on());
        }
        fcntl_setfd(passed_on, FdFlags::CLOEXEC)?;
        // SAFETY: the descriptor is open, and was inherited, as the missing flag shows. No value of
        // this process owns it.
        Ok(unsafe { OwnedFd::from_raw_fd(number) }.into())
    }

    /// Duplicates the descriptor `number` of the application, to a number above 2.
    ///
    /// # Errors
    /// If the descriptor is not open, or descriptors are short.
    pub(crate) fn duplicate(number: RawFd) -> io::Result<Self> {
        Self::made(|| duplicate(number))
    }

    /// Takes the descriptor out of the register: children inherit it from now on.
    pub(crate) fn into_owned(self) -> OwnedFd {
        let number = ManuallyDrop::new(self).0.as_raw_fd();
        take_out(number);
        // SAFETY: `self` owned the number and is never dropped. The engine does not run in a child,
        // where the number may be closed.
        unsafe { OwnedFd::from_raw_fd(number) }
    }
}

impl From<OwnedFd> for Descriptor {
    fn from(descriptor: OwnedFd) -> Self {
        let descriptor = move_above(descriptor);
        put_in(descriptor.as_raw_fd());
        Self(ManuallyDrop::new(descriptor))
    }
}

/// The application has closed descriptors that requests need, and the loss has not been reported
/// yet.
static HAS_LOST: AtomicBool = AtomicBool::new(false);
static IS_UNREPORTED: AtomicBool = AtomicBool::new(false);

/// Notes that the application has closed descriptors that requests need. `is_reported` says whether
/// the gateway or the log has a report.
pub(crate) fn mark_descriptors_lost(is_reported: bool) {
    HAS_LOST.store(true, Ordering::Relaxed);
    if !is_reported {
        IS_UNREPORTED.store(true, Ordering::Relaxed);
    }
}

/// Has the application closed descriptors that requests need?
pub(crate) fn has_lost() -> bool {
    HAS_LOST.load(Ordering::Relaxed)
}

/// Is there an unreported loss? The caller must report the loss: the next call returns `false`.
pub(crate) fn take_unreported_loss() -> bool {
    IS_UNREPORTED.swap(false, Ordering::Relaxed)
}

/// Descriptors that this process needs until it exits, each with the identity of its file.
#[derive(Default)]
pub(crate) struct Inventory(Vec<(RawFd, Option<Identity>)>);

/// Device and inode of a file.
pub(super) type Identity = (u64, u64);

impl Inventory {
    /// Records `descriptors` as they are now.
    pub(crate) fn of<'a>(descriptors: impl IntoIterator<Item = BorrowedFd<'a>>) -> Self {
        Self(descriptors.into_iter().map(|one| (one.as_raw_fd(), identity(one))).collect())
    }

    /// The numbers that are now closed or refer to another file.
    pub(crate) fn lost(&self) -> Vec<RawFd> {
        let now = |number| {
            // SAFETY: the borrow ends with the call, and the kernel refuses a number that is not
            // open.
            identity(unsafe { BorrowedFd::borrow_raw(number) })
        };
        self.0
            .iter()
            .filter(|(number, before)| now(*number) != *before)
            .map(|(number, _)| *number)
            .collect()
    }
}

/// The file behind `descriptor`; `None` if the descriptor is closed. Async-signal-safe.
pub(super) fn identity(descriptor: BorrowedFd<'_>) -> Option<Identity> {
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

/// Reads at `offset` of the application's file `number` into `bytes`. Does not duplicate the
/// descriptor, since closing the duplicate would release the process's locks on the file. Returns
/// the number of bytes; `None` if the descriptor is closed or cannot be read at an offset.
pub(crate) fn read_at(number: RawFd, bytes: &mut [u8], offset: i64) -> Option<usize> {
    // SAFETY: the length is that of the buffer; the kernel refuses a number that is not
    // open.
    let read = unsafe { libc::pread(number, bytes.as_mut_ptr().cast(), bytes.len(), offset) };
    usize::try_from(read).ok()
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

/// Runs `change` while no thread forks. `change` must not drop a [`Descriptor`], which would
/// deadlock.
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

/// Closes all descriptors of the engine. Async-signal-safe, as required in a child of a process
/// with threads.
pub(crate) fn close_all() {
    for (word, bits) in REGISTERED.iter().take(WORDS.load(Ordering::Relaxed)).enumerate() {
        let mut left = bits.swap(0, Ordering::Relaxed);
        while left != 0 {
            if let Ok(number) = RawFd::try_from(word * BITS + left.trailing_zeros() as usize) {
                close(number);
            }
            left &= left - 1;
        }
    }
}

fn is_registered(number: RawFd) -> bool {
    bit_of(number).is_some_and(|(word, bit)| REGISTERED[word].load(Ordering::Relaxed) & bit != 0)
}

fn put_in(number: RawFd) {
    if let Some((word, bit)) = bit_of(number) {
        WORDS.fetch_max(word + 1, Ordering::Relaxed);
        REGISTERED[word].fetch_or(bit, Ordering::Relaxed);
    }
}

/// Removes a number from the register. Returns whether it was registered; numbers beyond the
/// register count as registered outside children.
fn take_out(number: RawFd) -> bool {
    match bit_of(number) {
        Some((word, bit)) => REGISTERED[word].fetch_and(!bit, Ordering::Relaxed) & bit != 0,
        None => !is_child(),
    }
}

fn bit_of(number: RawFd) -> Option<(usize, u64)> {
    let number = usize::try_from(number).ok().filter(|&number| number < MAX_NUMBERS)?;
    Some((number / BITS, 1 << (number % BITS)))
}

fn close(number: RawFd) {
    // SAFETY: the register says that the engine owns the number, whose owner is dropped or never
    // runs again.
    unsafe { libc::close(number) };
}

/// A mutex that a process locks and its child unlocks, which std's mutex cannot do.
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

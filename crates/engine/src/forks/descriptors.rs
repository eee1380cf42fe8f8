//! Descriptors that are the engine's own.
//!
//! A bit for each number says that the descriptor belongs to the engine. A child that the application forks closes all of these
//! before any of its code runs, and clears the bits. A value that lives on in the child then closes nothing: by that time its
//! number may be another file of the application's.

use std::{
    cell::UnsafeCell,
    io,
    mem::ManuallyDrop,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

/// Numbers that can be registered: as many descriptors as Linux lets a process have by default (`fs.nr_open`).
const NUMBERS: usize = 1 << 20;

const BITS: usize = u64::BITS as usize;

/// The bits. Nobody writes to most of them, and so they take no memory.
static OURS: [AtomicU64; NUMBERS / BITS] = [const { AtomicU64::new(0) }; NUMBERS / BITS];

/// How many words of `OURS` may hold a bit.
static WORDS: AtomicUsize = AtomicUsize::new(0);

/// Locked while registers and reality differ, and by each fork.
static GATE: Gate = Gate(UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER));

/// A descriptor of the engine's. It is closed on drop, except in a child that the application has forked.
#[derive(Debug)]
pub(crate) struct Descriptor(ManuallyDrop<OwnedFd>);

impl Descriptor {
    /// Registers the descriptor that `make` opens. No thread forks meanwhile. `make` must not drop another [`Descriptor`].
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
        // SAFETY: `self` owned the number and is never dropped. In a child, where the number may be closed, nothing of the engine runs.
        unsafe { OwnedFd::from_raw_fd(number) }
    }
}

impl From<OwnedFd> for Descriptor {
    fn from(descriptor: OwnedFd) -> Self {
        put_in(descriptor.as_raw_fd());
        Self(ManuallyDrop::new(descriptor))
    }
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

/// Runs `change` while no thread forks. A [`Descriptor`] that is dropped in there would wait for itself.
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

/// Closes all descriptors of the engine's. Does nothing that a child of a process with threads may not do.
pub(super) fn close_all() {
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

/// Tells whether the number was still registered. Numbers beyond the register count as such outside of children.
fn take_out(number: RawFd) -> bool {
    match place(number) {
        Some((word, bit)) => OURS[word].fetch_and(!bit, Ordering::Relaxed) & bit != 0,
        None => !super::is_child(),
    }
}

fn place(number: RawFd) -> Option<(usize, u64)> {
    let number = usize::try_from(number).ok().filter(|&number| number < NUMBERS)?;
    Some((number / BITS, 1 << (number % BITS)))
}

fn close(number: RawFd) {
    // SAFETY: the register says that the number is the engine's, whose owner is gone or never runs again.
    unsafe { libc::close(number) };
}

/// A mutex that one process locks and its child unlocks, which std's cannot do.
struct Gate(UnsafeCell<libc::pthread_mutex_t>);

// SAFETY: only the functions of pthread_mutex_lock(3) touch it, which are made for several threads.
unsafe impl Sync for Gate {}

pub(super) fn shut_gate() {
    // SAFETY: the mutex is initialised and is never moved.
    unsafe { libc::pthread_mutex_lock(GATE.0.get()) };
}

pub(super) fn open_gate() {
    // SAFETY: as above; the caller, or the thread that it is a copy of, has locked it.
    unsafe { libc::pthread_mutex_unlock(GATE.0.get()) };
}

//! May this process run code of a file? The kernel answers: it knows mount options and security
//! policies.

use std::{fs::File, os::fd::BorrowedFd};

use memmap2::MmapOptions;

/// Can code of the file behind `descriptor` be mapped and run? An empty file cannot.
pub fn is_executable(descriptor: BorrowedFd<'_>) -> bool {
    let Ok(file) = descriptor.try_clone_to_owned().map(File::from) else {
        return false;
    };
    // SAFETY: nothing is read from the mapping, so changes to the file do not matter; the mapping
    // ends with the line.
    unsafe { MmapOptions::new().len(1).map_exec(&file) }.is_ok()
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn a_program_is_executable_and_a_directory_is_not() {
        assert!(is_executable(File::open("/proc/self/exe").unwrap().as_fd()));
        assert!(!is_executable(File::open("/").unwrap().as_fd()));
    }
}

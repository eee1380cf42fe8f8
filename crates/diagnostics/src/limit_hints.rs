//! Hints of log messages about limits of processes and memory: the limit, its value, and the way
//! out.

use rustix::process::{Resource, getrlimit, getuid};

/// The hint when no process or thread can be started. `limit` describes the limit of the caller
/// that is reached, if known.
#[must_use]
pub fn processes(limit: Option<String>) -> String {
    // The kernel has one error for threads without a process and without memory for their stack.
    let stack = address_space().filter(|_| limit.is_none()).map_or_else(String::new, |limit| {
        format!("; a thread may also lack memory for its stack ({limit}: `ulimit -v`)")
    });
    let limit =
        limit.or_else(process_limit).map_or_else(String::new, |limit| format!(" ({limit})"));
    format!(
        "the limit of processes is reached{limit}: raise the limit of this user (`ulimit -u`) or \
         of its service (`TasksMax=`, `pids.max`), or serve fewer requests at once{stack}"
    )
}

/// The hint when there is not enough memory.
#[must_use]
pub fn memory() -> String {
    match address_space() {
        Some(limit) => format!(
            "there is not enough memory ({limit}): raise this limit (`ulimit -v`, Apache's \
             RLimitMEM), or ask the host to"
        ),
        None => "there is not enough memory: raise the limit (`MemoryMax=`, `memory.max`), or \
                 serve fewer requests at once"
            .to_owned(),
    }
}

/// The hint for the words of the dynamic loader or of Python about memory.
#[must_use]
pub fn of_text(text: &str) -> Option<String> {
    // The memory of thread-local variables has a fixed size, and no limit of a user.
    let is_memory = ["failed to map segment", "cannot map zero-fill", "annot allocate memory"]
        .iter()
        .chain(&["MemoryError", "Out of memory", "memory allocation of"])
        .any(|words| text.contains(words))
        && !["static TLS", "Operation not permitted"].iter().any(|words| text.contains(words));
    is_memory.then(memory)
}

/// The limit of memory that each process may map, with its value.
#[must_use]
pub fn address_space() -> Option<String> {
    let bytes = getrlimit(Resource::As).current?;
    Some(format!("RLIMIT_AS: {} MB of address space for each process", bytes >> 20))
}

/// `hint`, and the limit of memory that may be the cause, if one is set.
#[must_use]
pub fn or_memory(hint: &str) -> String {
    match address_space() {
        Some(limit) => format!("{hint}; it may have too little memory ({limit}: `ulimit -v`)"),
        None => hint.to_owned(),
    }
}

/// The limit of processes of this user, with its value. The kernel does not apply the limit to
/// root.
fn process_limit() -> Option<String> {
    let max = getrlimit(Resource::Nproc).current.filter(|_| !getuid().is_root())?;
    Some(format!("RLIMIT_NPROC: {max} processes and threads of this user"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_about_memory_are_recognised() {
        for text in [
            "ImportError: a.so: failed to map segment from shared object",
            "ImportError: a.so: cannot allocate memory",
            "OSError: [Errno 12] Cannot allocate memory",
            "MemoryError: ",
        ] {
            assert!(of_text(text).is_some(), "{text}");
        }
        for text in [
            "a.so: failed to map segment from shared object: Operation not permitted",
            "a.so: cannot allocate memory in static TLS block",
            "undefined symbol",
        ] {
            assert!(of_text(text).is_none(), "{text}");
        }
    }
}

//! What loading an application has changed in its process, which each request finds again. State of
//! the interpreter (modules, locale, decimal context, warnings filters), resource limits and the
//! time zone are inherited by fork.

use std::{env, io, os::fd::AsFd as _, path::PathBuf};

use pyo3::prelude::*;
use rustix::{
    fs::{Mode, fstat},
    process::{chdir, umask},
};
use wire::request::ProcessState;

use crate::process::{
    SignalMask,
    environment::{
        EnvironmentChanges, EnvironmentPairs, {self},
    },
};

/// The process before loading.
pub(crate) struct StateBeforeLoading {
    environment: EnvironmentPairs,
    directory: Option<PathBuf>,
    umask: Mode,
    files: [Option<(u64, u64)>; 2],
}

/// What loading has changed.
pub(crate) struct LoadedState {
    environment: EnvironmentChanges,
    /// The working directory, if it has changed.
    directory: Option<PathBuf>,
    /// The umask, if it has changed.
    umask: Option<Mode>,
    /// Whether descriptors 1 and 2 were redirected.
    is_redirected: [bool; 2],
    /// Signals that are blocked.
    pub(crate) mask: SignalMask,
}

impl StateBeforeLoading {
    /// The present state.
    pub(crate) fn now(py: Python<'_>) -> PyResult<Self> {
        Ok(Self {
            environment: environment::variables(py)?,
            directory: env::current_dir().ok(),
            umask: current_umask(),
            files: standard_files(),
        })
    }

    /// The changes since.
    pub(crate) fn changes(self, py: Python<'_>) -> PyResult<LoadedState> {
        let (directory, mask, files) = (env::current_dir().ok(), current_umask(), standard_files());
        Ok(LoadedState {
            environment: EnvironmentChanges::between(self.environment, environment::variables(py)?),
            directory: directory.filter(|directory| self.directory.as_ref() != Some(directory)),
            umask: Some(mask).filter(|mask| *mask != self.umask),
            is_redirected: [0, 1]
                .map(|number| files[number].is_some() && files[number] != self.files[number]),
            mask: SignalMask::now(),
        })
    }
}

impl LoadedState {
    /// Prepares the process for a request whose gateway has the state `gateway`.
    pub(crate) fn enter(&self, py: Python<'_>, gateway: &ProcessState) -> PyResult<()> {
        match &self.directory {
            // If the directory was removed, this process still has it, unless a request left it.
            Some(directory) => drop(chdir(directory)),
            None => chdir(gateway.working_directory.as_slice()).map_err(io::Error::from)?,
        }
        umask(self.umask.unwrap_or_else(|| Mode::from_raw_mode(gateway.umask)));
        environment::take_environment(py, &self.environment.applied_to(&gateway.environment))
    }

    /// The variables of a request, as loading has left them: what [`LoadedState::enter`] makes the
    /// environment.
    pub(crate) fn variables(&self, gateway: &ProcessState) -> EnvironmentPairs {
        self.environment.applied_to(&gateway.environment).into_owned()
    }

    /// Do standard output and standard error lead to the log of a request, or where loading has
    /// made them lead?
    pub(crate) fn is_redirected(&self) -> [bool; 2] {
        self.is_redirected
    }
}

/// The umask, which can only be read by changing it. Nothing else runs in a process that has just
/// loaded an application, or only what would not be forked.
fn current_umask() -> Mode {
    let mask = umask(Mode::from_raw_mode(0o077));
    umask(mask);
    mask
}

/// Which files standard output and standard error are.
fn standard_files() -> [Option<(u64, u64)>; 2] {
    let (output, errors) = (io::stdout(), io::stderr());
    [output.as_fd(), errors.as_fd()]
        .map(|file| fstat(file).ok().map(|found| (found.st_dev, found.st_ino)))
}

//! The changes that loading an application made to its process. Each request starts with these
//! changes. Workers inherit the state of the interpreter (modules, locale, decimal context,
//! warnings filters), resource limits and the time zone by fork.

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

/// The state of the process before loading.
pub(crate) struct StateBeforeLoading {
    environment: EnvironmentPairs,
    directory: Option<PathBuf>,
    umask: Mode,
    files: [Option<(u64, u64)>; 2],
}

/// The changes that loading made.
pub(crate) struct LoadedState {
    environment: EnvironmentChanges,
    /// The working directory, if it has changed.
    directory: Option<PathBuf>,
    /// The umask, if it has changed.
    umask: Option<Mode>,
    /// Were descriptors 1 and 2 redirected?
    is_redirected: [bool; 2],
    /// The blocked signals.
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

    /// The changes since this state.
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
            // This process still has a removed directory, unless a request left that directory.
            Some(directory) => drop(chdir(directory)),
            None => chdir(gateway.working_directory.as_slice()).map_err(io::Error::from)?,
        }
        umask(self.umask.unwrap_or_else(|| Mode::from_raw_mode(gateway.umask)));
        environment::take_environment(py, &self.environment.applied_to(&gateway.environment))
    }

    /// The variables of a request after the changes of loading: the environment that
    /// [`LoadedState::enter`] sets.
    pub(crate) fn variables(&self, gateway: &ProcessState) -> EnvironmentPairs {
        self.environment.applied_to(&gateway.environment).into_owned()
    }

    /// Do standard output and standard error lead to the log of a request, or to the files that
    /// loading chose?
    pub(crate) fn is_redirected(&self) -> [bool; 2] {
        self.is_redirected
    }
}

/// The umask, which can only be read by changing it. No other thread creates files meanwhile in a
/// process that has just loaded an application.
fn current_umask() -> Mode {
    let mask = umask(Mode::from_raw_mode(0o077));
    umask(mask);
    mask
}

/// The identities of the files behind standard output and standard error.
fn standard_files() -> [Option<(u64, u64)>; 2] {
    let (output, errors) = (io::stdout(), io::stderr());
    [output.as_fd(), errors.as_fd()]
        .map(|file| fstat(file).ok().map(|found| (found.st_dev, found.st_ino)))
}

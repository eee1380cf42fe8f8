//! Configurations of a pool's code: the one that serves, and the one that a reload tries.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use diagnostics::message::LogMessage;
use wire::{app::Source, launch::Preload};

use crate::{
    config::settings::Settings,
    pool::{code_source::CodeSource, supervisor::config::ReloadableConfig},
};

/// How the code of a pool is found and loaded.
pub(super) struct CodeConfig {
    source: CodeSource,
    /// The settings when the configuration was read.
    settings: Settings,
    /// The instruction of `--preload`.
    preload: Preload,
    reload_on: Vec<PathBuf>,
}

impl CodeConfig {
    fn of(config: &ReloadableConfig) -> Self {
        Self {
            source: config.code.clone(),
            settings: config.settings.clone(),
            preload: config.service.preload,
            reload_on: config.reload_on.clone(),
        }
    }

    /// The settings when the configuration was read.
    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The instruction of `--preload`.
    pub(super) fn preload(&self) -> Preload {
        self.preload
    }

    /// Does the engine's path lead to another build than the held one?
    pub(super) fn is_engine_replaced(&self) -> bool {
        self.source.is_engine_replaced()
    }

    /// The paths that trigger a reload when they change: the script, and those of `--reload-on`.
    pub(super) fn watched(&self) -> impl Iterator<Item = PathBuf> {
        let script = match &self.settings.app.source {
            Source::File(path) => Some(Path::new(OsStr::from_bytes(path)).to_owned()),
            Source::Module(_) => None,
        };
        script.into_iter().chain(self.reload_on.iter().cloned())
    }

    /// Resolves the current settings.
    ///
    /// # Errors
    /// The log message that names the invalid setting.
    pub(super) fn resolve(&self) -> Result<Settings, LogMessage> {
        // The supervisor applies --timeout itself, with its value in the configuration.
        Ok(Settings { timeout: self.settings.timeout, ..self.source.resolve()? })
    }
}

/// The configuration that serves, and the one that a reload tries.
pub(super) struct CodeConfigs {
    serving: CodeConfig,
    next: Option<CodeConfig>,
}

impl CodeConfigs {
    /// The configuration of a pool that is starting.
    pub(super) fn new(config: &ReloadableConfig) -> Self {
        Self { serving: CodeConfig::of(config), next: None }
    }

    /// The configuration for the next template.
    pub(super) fn latest(&self) -> &CodeConfig {
        self.next.as_ref().unwrap_or(&self.serving)
    }

    /// Sets the configuration that a reload tries.
    pub(super) fn set_next(&mut self, config: &ReloadableConfig) {
        self.next = Some(CodeConfig::of(config));
    }

    /// The configuration of the reload serves now.
    pub(super) fn adopt_next(&mut self) {
        if let Some(next) = self.next.take() {
            self.serving = next;
        }
    }

    /// The reload has failed: the old configuration goes on.
    pub(super) fn discard_next(&mut self) {
        self.next = None;
    }
}

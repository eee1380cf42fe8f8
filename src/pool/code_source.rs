//! Source of a pool's code: the application and options of the command line.
//!
//! Settings are resolved again for each template process. If the application's path is a link, a
//! deployment may have changed its target to a release with other modules and another virtualenv.

use std::{ffi::OsString, path::PathBuf};

use diagnostics::message::LogMessage;
use wire::app::App;

use crate::{
    config::{
        options::ScriptOptions,
        script_line,
        settings::{Settings, application},
    },
    exit::CommandError,
    python::{engine::Engine, interpreter::InterpreterSearch},
};

/// Application and options of the command line.
#[derive(Clone, Debug)]
pub(super) struct CodeSource {
    options: ScriptOptions,
    app: App,
    base: PathBuf,
    /// The held engine, which all templates use.
    engine: Option<Engine>,
    /// Environment variables of the user that the pool runs as.
    variables: Vec<(OsString, OsString)>,
    clears_environment: bool,
}

impl CodeSource {
    /// The application that the argument APP names, with `options`.
    ///
    /// # Errors
    /// If `arg` is not an application.
    pub(super) fn new(arg: &str, options: &ScriptOptions) -> Result<Self, CommandError> {
        let (app, base) = application(arg)?;
        Ok(Self::of(app, options.clone(), base))
    }

    /// The application `app`, with `options`. Relative paths start at `base`.
    pub(super) fn of(app: App, options: ScriptOptions, base: PathBuf) -> Self {
        let variables = Vec::new();
        Self { options, app, base, engine: None, variables, clears_environment: false }
    }

    /// Leaves out most environment variables of this process, if `clears_environment`.
    pub(super) fn with_cleared_environment(self, clears_environment: bool) -> Self {
        Self { clears_environment, ..self }
    }

    /// Adds the environment variables of the user that the pool runs as.
    pub(super) fn with_variables(self, variables: &[(OsString, OsString)]) -> Self {
        Self { variables: variables.to_vec(), ..self }
    }

    /// Uses the engine that `other` holds, and its environment variables of the user.
    pub(super) fn with_process_of(self, other: &Self) -> Self {
        Self { engine: other.engine.clone(), variables: other.variables.clone(), ..self }
    }

    /// The options, completed by those of the `#!` line.
    ///
    /// # Errors
    /// The log message about the line.
    pub(super) fn options(&self) -> Result<ScriptOptions, LogMessage> {
        script_line::complete(self.options.clone(), &self.app, &self.base)
    }

    /// Resolves the current settings.
    ///
    /// # Errors
    /// The log message that names the invalid setting.
    pub(super) fn resolve(&self) -> Result<Settings, LogMessage> {
        let options = self.options()?;
        let engine = || match &self.engine {
            Some(engine) => Ok(engine.clone()),
            None => Engine::find(),
        };
        let search = InterpreterSearch::of_this_process();
        let search = if self.clears_environment { search.without_virtual_env() } else { search };
        let mut settings =
            Settings::resolve_with(&options, self.app.clone(), &self.base, &search, engine)?;
        // Variables of --env come later in the list, and override these.
        settings.clears_environment = self.clears_environment;
        settings.variables.splice(0..0, self.variables.iter().cloned());
        Ok(settings)
    }

    /// Keeps the engine of `settings` open for all later templates, even if its file is replaced.
    pub(super) fn hold_engine(&mut self, settings: &mut Settings) {
        settings.engine = settings.engine.clone().hold();
        self.engine = Some(settings.engine.clone());
    }

    /// Does the engine's path lead to another build than the held one?
    pub(super) fn is_engine_replaced(&self) -> bool {
        self.engine.as_ref().is_some_and(Engine::is_replaced)
    }
}

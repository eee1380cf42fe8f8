//! Where the code of a pool comes from: looked up again for each template, since the path of the
//! application may lead to another release by then, with modules and a virtualenv of its own.

use std::{ffi::OsString, path::PathBuf};

use diagnostics::message::LogMessage;
use wire::app::App;

use crate::{
    config::{
        options::ScriptOptions,
        script_line,
        settings::{Settings, application},
    },
    python::engine::Engine,
};

/// What was said on the command line about the application.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    options: ScriptOptions,
    app: App,
    base: PathBuf,
    /// The engine that fits to this program, once it is known.
    engine: Option<Engine>,
    /// Environment variables of the user that the pool has become.
    variables: Vec<(OsString, OsString)>,
}

impl Origin {
    /// The application that `word` names, with `options`.
    ///
    /// # Errors
    /// The log message, if it names none.
    pub(super) fn new(word: &str, options: &ScriptOptions) -> Result<Self, LogMessage> {
        let (app, base) = application(word)?;
        Ok(Self::of(app, options.clone(), base))
    }

    /// The application `app`, with `options`; relative paths are taken from `base`.
    pub(super) fn of(app: App, options: ScriptOptions, base: PathBuf) -> Self {
        Self { options, app, base, engine: None, variables: Vec::new() }
    }

    /// It, for a pool that has become a user with these environment variables.
    pub(super) fn with_variables(self, variables: &[(OsString, OsString)]) -> Self {
        Self { variables: variables.to_vec(), ..self }
    }

    /// What it comes to now.
    ///
    /// # Errors
    /// The log message that says what cannot be used.
    pub(super) fn resolve(&self) -> Result<Settings, LogMessage> {
        let options = script_line::complete(self.options.clone(), &self.app, &self.base)?;
        let mut settings = Settings::resolve_with(&options, self.app.clone(), &self.base, || {
            match &self.engine {
                Some(engine) => Ok(engine.clone()),
                None => Engine::find(),
            }
        })?;
        // Those of --env come after them, and win.
        settings.variables.splice(0..0, self.variables.iter().cloned());
        Ok(settings)
    }

    /// From now on the engine of `settings` is the one, whatever happens to its file.
    pub(super) fn hold_engine(&mut self, settings: &mut Settings) {
        settings.engine = settings.engine.clone().hold();
        self.engine = Some(settings.engine.clone());
    }

    /// Is at the engine's path another than the one that is held?
    pub(super) fn is_engine_replaced(&self) -> bool {
        self.engine.as_ref().is_some_and(Engine::is_replaced)
    }
}

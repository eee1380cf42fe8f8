//! Which process loads the application, and what becomes of those that cannot.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _, path::Path, process::ExitStatus};

use diagnostics::message::{Code, LogMessage};
use wire::{app::Source, launch::Preload, running_clock};

use crate::{
    config::settings::Settings,
    pool::{
        file_changes::Changes,
        supervisor::{Supervisor, Terms, phase::Event},
        template::Template,
    },
};

impl Supervisor<'_> {
    /// Does what SIGHUP does if a file that is watched has changed.
    pub(super) fn reload_on_change(&mut self) {
        if self.phase.is_ending() {
            return;
        }
        if self.changes.is_due()
            && self.activity.is_limited()
            && self.terms.origin.is_engine_replaced()
        {
            self.log(&LogMessage::notice(
                Code::EngineReplaced,
                "another build of wsgate was installed; the pool ends, and the next request starts \
                 one of that build",
            ));
            return self.happened(Event::Stop);
        }
        if let Some(path) = self.changes.look() {
            let path = path.display().to_string();
            let event = self.renewal();
            let what = if event == Event::Stop { "ends" } else { "loads the new code" };
            self.log(&LogMessage::notice(
                Code::ChangeSeen,
                format!("`{path}` has changed; the pool {what}"),
            ));
            self.happened(event);
        }
    }

    /// What the application comes to now, but for what the supervisor itself goes by since the
    /// beginning.
    ///
    /// # Errors
    /// If the application is not as it was: the entry for that.
    pub(super) fn settings_now(&self) -> Result<Settings, LogMessage> {
        self.terms
            .origin
            .resolve()
            .map(|settings| Settings { timeout: self.settings.timeout, ..settings })
    }

    /// Whoever reloads after an upgrade may expect it to be in use then.
    pub(super) fn tell_of_upgrade(&self) {
        if self.terms.origin.is_engine_replaced() {
            self.log(
                &LogMessage::notice(
                    Code::EngineReplaced,
                    "another build of wsgate was installed; the pool goes on with the one that it \
                     was started with",
                )
                .hint("restart the pool to use the new build"),
            );
        }
    }

    /// Replaces a template that could load the application but must not be forked by one that looks
    /// which code does that, and this one by one that leaves the loading to its workers. Each comes
    /// when the one before has ended, so that whatever that had open is free again. A warm pool
    /// serves nothing that one process at a time may have: it would be in the way of the requests
    /// that are served cold.
    pub(super) fn await_end_of_not_forkable(
        &mut self,
        mut template: Template,
        ended: Option<ExitStatus>,
    ) {
        if ended.is_some() {
            return match template.preload {
                Preload::Auto => self.load(Preload::Trace),
                _ if template.is_for_one_process && self.activity.is_limited() => {
                    self.forbid_warm();
                    self.happened(Event::NotLoaded);
                }
                _ => self.load(Preload::No),
            };
        }
        if template.farewell.take_if(|due| *due <= running_clock::instant()).is_some() {
            template.kill();
        }
        self.templates.next = Some(template);
    }
}

/// What makes the pool reload: a change of the script, or of what the administrator has named.
pub(super) fn changes(settings: &Settings, terms: &Terms) -> Changes {
    let script = match &settings.app.source {
        Source::File(path) => Some(Path::new(OsStr::from_bytes(path)).to_owned()),
        Source::Module(_) => None,
    };
    Changes::new(script.into_iter().chain(terms.watched.iter().cloned()))
}

/// As the command line has it.
pub(super) fn preload_word(preload: Preload) -> &'static str {
    match preload {
        Preload::Auto | Preload::Trace => "auto",
        Preload::Yes => "yes",
        Preload::No => "no",
    }
}

//! Which process loads the application, and what becomes of those that cannot.

use std::{
    ffi::OsStr,
    io,
    os::unix::ffi::OsStrExt as _,
    path::Path,
    process::ExitStatus,
    time::{Duration, Instant},
};

use link::{
    app::Source,
    entry::{Code, Entry},
    launch::Preload,
};

use super::{Leaving, Supervisor, Terms, put_off};
use crate::{
    pool::{changes::Changes, template::Template},
    settings::Settings,
};

/// How long a template that has loaded for nothing may take to end as programs do. A thread of the application may keep it.
const FAREWELL: Duration = Duration::from_secs(1);

impl Supervisor<'_> {
    /// Does what SIGHUP does if a file that is watched has changed.
    pub(super) fn reload_on_change(&mut self) {
        if self.stopping {
            return;
        }
        if let Some(path) = self.changes.look() {
            let text = format!("`{}` has changed; the pool loads the new code", path.display());
            self.log(&Entry::notice(Code::ChangeSeen, text));
            self.reload();
        }
    }

    /// What the application comes to now, but for what the supervisor itself goes by since the beginning.
    pub(super) fn settings_now(&self) -> io::Result<Settings> {
        match self.terms.origin.resolve() {
            Ok(settings) => Ok(Settings { timeout: self.settings.timeout, ..settings }),
            Err(entry) => {
                self.log(&entry);
                Err(io::Error::other("the application is not as it was, as the entry above says"))
            }
        }
    }

    /// What takes the place of a template that could load the application but must not be forked: one that leaves the loading to
    /// its workers. That begins when the first has ended, so that whatever it has open is free again.
    pub(super) fn go_on_unloaded(&mut self, template: Template, ended: Option<ExitStatus>) -> Option<Template> {
        if ended.is_none() {
            return Some(template);
        }
        self.forget_leaving(&template);
        match self.start_template(Preload::No) {
            Ok(template) => return Some(template),
            // It was to take over from another, which goes on.
            Err(error) if self.current.is_some() => self.reload_failed(&error),
            Err(error) => {
                self.put_off_template();
                self.log(&Entry::error(Code::TemplateDied, format!("no template could be started: {error}")));
            }
        }
        None
    }

    /// No template could be started for new code.
    pub(super) fn reload_failed(&mut self, error: &io::Error) {
        self.log(
            &Entry::error(Code::ReloadFailed, format!("no new template could be started: {error}"))
                .hint("the pool goes on with the code it has"),
        );
        self.end_reload("failed\n");
    }

    /// Sees to it that a template which ends by itself comes to its end.
    pub(super) fn see_out(&mut self, template: &Template) {
        let due = Instant::now() + FAREWELL;
        self.leaving.extend(template.pid().map(|pid| Leaving { pid, generation: template.generation, due }));
    }

    /// Takes note that a template has ended: so have its workers, by the kernel.
    pub(super) fn forget_leaving(&mut self, template: &Template) {
        self.leaving.retain(|leaving| leaving.generation != template.generation);
    }

    /// A worker could not load the application, and the log says why: its place waits as after any failed beginning.
    pub(super) fn stillborn(&mut self, generation: u64, slot: u32) {
        let place = usize::try_from(slot).ok().and_then(|slot| self.places.get_mut(slot));
        if let Some(place) = place.filter(|place| place.asked == Some(generation)) {
            place.asked = None;
            put_off(place);
        }
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
        Preload::Auto => "auto",
        Preload::Yes => "yes",
        Preload::No => "no",
    }
}

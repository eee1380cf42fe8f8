//! Whether an application may be loaded once and forked for each request, or for each worker.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _, path::Path};

use link::{
    app::Source,
    check::{Origin, Remains},
    launch::Work,
};

use super::{Report, reply};
use crate::settings::Settings;

/// Reports it. `remains` is what was found after the application was loaded.
pub(super) fn fitness(report: &mut Report, settings: &Settings, remains: &[Remains]) {
    if remains.is_empty() {
        report.line("warm", "fit: nothing is left open or running after import");
        return;
    }
    // To see who did it takes several times as long, and would make the time of the import wrong.
    let traced = reply(settings, Work::Trace).and_then(|bytes| Remains::decode(&bytes).ok());
    let remains = traced.as_deref().filter(|traced| !traced.is_empty()).unwrap_or(remains);
    let is_fit = !remains.iter().any(|one| one.is_spoilt);
    let told = remains.iter().filter(|one| is_fit || one.is_spoilt).map(|one| {
        let origin = one.origin.as_ref();
        let who = origin.map_or_else(|| "code that is not known".to_owned(), |origin| place(settings, origin));
        format!("{who} {}", one.what)
    });
    let told = told.collect::<Vec<_>>().join("\n");
    report.line(
        "warm",
        if is_fit {
            format!("fit: {told}\nwhich processes that are forked may share")
        } else {
            format!(
                "not fit: {told}\n\
                 processes that are forked share what is open and do not have its threads: connect, open and start them\n\
                 when a request first needs them, for --mode warm and for pools that load the application once"
            )
        },
    );
}

/// A place in the code as its author calls it.
fn place(settings: &Settings, origin: &Origin) -> String {
    let is_script = matches!(&settings.app.source, Source::File(script) if *script == origin.file);
    let file = Path::new(OsStr::from_bytes(&origin.file)).file_name();
    // The name of a script as a module is made up by the engine.
    let name = file.filter(|_| is_script).map_or_else(|| origin.module.clone().into(), OsStr::to_string_lossy);
    let through = origin.through.as_ref().map(|module| format!(", through `{module}`,")).unwrap_or_default();
    format!("module `{name}` (line {}){through}", origin.line)
}

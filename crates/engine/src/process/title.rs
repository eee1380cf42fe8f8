//! The title of this process, as ps(1) shows it in place of the command line.

use diagnostics::log_style;
use process_title::{ProcessTitle, method_and_path};

/// Shows this process as the one of a CGI request, whose method and target are `line`.
pub(crate) fn show_cgi(line: &str) {
    if let Some(mut title) = ProcessTitle::find() {
        title.set("wsgate: cgi ");
        title.complete([method_and_path(line.as_bytes())]);
    }
}

/// Shows this process as one that only loads the application.
pub(crate) fn show_check() {
    show("wsgate: check");
}

/// Shows this process as a template.
pub(crate) fn show_template() {
    show(&of_pool("template"));
}

/// Shows this process as a worker that loads the application.
pub(crate) fn show_loading_worker() {
    show(&of_pool("worker (loading)"));
}

fn show(title: &str) {
    if let Some(mut memory) = ProcessTitle::find() {
        memory.set(title);
    }
}

fn of_pool(role: &str) -> String {
    format!("wsgate: pool {}, {role}", log_style::get().pool)
}

/// The title of a worker, which shows its request.
pub(crate) struct WorkerTitle(Option<ProcessTitle>);

impl WorkerTitle {
    /// The title of the worker with this number, which is idle.
    pub(crate) fn new(number: u32) -> Self {
        let mut title = ProcessTitle::find();
        title.iter_mut().for_each(|title| title.set(&of_pool(&format!("worker {number} "))));
        let title = Self(title);
        title.show_idle();
        title
    }

    /// Shows the request of `line`: id, method and target.
    pub(crate) fn show_request(&self, line: &str) {
        if let Some(title) = &self.0 {
            let request = line.split_once(' ').map_or(line, |(_, request)| request);
            title.complete([b"(", method_and_path(request.as_bytes()), b")"]);
        }
    }

    /// Shows that the worker serves no request.
    pub(crate) fn show_idle(&self) {
        self.0.iter().for_each(|title| title.complete([b"(idle)"]));
    }
}

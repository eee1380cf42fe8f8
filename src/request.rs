//! The part of a request that the gateway needs for log messages and error pages.

use std::{
    env,
    ffi::OsString,
    fs::File,
    io,
    os::{fd::OwnedFd, unix::ffi::OsStrExt as _},
};

use diagnostics::{
    error_log,
    error_page::{Page, Status},
    escape,
    message::{LogMessage, Subject, request_line},
    request_id,
};
use wire::{app::App, lingering_close::end_response, request::ResponseFormat};

use crate::exit::Exit;

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// Names the request in the log and on error pages.
    pub(crate) id: String,
    /// How the response headers are written.
    pub(crate) form: ResponseFormat,
    /// Do error pages show the reason?
    pub(crate) debug: bool,
    /// Variables that differ from those of the process.
    pub(crate) variables: Vec<(OsString, OsString)>,
    /// A web server waits for the response.
    pub(crate) is_from_web_server: bool,
    method: String,
    target: String,
}

impl Request {
    /// The request that the process environment describes.
    pub(crate) fn from_environment() -> Self {
        let text =
            |name: &str| env::var_os(name).map(|value| escape::text(value.as_bytes()).into_owned());
        let script = text("SCRIPT_NAME").or_else(|| text("SCRIPT_FILENAME")).unwrap_or_default();
        let is_non_parsed = script.rsplit('/').next().is_some_and(|name| name.starts_with("nph-"));
        Self {
            id: text("UNIQUE_ID")
                .filter(|id| request_id::is_request_id(id))
                .unwrap_or_else(request_id::new),
            form: if is_non_parsed { ResponseFormat::NonParsed } else { ResponseFormat::Cgi },
            debug: false,
            variables: Vec::new(),
            is_from_web_server: true,
            method: text("REQUEST_METHOD").unwrap_or_default(),
            target: text("REQUEST_URI").unwrap_or(script),
        }
    }

    /// A request that wsgate makes itself.
    pub(crate) fn synthetic(
        method: &str,
        target: &str,
        variables: Vec<(OsString, OsString)>,
    ) -> Self {
        Self {
            id: request_id::new(),
            form: ResponseFormat::Cgi,
            debug: false,
            variables,
            is_from_web_server: false,
            method: method.to_owned(),
            target: target.to_owned(),
        }
    }

    /// Stands for a request in messages about the pool of `app`.
    pub(crate) fn of_pool(app: &App) -> Self {
        let none = Subject::no_request("").trim_end().to_owned();
        Self { id: none, ..Self::synthetic("pool of", &app.to_string(), Vec::new()) }
    }

    /// The value of a variable of the request.
    pub(crate) fn variable(&self, name: &str) -> Option<OsString> {
        let own = self.variables.iter().find(|(known, _)| known == name);
        own.map(|(_, value)| value.clone()).or_else(|| env::var_os(name))
    }

    /// Method and target, for the log.
    pub(crate) fn line(&self) -> String {
        request_line(&self.method, &self.target)
    }

    /// Request id, method and target, as [`Subject`] takes them.
    pub(crate) fn subject(&self) -> String {
        [&*self.id, " ", &self.line()].concat()
    }

    /// Does the response have no body (RFC 3875 4.3.3)?
    pub(crate) fn is_head(&self) -> bool {
        self.method == "HEAD"
    }

    /// Writes a log message about this request.
    pub(crate) fn log(&self, message: &LogMessage) {
        let subject = self.subject();
        let subject = Subject::new(&subject);
        error_log::write(message.for_log(subject).as_bytes(), subject);
    }

    /// Logs `message`, and sends an error page of `status`; a complete page is success.
    pub(crate) fn refuse(&self, status: Status, message: &LogMessage, response: OwnedFd) -> Exit {
        let mut response = File::from(response);
        let exit = self.refuse_on(status, message, &mut response);
        if exit == Exit::Success {
            end_response(OwnedFd::from(response), true);
        }
        exit
    }

    /// Like [`Self::refuse`], but leaves `response` open.
    pub(crate) fn refuse_on(
        &self,
        status: Status,
        message: &LogMessage,
        mut response: impl io::Write,
    ) -> Exit {
        self.log(message);
        let detail = self.debug.then(|| message.for_client());
        let page = Page {
            status,
            request_id: &self.id,
            detail: detail.as_deref(),
            head_only: self.is_head(),
        };
        let page = page.render(self.form.around_status());
        match response.write_all(&page).and_then(|()| response.flush()) {
            Ok(()) => Exit::Success,
            // If the web server has closed the response, no log message is necessary.
            Err(_) => Exit::Failure,
        }
    }
}

/// The environment variable `name`, if it is not empty.
pub(crate) fn nonempty_variable(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.as_bytes().is_empty())
}

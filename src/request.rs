//! What the gateway itself knows of a request: enough to name it in the log and to answer it when
//! nobody else can.

use std::{
    env,
    ffi::OsString,
    fmt,
    fs::File,
    io,
    os::{fd::OwnedFd, unix::ffi::OsStrExt as _},
};

use diagnostics::{
    error_log,
    error_page::{Page, ResponseFormat, Status},
    escape,
    message::LogMessage,
    request_id,
};
use rustix::process::getpid;
use wire::lingering_close::end_response;

use crate::exit::Exit;

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// Names it in the log and on error pages.
    pub(crate) id: String,
    /// How the head of its response is written.
    pub(crate) form: ResponseFormat,
    /// May the client see why it failed?
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
                .filter(|id| request_id::is_one(id))
                .unwrap_or_else(request_id::new),
            form: if is_non_parsed { ResponseFormat::NonParsed } else { ResponseFormat::Cgi },
            debug: false,
            variables: Vec::new(),
            is_from_web_server: true,
            method: text("REQUEST_METHOD").unwrap_or_default(),
            target: text("REQUEST_URI").unwrap_or(script),
        }
    }

    /// A request of our own making.
    pub(crate) fn made(method: &str, target: &str, variables: Vec<(OsString, OsString)>) -> Self {
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

    /// The value of a variable of the request.
    pub(crate) fn variable(&self, name: &str) -> Option<OsString> {
        let own = self.variables.iter().find(|(known, _)| known == name);
        own.map(|(_, value)| value.clone()).or_else(|| env::var_os(name))
    }

    /// Method and target, for the log.
    pub(crate) fn line(&self) -> String {
        format!("{} {}", self.method, self.target)
    }

    /// Does its response have no body (RFC 3875 4.3.3)?
    pub(crate) fn is_head(&self) -> bool {
        self.method == "HEAD"
    }

    /// Writes an entry about it to the error log.
    pub(crate) fn log(&self, entry: &LogMessage) {
        error_log::write(entry.for_log(self).as_bytes(), self);
    }

    /// Logs `entry` and answers with `status`. To have sent a whole error page is to be done.
    pub(crate) fn refuse(&self, status: Status, entry: &LogMessage, response: OwnedFd) -> Exit {
        let mut response = File::from(response);
        let exit = self.refuse_on(status, entry, &mut response);
        if exit == Exit::Done {
            end_response(OwnedFd::from(response), true);
        }
        exit
    }

    /// As [`Self::refuse`], with a response that is not closed.
    pub(crate) fn refuse_on(
        &self,
        status: Status,
        entry: &LogMessage,
        mut response: impl io::Write,
    ) -> Exit {
        self.log(entry);
        let detail = self.debug.then(|| entry.for_client());
        let page = Page {
            status,
            request_id: &self.id,
            detail: detail.as_deref(),
            head_only: self.is_head(),
        };
        match response.write_all(&page.render(self.form)).and_then(|()| response.flush()) {
            Ok(()) => Exit::Done,
            // Nobody reads it, which nobody needs to hear of.
            Err(_) => Exit::Failed,
        }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} pid {}", self.id, self.line(), getpid().as_raw_nonzero())
    }
}

/// Is the variable `name` there and not empty?
pub(crate) fn filled(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.as_bytes().is_empty())
}

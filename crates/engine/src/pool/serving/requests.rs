//! One request: from its parameters to the exchange that the application is called with.

use std::sync::{Arc, atomic::Ordering};

use diagnostics::{
    error_page::{ResponseFormat, Status},
    escape,
    message::{Code, LogMessage},
};
use fastcgi_server::Params;

use crate::{
    log::{Log, Transcript},
    pool::{
        access_log::{
            AccessRecord, {self},
        },
        serving::{ServingThread, Worker},
    },
    process::Serving,
    transport::fastcgi::{CopiedErrors, CutStyle, FastCgiConnection, FastCgiRequest},
    wsgi::{BadVariable, BodyLength, Exchange, Known, Outcome, Response, Twice, Variables, refuse},
};

impl Worker {
    pub(crate) fn serve(
        &self,
        seat: &mut ServingThread<'_, '_>,
        peer: &FastCgiConnection,
        request: FastCgiRequest,
    ) {
        let py = seat.application.py();
        let _serving = self.watched.is_alone().then(Serving::begin);
        self.serving.fetch_add(1, Ordering::Relaxed);
        let FastCgiRequest { id, params } = request;
        // Of two parameters of one name the last counts (FastCGI 1.0, 5.2 leaves it open; web
        // servers let later settings win). Go's HTTP server says -1 of a body whose length it does
        // not know, and Caddy hands it on. The stream has an end of its own (FastCGI 1.0, 5.3).
        let received = params.iter().filter(|pair| *pair != (b"CONTENT_LENGTH", b"-1"));
        let mut variables = Variables::new(received, Twice::Last, &mut seat.remembered);
        if let (Some(script_name), Ok(variables)) = (&self.setting.script_name, &mut variables) {
            variables.mount_at(script_name);
        }
        let log = self.log(&variables, &params);
        let about = log.clone();
        let interruptible = self.watched.interruptible(seat.python_thread);
        let record = AccessRecord::open(log.request_id());
        self.watched.begin(seat.thread, log.line(), &interruptible);
        let transcript = self.service.logs.to_server.then(Arc::<Transcript>::default);
        let log = log.copied_to(transcript.clone());
        let length =
            variables.as_ref().map_or(BodyLength::UntilEnd, Variables::body_length_in_stream);
        let (body, sink) = peer.begin(id, length, interruptible.clone());
        let mut sink = access_log::observed(record.as_ref(), sink.with_errors(transcript.clone()));
        let refused = match &variables {
            _ if params.with_nul().is_some() => Some(
                LogMessage::error(Code::BadRequest, "a variable of the request holds a NUL byte")
                    .hint("the request was answered with 400"),
            ),
            Err(bad) => Some(bad.entry()),
            Ok(_) => self.unfit.as_ref().map(|failure| failure.entry.clone()),
        };
        let status = self.unfit.as_ref().map_or(Status::BadRequest, |failure| failure.status);
        match (refused, variables) {
            (None, Ok(variables)) => {
                let exchange = Exchange {
                    variables,
                    body: Box::new(body),
                    response: sink,
                    errors: transcript.map(|transcript| Arc::new(CopiedErrors(transcript)) as _),
                    form: Form::FastCgi,
                    log,
                    interruptible,
                };
                match seat.server.serve(seat.application, exchange) {
                    Outcome::Replied => {}
                    Outcome::Abandoned => self.watched.count_abandoned(),
                    Outcome::Cut => {
                        let software = params.get(b"SERVER_SOFTWARE").unwrap_or_default();
                        py.detach(|| peer.cut(CutStyle::of(software, self.is_of_fcgid)));
                    }
                }
            }
            (entry, _) => {
                let is_head = params.get(Known::RequestMethod.name().as_bytes()) == Some(b"HEAD");
                let response =
                    Response::new(sink, ResponseFormat::Cgi, is_head, log, interruptible);
                if let Some(entry) = entry {
                    refuse(py, response, self.debug, status, &entry);
                }
            }
        }
        if let Some(record) = record {
            record.close(py, &params);
        }
        self.watched.end(py, seat.thread);
        if self.is_draining() {
            self.watched.leave(seat.thread);
        }
        // A timer may be that of any request that is being served.
        if self.serving.fetch_sub(1, Ordering::Relaxed) == 1
            && let Some(entry) = self.timers.after_request()
        {
            about.entry(&entry);
        }
        peer.reuse(params);
    }

    /// Where entries about a request go, under the web server's id for it or a new one.
    fn log(&self, variables: &Result<Variables<'_>, BadVariable>, params: &Params) -> Log {
        let value = |variable: Known| match variables {
            Ok(variables) => variables.get(variable),
            Err(_) => params.get(variable.name().as_bytes()),
        };
        let [unique_id, method, target] =
            [Known::UniqueId, Known::RequestMethod, Known::RequestUri]
                .map(|variable| value(variable).unwrap_or_default());
        let (method, target) = (escape::text(method), escape::text(target));
        match std::str::from_utf8(unique_id) {
            Ok(id) if diagnostics::request_id::is_one(id) => Log::of(id, &method, &target),
            _ => Log::of(&self.ids.next(), &method, &target),
        }
    }
}

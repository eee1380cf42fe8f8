//! One CGI request in a process of its own: what PEP 3333 shows as the CGI gateway.

use std::{
    os::{fd::OwnedFd, unix::ffi::OsStringExt as _},
    sync::Arc,
};

use link::{launch::Launch, page::Status};
use pyo3::prelude::*;

use crate::{
    app,
    log::Log,
    reporter::Reporter,
    transport::cgi::{Body, Reply, StandardError},
    wsgi::{BodyLength, Exchange, Interruptible, Response, Server, Setting, Twice, Variables, refuse},
};

/// Serves the request that the process environment describes.
pub(super) fn run(
    py: Python<'_>,
    launch: &Launch,
    body: OwnedFd,
    reply: OwnedFd,
    reporter: Reporter,
    interruptible: Interruptible,
) -> PyResult<()> {
    let log = Log::new(&launch.request_id, &launch.request);
    let received: Vec<_> = std::env::vars_os().map(|(name, value)| (name.into_vec(), value.into_vec())).collect();
    let received = received.iter().map(|(name, value)| (name.as_slice(), value.as_slice()));
    let variables = match Variables::new(received, Twice::First) {
        Ok(variables) => variables,
        Err(bad) => {
            let reply = Box::new(Reply::new(reply, Body::new(body, BodyLength::Exactly(0)), reporter));
            let is_head = std::env::var_os("REQUEST_METHOD").is_some_and(|method| method == "HEAD");
            let response = Response::new(reply, launch.form, is_head, log, interruptible);
            refuse(py, response, launch.debug, Status::BadRequest, &bad.entry());
            return Ok(());
        }
    };
    let body = Body::new(body, variables.body_length());
    let reply = Box::new(Reply::new(reply, body.clone(), reporter));
    let setting = Setting {
        multithread: false,
        multiprocess: true,
        run_once: true,
        debug: launch.debug,
        timeout_seconds: launch.timeout_seconds,
    };
    match app::load(py, launch, &setting) {
        Ok(loaded) => {
            let exchange = Exchange {
                variables,
                body: Box::new(body),
                data: None,
                reply,
                errors: None,
                form: launch.form,
                log,
                interruptible,
            };
            Server::new(py, setting, Arc::new(StandardError))?.serve(&loaded.application, exchange);
        }
        Err(failure) => {
            let response = Response::new(reply, launch.form, variables.is_head(), log, interruptible);
            refuse(py, response, launch.debug, failure.status, &failure.entry);
        }
    }
    Ok(())
}

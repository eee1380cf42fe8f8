//! One CGI request in a process of its own: what PEP 3333 shows as the CGI gateway.

use std::os::unix::ffi::OsStringExt as _;

use link::page::Status;
use pyo3::prelude::*;

use super::Handed;
use crate::{
    app,
    log::Log,
    transport::cgi::{Body, Reply, StandardError},
    wsgi::{BodyLength, Exchange, Setting, Variables, refuse, serve},
};

/// Serves the request that the process environment describes.
pub(super) fn run(py: Python<'_>, handed: Handed) {
    let Handed { launch, body, reply, reporter } = handed;
    let received = std::env::vars_os().map(|(name, value)| (name.into_vec(), value.into_vec()));
    let variables = match Variables::new(received) {
        Ok(variables) => variables,
        Err(bad) => {
            let log = Log::new(launch.request_id, "(no valid request)".to_owned());
            let reply = Box::new(Reply::new(reply, Body::new(body, BodyLength::Exactly(0)), reporter));
            refuse(py, reply, launch.form, false, launch.debug, &log, Status::BadRequest, &bad.entry());
            return;
        }
    };
    let log = Log::new(launch.request_id.clone(), variables.target());
    let body = Body::new(body, variables.body_length());
    let reply = Box::new(Reply::new(reply, body.clone(), reporter));
    let setting = Setting {
        multithread: false,
        multiprocess: true,
        run_once: true,
        debug: launch.debug,
        timeout_seconds: launch.timeout_seconds,
    };
    match app::load(py, &launch, &setting) {
        Ok(loaded) => {
            serve(
                &loaded.application,
                Exchange {
                    variables,
                    body: Box::new(body),
                    reply,
                    errors: std::sync::Arc::new(StandardError),
                    form: launch.form,
                    setting,
                    log,
                },
            );
        }
        Err(failure) => {
            refuse(py, reply, launch.form, variables.is_head(), launch.debug, &log, failure.status, &failure.entry);
        }
    }
}

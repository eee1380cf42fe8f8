//! `wsgate call --via`: a request to a running FastCGI server, made as a web server makes it
//! (FastCGI 1.0, 3.3, 5 and 6.2).

use std::{fs::File, io::Read as _};

use diagnostics::escape;
use fastcgi_server::{bodies::Role, client::Request};

use crate::{
    call::{
        args::CallArgs,
        exchange::{Exchange, ID},
        not_passed_on,
        output::Printed,
        request_plan::ComposedRequest,
        response_failure::{failure_of, not_a_response},
        server::Server,
        transfer::{
            Receiver, {self},
        },
        wrong_argument,
    },
    exit::{CommandError, Exit},
};

/// Maximum number of bytes of an invalid response that an error message shows.
const MAX_SHOWN_BYTES: usize = 1000;

/// Sends the request, and prints the response.
pub(super) fn run(args: &CallArgs, server: &Server) -> Result<Exit, CommandError> {
    if let Some(target) = &args.target {
        return Err(wrong_argument(format!(
            "`{target}` is one argument too many: with --via there is no APP, only TARGET"
        )));
    }
    let script = args.via.script_filename.as_ref().map(|path| path.as_os_str());
    // Without APP, the first argument is TARGET.
    let target = args.app.as_deref().map(|target| {
        target.to_str().ok_or_else(|| {
            wrong_argument(format!("the target `{}` is not UTF-8: write %XX", target.display()))
        })
    });
    transfer::run(args, target.transpose()?, script, |composed, receive| {
        exchange(args, server, composed, receive)
    })
}

/// Sends one request, and passes its response to `receive`.
fn exchange(
    args: &CallArgs,
    server: &Server,
    composed: ComposedRequest,
    receive: Receiver<'_>,
) -> Result<(Printed, Exit), CommandError> {
    let mut start = Vec::new();
    let request = Request::new(ID);
    request.append_begin(Role::Responder, false, &mut start);
    let variables = composed
        .request
        .variables
        .iter()
        .map(|(name, value)| (name.as_encoded_bytes(), value.as_encoded_bytes()));
    request
        .append_params(variables, &mut start)
        .map_err(|error| wrong_argument(error.to_string()))?;
    let body = File::from(composed.body);
    // If the file grows meanwhile, only the announced length is sent.
    let length = body.metadata().map_or(0, |found| found.len());
    let mut exchange = Exchange::connect(server, args.request.timeout, start, body.take(length))
        .map_err(CommandError::failed)?;
    let printed = receive(&mut exchange).map_err(not_passed_on)?;
    let failure = match &printed {
        Printed::OutputClosed => return Ok((printed, Exit::Success)),
        Printed::Response { .. } => exchange.finish().map_or_else(Some, |end| failure_of(&end)),
        Printed::NotAResponse(start) => {
            // A refused request or a cut response is reported first.
            let failure = match exchange.take_result() {
                Some(Err(message)) => message,
                Some(Ok(end)) => failure_of(&end).unwrap_or_else(not_a_response),
                None => not_a_response(),
            };
            let start = escape::text(&start[..start.len().min(MAX_SHOWN_BYTES)]);
            Some(if start.is_empty() {
                failure
            } else {
                failure.detail(format!("it begins:\n{start}"))
            })
        }
    };
    exchange.end_line();
    match failure {
        Some(message) => Err(CommandError::failed(message)),
        None => Ok((printed, Exit::Success)),
    }
}

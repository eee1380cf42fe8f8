//! The requests of one command: the first, and those that redirects lead to.

use std::{
    ffi::OsStr,
    io::{
        BufRead, {self},
    },
    time::Instant,
};

use diagnostics::{
    error_log,
    message::{Code, LogMessage, Subject},
};

use crate::{
    call::{
        args::CallArgs,
        body_files::UnusableFile,
        compose, not_passed_on,
        output::{Output, Printed, ResponseHead},
        request_plan::{ComposedRequest, RequestPlan},
        write_out::{Facts, WriteOut},
        wrong_argument,
    },
    exit::{CommandError, Exit, print},
};

/// Reads one response, and prints it.
pub(super) type Receiver<'a> = &'a mut dyn FnMut(&mut dyn BufRead) -> io::Result<Printed>;

/// Sends the requests with `send`, and prints the responses.
///
/// # Errors
/// If a request cannot be made, or its response cannot be printed.
pub(super) fn run(
    args: &CallArgs,
    target: Option<&str>,
    script: Option<&OsStr>,
    mut send: impl FnMut(ComposedRequest, Receiver<'_>) -> Result<(Printed, Exit), CommandError>,
) -> Result<Exit, CommandError> {
    let started = Instant::now();
    let target = target.unwrap_or("/");
    let mut plan = RequestPlan::new(args, target, script).map_err(refused)?;
    let write_out = match &args.output.write_out {
        Some(text) => WriteOut::of_option(text).map_err(refused)?,
        None => WriteOut::default(),
    };
    let mut output = output(args, &plan)?;
    if !args.output.silent {
        args.ignored.0.iter().for_each(|(name, reason)| {
            let sentence = format!("--{name} of curl is ignored: {reason}");
            let message = LogMessage::new(Code::OptionIgnored, sentence);
            say(&message.hint("leave it out, or add -s"));
        });
    }
    let mut redirects = 0;
    let exit = loop {
        let composed = plan.compose().map_err(refused)?;
        if args.output.verbose {
            compose::print_variables(&composed.request);
        }
        let is_head = composed.request.is_head();
        let mut next = None;
        let follows = |head: &ResponseHead| {
            let url = plan.redirect_url(head).filter(|_| args.call.location)?;
            match plan.url.redirected(&url) {
                Ok(next) => Some(next),
                Err(reason) => {
                    if !args.output.silent {
                        say(&not_followed(&url, &reason));
                    }
                    None
                }
            }
        };
        let (printed, exit) = send(composed, &mut |response| {
            output.print(response, is_head, |head| {
                next = follows(head);
                next.is_some()
            })
        })?;
        let status = match printed {
            Printed::Response { status } => status,
            // The response could not be sent, and a log message gives the reason.
            Printed::NotAResponse(_) => {
                let error =
                    io::Error::new(io::ErrorKind::UnexpectedEof, "it ended within its headers");
                return Err(not_passed_on(error));
            }
            Printed::OutputClosed if exit == Exit::Interrupted => return Ok(exit),
            Printed::OutputClosed => return Ok(Exit::Success),
        };
        plan.keep_cookies(&output.head);
        match next.filter(|_| exit == Exit::Success) {
            None if status < 400 && exit == Exit::Success => break Exit::Success,
            // The error page or a log message gives the reason.
            None => break Exit::Failure,
            Some(_) if redirects >= args.call.max_redirs => return Err(too_many(redirects)),
            Some(url) => plan.follow(url, status).map_err(refused)?,
        }
        redirects += 1;
    };
    if let Some(encoding) = output.unknown_encoding.as_ref().filter(|_| !args.output.silent) {
        say(&unknown_encoding(encoding));
    }
    plan.write_cookies().map_err(refused)?;
    let redirect_url = plan.redirect_url(&output.head).unwrap_or_default();
    let facts = Facts {
        started,
        method: &plan.method,
        target,
        url: &plan.url.to_string(),
        scheme: plan.url.scheme(),
        redirects,
        redirect_url: &redirect_url,
        uploaded: plan.body_length(),
    };
    let written = print(write_out.render(&facts, &output).as_bytes());
    let status = &output.head.status;
    if args.output.fail && output.head.code() >= 400 && exit == Exit::Failure {
        let message = LogMessage::new(Code::FailedStatus, format!("the response is `{status}`"));
        return Err(CommandError::failed(
            message.hint("without --fail, wsgate prints the response"),
        ));
    }
    written.map(|_| exit)
}

/// Where the responses of `args` go.
fn output(args: &CallArgs, plan: &RequestPlan<'_>) -> Result<Output, CommandError> {
    let path = if args.output.remote_name {
        let name = plan.url.file_name().ok_or_else(|| {
            wrong_argument(
                "the URL has no name of a file at its end for -O: name a file with -o".to_owned(),
            )
        })?;
        Some(name.into())
    } else {
        args.output.output.clone().filter(|path| path.as_os_str() != "-")
    };
    Ok(Output {
        includes_head: args.output.include || args.call.head,
        omits_failures: args.output.fail,
        decompresses: args.call.compressed,
        path,
        file: None,
        head: ResponseHead::default(),
        head_at: None,
        head_bytes: 0,
        body_bytes: 0,
        unknown_encoding: None,
    })
}

/// The error about arguments that describe no request.
fn refused(error: anyhow::Error) -> CommandError {
    let sentence = format!("{error:#}");
    match error.downcast_ref::<UnusableFile>() {
        Some(file) => {
            CommandError::settings(LogMessage::new(Code::BadSetting, sentence).hint(file.hint))
        }
        None => wrong_argument(sentence),
    }
}

fn not_followed(url: &str, reason: &str) -> LogMessage {
    let sentence = format!("the response redirects to `{url}`, {reason}");
    LogMessage::new(Code::NotFollowed, sentence)
        .hint("wsgate asks this application alone, and prints the redirect")
}

fn too_many(redirects: u32) -> CommandError {
    let sentence = format!("the application redirects more than {redirects} times");
    CommandError::failed(
        LogMessage::new(Code::NotFollowed, sentence)
            .hint("-i shows each redirect; --max-redirs allows more"),
    )
}

fn unknown_encoding(encoding: &str) -> LogMessage {
    let sentence = format!("the response has the encoding `{encoding}`, and is printed as it came");
    LogMessage::new(Code::UnknownEncoding, sentence)
        .hint("send `-H 'Accept-Encoding: gzip, deflate'`: wsgate decompresses these two")
}

/// Writes a message about the command to standard error.
fn say(message: &LogMessage) {
    let subject = Subject::no_request("command");
    error_log::write(message.for_client().as_bytes(), Subject::new(&subject));
}

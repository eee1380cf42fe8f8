//! The purpose of this invocation: a command, a CGI request, or a listening socket on standard
//! input.

mod commands;
mod config_file;
mod man;
mod man_sections;
mod man_terms;
mod misspelt;
mod parse;

use std::{env, ffi::OsString};

use diagnostics::{
    error_log,
    error_page::Status,
    message::{Code, LogMessage, Subject},
};

use crate::{
    call,
    cgi::{
        Invocation, {self},
    },
    check::{
        args::{CheckArgs, CheckedApp},
        {self},
    },
    cli::{
        commands::{Command, option_groups, program},
        parse::Refusal,
    },
    config::{options::contexts::set_all_groups, settings::application},
    exit::{CommandError, Exit, print},
    init, pool,
    system::users,
};

/// Runs the command or the request that the arguments and the environment describe.
pub(crate) fn run() -> Exit {
    set_all_groups(option_groups());
    let arguments: Vec<OsString> = env::args_os().skip(1).collect();
    if pool::stdin_listens() {
        return serve_standard_input(arguments);
    }
    if cgi::is_invocation() {
        return match cgi::enter(&arguments) {
            Invocation::Served(exit) => exit,
            Invocation::Arguments => match parse::command(arguments, "cgi") {
                Ok(command) => dispatch(command),
                Err(Refusal::Arguments(error)) => refuse_arguments(&error),
                Err(Refusal::ConfigFile(message)) => {
                    cgi::refuse(Status::InternalServerError, &message)
                }
            },
        };
    }
    dispatch_or_print(parse::command(parse::without_script_line(arguments), "call"))
}

/// Serves the listening socket that a process manager has put on standard input (FastCGI 1.0, 2.2).
fn serve_standard_input(arguments: Vec<OsString>) -> Exit {
    let Some(script) = cgi::executed_script() else {
        return dispatch_or_print(parse::command(arguments, "fastcgi"));
    };
    let served = cgi::script_and_base(&script)
        .map_err(CommandError::settings)
        .and_then(|(app, options, base)| Err(pool::serve_standard_input(app, &options, &base)));
    reported(served)
}

/// Responds to a CGI request of a program that started wsgate with wrong arguments.
fn refuse_arguments(error: &clap::Error) -> Exit {
    let message = LogMessage::new(Code::BadSetting, "wsgate was started with wrong arguments")
        .detail(error.render().to_string())
        .hint("correct the program that starts wsgate; `wsgate cgi --help` lists the options");
    cgi::refuse(Status::InternalServerError, &message)
}

fn dispatch_or_print(command: Result<Command, Refusal>) -> Exit {
    match command {
        Ok(command) => dispatch(command),
        Err(Refusal::ConfigFile(message)) => {
            pool::report_refusal(&message.summary());
            reported(Err(CommandError::settings(message)))
        }
        Err(Refusal::Arguments(error)) => {
            if error.use_stderr() {
                pool::report_refusal(error.to_string().lines().next().unwrap_or_default());
            }
            // Help goes to standard output, errors to standard error. If the stream is closed,
            // nobody reads the text.
            let _ = error.print();
            if error.use_stderr() { Exit::Usage } else { Exit::Success }
        }
    }
}

fn dispatch(command: Command) -> Exit {
    match command {
        Command::Cgi(args) => match application(&args.app) {
            Ok((app, base)) => cgi::serve(app, &args.script_options(), &base),
            Err(error) => cgi::refuse(Status::InternalServerError, &error.message),
        },
        Command::Fastcgi(args) => reported(pool::run(&args, parse::fastcgi_again)),
        Command::Serve(args) => reported(Err(pool::serve::run(&args))),
        Command::WarmPool(args) => reported(pool::warm_pool::run(&args)),
        Command::Status(args) => reported(pool::commands::status(&args)),
        Command::Reload(args) => reported(pool::commands::reload(&args)),
        Command::Stop(pool) => reported(pool::commands::stop(&pool)),
        Command::Stacks(args) => reported(pool::stacks_command::run(&args)),
        Command::Top(args) => reported(pool::top::run(&args)),
        Command::Monitor(args) => reported(Err(pool::monitor::run(&args))),
        Command::Call(args) => reported(call::run(&args)),
        Command::Check(args) => reported(checked_app(&args).and_then(check::run)),
        Command::Init(args) => reported(init::run(&args)),
        Command::Man { command } => {
            reported(man::page(command.as_deref()).and_then(|page| print(&page)))
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut program(), "wsgate", &mut script);
            reported(print(&script))
        }
    }
}

/// What `wsgate check` checks: an application, or the pool of a configuration file.
fn checked_app(args: &CheckArgs) -> Result<CheckedApp, CommandError> {
    let Some(path) = &args.config else { return Ok(args.checked_app()) };
    let pool = config_file::pool(path).map_err(CommandError::settings)?;
    let problems = pool::config_problems::problems(&pool);
    // An unknown user is a problem already.
    let user = pool.pool.user.clone().filter(|user| users::user(user).is_some());
    let options = pool.script_options();
    let mut checked = args.checked_app_of_pool(pool.app.clone(), user, options, problems);
    checked.clears_environment = pool.process.clear_env;
    Ok(checked)
}

/// The exit code of a command; its error is written to standard error.
fn reported(result: Result<Exit, CommandError>) -> Exit {
    result.unwrap_or_else(|error| {
        error_log::write(
            error.message.for_client().as_bytes(),
            Subject::new(&Subject::no_request("command")),
        );
        error.exit
    })
}

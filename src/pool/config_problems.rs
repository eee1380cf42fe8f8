//! What is wrong with the options of a pool on this machine, found without starting the pool.

use std::path::Path;

use diagnostics::message::{Code, LogMessage};

use crate::{
    pool::{
        address::Address, allowed_addresses, args::FastcgiArgs, code_source::CodeSource,
        file_creator::FileCreator, log_file::unsafe_log, socket_access::SocketAccess,
    },
    system::account::Account,
};

/// The log messages about options that would stop the pool from starting.
pub(crate) fn problems(args: &FastcgiArgs) -> Vec<LogMessage> {
    let options = &args.pool;
    let mut problems = Vec::new();
    if let Some((sentence, hint)) = args.contradiction() {
        problems.push(LogMessage::new(Code::BadSetting, sentence).hint(hint));
    }
    let account = options.user.as_deref().map(|user| {
        Account::find(user, options.group.as_deref(), &args.process.supplementary_group)
    });
    let account = account.transpose().map_err(|unknown| problems.push(unknown));
    let access = SocketAccess::new(options.socket_mode, options.socket_owner.as_ref());
    problems.extend(access.err());
    for address in &options.listen {
        if let Address::Unix(path) = address {
            problems.extend(missing_directory(path, "listen", Code::BadListener));
        }
    }
    for (path, option) in [
        (&args.logs.access_log, "access-log"),
        (&args.logs.slow_log, "slow-log"),
        (&args.logging.error_log, "error-log"),
    ] {
        let path = path.as_deref().filter(|path| path.as_os_str() != "-");
        problems.extend(path.and_then(|path| missing_directory(path, option, Code::BadSetting)));
        if let (Some(path), Ok(account)) = (path, &account)
            && let Err(error) = FileCreator::new(account.as_ref()).check_log(path)
        {
            problems.extend(unsafe_log(path, &error));
        }
    }
    // The `#!` line may set options. Another check reports what is wrong with the application.
    if let Ok(source) = CodeSource::new(&args.app, &args.script_options())
        && let Ok(of_script) = source.options()
    {
        problems.extend(args.logs.without_effect(of_script.fastcgi.slow));
        if let Ok(settings) = source.resolve() {
            problems.extend(allowed_addresses::open_to_all(&settings, &options.listen));
        }
    }
    problems
}

/// The log message about the directory of `path`, if there is none.
fn missing_directory(path: &Path, option: &str, code: Code) -> Option<LogMessage> {
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty())?;
    (!directory.is_dir()).then(|| {
        let shown = directory.display();
        let sentence = format!("the directory `{shown}` of --{option} does not exist");
        LogMessage::new(code, sentence).hint(format!("create the directory: mkdir -p {shown}"))
    })
}

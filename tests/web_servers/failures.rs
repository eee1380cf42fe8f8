//! Applications that fail, each in its own way: the browser gets a valid response that says nothing
//! of the cause, and the error log one message that says it all. The file
//! stay stands in `workers`.

use crate::{
    support::web_servers::{HttpClient, WebServer, eventually},
    web_servers::{
        behind_every_cold_web_server, behind_every_resident_web_server,
        behind_every_warm_web_server,
    },
};

/// Tests of each failing application of `tests/apps/`, with the status that a client gets.
macro_rules! each_gets_its_status_and_one_log_message {
    (anyhow { $($app:ident $status:literal)* }
     cold { $($unloaded:ident $its_status:literal)* }) => {
        $(fn $app(web_server: &mut dyn WebServer) {
            fails_well(web_server, stringify!($app), $status);
        })*
        $(fn $unloaded(web_server: &mut dyn WebServer) {
            fails_well(web_server, stringify!($unloaded), $its_status);
        })*
        behind_every_cold_web_server! { $($app)* $($unloaded)* }
        behind_every_warm_web_server! {
            $($app)*
            a_process_that_exits_without_a_message
            an_application_that_cannot_be_loaded_is_answered_as_without_a_pool
        }
        behind_every_resident_web_server! {
            $($app)*
            a_process_that_exits_without_a_message
            an_application_that_cannot_be_loaded_is_answered_as_without_a_pool
        }
    };
}

each_gets_its_status_and_one_log_message! {
    anyhow {
        raises 500
        raises_in_first_block 500
        returns_str 500
        returns_none 500
        no_start_response 500
        injects_header 500
        recurses 500
        calls_sys_exit 500
        segfaults 502
        kills_itself 502
        hangs 504
        hangs_without_python 504
        // A pool needs an interpreter to start.
        python_not_there 500
        venv_not_there 500
    }
    cold {
        // A pool that cannot load the application says so in the log, too.
        raises_at_import 500
        missing_module 500
        no_application 500
        syntax_error 500
        // A status says that it was no crash, and warm the pool alone hears of it.
        calls_os_exit 500
        calls_os_exit_at_import 500
    }
}

fn a_process_that_exits_without_a_message(web_server: &mut dyn WebServer) {
    fails_well(web_server, "calls_os_exit", 502);
}

fn an_application_that_cannot_be_loaded_is_answered_as_without_a_pool(
    web_server: &mut dyn WebServer,
) {
    for (app, code) in [
        ("raises_at_import", "W0301"),
        ("missing_module", "W0302"),
        ("no_application", "W0303"),
        ("syntax_error", "W0301"),
    ] {
        for _ in 0..3 {
            let page = HttpClient::get(web_server.script(&format!("{app}.wsgi"))).run().expect(500);
            assert!(!page.text().contains("Traceback") && !page.text().contains(app), "{page:?}");
            let id = page
                .text()
                .split("<code>")
                .nth(1)
                .and_then(|rest| rest.split("</code>").next())
                .unwrap()
                .to_owned();
            eventually("the log names the request", || web_server.log().contains(&id));
        }
        assert!(
            web_server.log().contains(&format!("wsgate: error[{code}]")),
            "{app}: {}",
            web_server.log()
        );
    }
}

fn fails_well(web_server: &mut dyn WebServer, app: &str, status: u16) {
    let page = HttpClient::get(web_server.script(&format!("{app}.wsgi"))).run().expect(status);
    let text = page.text();
    assert!(page.header("content-type").starts_with("text/html"), "{page:?}");
    for word in ["Traceback", "secret", app, "/cgi-bin/", "File &quot;", "python"] {
        assert!(!text.contains(word), "the page has `{word}`: {text}");
    }
    let id = text
        .split("<code>")
        .nth(1)
        .and_then(|rest| rest.split("</code>").next())
        .unwrap_or_default();
    assert!(!id.is_empty(), "the page names no request id: {text}");

    // The log message may be on its way still; a second one would be when nothing of ours runs any
    // more.
    eventually("the log has a log message", || web_server.log().contains("hint: "));
    eventually("no process of ours is left", || web_server.site().processes().is_empty());
    let log = without_obituaries(&web_server.stop());
    let messages = log.matches("wsgate: error[W").count();
    assert_eq!(messages, 1, "messages in the log: {log}");
    let message = &log[log.find("wsgate: error[W").unwrap()..];
    let (code, rest) = message.strip_prefix("wsgate: error[W").unwrap().split_at(4);
    assert!(code.bytes().all(|byte| byte.is_ascii_digit()) && rest.starts_with("]: "), "{message}");
    assert_eq!(log.matches("hint: ").count(), 1, "hints in the log: {log}");
    assert!(log.contains(id), "the log does not name request {id}: {log}");
    assert!(!log.contains("End of script output before headers"), "{log}");
}

/// The log without what a warm pool says of the end of a worker, beside what the request's own
/// log message says.
fn without_obituaries(log: &str) -> String {
    // W0709: the gateway may have killed the worker.
    let found = ["error[W0701]", "warning[W0709]"]
        .iter()
        .find_map(|start| log.split_once(&format!("wsgate: {start}")));
    let Some((before, message)) = found else { return log.to_owned() };
    let (_, after) = message
        .split_once("\nrequest: none, pool of ")
        .unwrap_or_else(|| panic!("of no pool: {log}"));
    let after = after.split_once('\n').map_or("", |(_, after)| after);
    format!("{before}{after}")
}

//! The form of log messages: time and name where nobody else adds them.

use std::{fs, os::unix::fs::MetadataExt as _};

use crate::{
    each_mode::{MODES, ServedApp},
    pool::PoolSetup,
    support::{assertions::first_line, probe::Probe, web_servers::eventually},
};

/// Raises an exception for `/raises`.
const RAISES: &str = "
    def application(environ, start_response):
        if environ['PATH_INFO'] == '/raises':
            raise ValueError('on purpose')
        start_response('200 OK', [('Content-Type', 'text/plain')])
        return [b'fine']
    ";

/// Is `text` a time of UTC with milliseconds?
fn is_time(text: &str) -> bool {
    let pattern = "0000-00-00T00:00:00.000Z";
    text.len() == pattern.len()
        && text.chars().zip(pattern.chars()).all(|(found, pattern)| match pattern {
            '0' => found.is_ascii_digit(),
            other => found == other,
        })
}

/// Time and name of a line that begins a log message.
#[track_caller]
fn time_and_name(line: &str) -> (&str, &str) {
    let (time, rest) = line.split_once(" [").unwrap_or_else(|| panic!("no time: {line}"));
    assert!(is_time(time), "{line}");
    (time, rest.split_once("] wsgate: ").unwrap_or_else(|| panic!("no name: {line}")).0)
}

#[test]
fn each_message_in_a_file_begins_with_time_and_name_in_every_mode() {
    for mode in MODES {
        let mut served = ServedApp::start(mode, &[], RAISES);
        served.request("GET", "/raises", &[], b"");
        let log = served.stop();
        let starts: Vec<_> = log.lines().filter(|line| first_line(line).is_some()).collect();
        assert!(starts.iter().any(|line| line.contains("error[W0501]")), "{mode:?}: {log}");
        for line in starts {
            assert_eq!(time_and_name(line).1, "app", "{mode:?}: {log}");
        }
    }
}

#[test]
fn messages_of_a_cgi_request_to_the_pipe_of_a_web_server_have_no_time() {
    let response = Probe::new(RAISES).variable("PATH_INFO", "/raises").run();
    let start = response.log.lines().find(|line| line.contains("error[W0501]")).unwrap();
    assert!(start.starts_with("wsgate: "), "{response:?}");
}

#[test]
fn a_pool_names_itself_and_leaves_the_time_to_the_journal() {
    for is_journal in [false, true] {
        let setup = PoolSetup::new(RAISES).args(&["--name", "shop"]);
        let path = setup.path("stream");
        let stream = fs::File::create(&path).unwrap();
        let found = stream.metadata().unwrap();
        let inode = if is_journal { found.ino() } else { found.ino() + 1 };
        let setup = setup.variable("JOURNAL_STREAM", format!("{}:{inode}", found.dev()));
        let pool = setup.launch_to(stream);
        eventually("the pool serves", || fs::read_to_string(&path).unwrap().contains("W0710"));
        let log = fs::read_to_string(&path).unwrap();
        pool.stop();
        let start = log.lines().find(|line| line.contains("notice[")).unwrap();
        if is_journal {
            assert!(start.starts_with("wsgate: "), "{log}");
        } else {
            assert_eq!(time_and_name(start).1, "shop", "{log}");
        }
    }
}

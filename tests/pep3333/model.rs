//! PEP 3333 as a model: random applications and requests, whose responses are computed here and
//! compared with what comes out.
//!
//! One application carries out a program that its request brings. Responses in every mode are those
//! of the model, to the byte.

use std::collections::BTreeMap;

use crate::{
    each_mode::{MODES, Mode, ServedApp},
    pep3333::random_app::{Expected, INTERPRETER, RandomApp},
    support::{assertions::first_line, probe::CgiResponse},
};

/// Programs a mode. A cold one takes an interpreter each.
const PROGRAMS: u64 = 300;
const COLD_PROGRAMS: u64 = 100;

/// The codes of a log by the request that they are about.
fn codes_by_request(log: &str) -> BTreeMap<String, Vec<String>> {
    let mut codes = BTreeMap::<_, Vec<_>>::new();
    let mut code = None;
    for line in log.lines() {
        if let Some((severity, rest)) = first_line(line).and_then(|rest| rest.split_once('[')) {
            code = ["error", "warning"].contains(&severity).then(|| rest[..5].to_owned());
        } else if let Some(id) =
            line.strip_prefix("request: ").and_then(|rest| rest.split(' ').next())
        {
            codes.entry(id.to_owned()).or_default().extend(code.take());
        }
    }
    codes
}

#[test]
fn random_applications_answer_in_every_mode_as_the_model_says() {
    for mode in MODES {
        let mut served = ServedApp::start(mode, &[], INTERPRETER);
        let count = if mode == Mode::Cold { COLD_PROGRAMS } else { PROGRAMS };
        let programs: Vec<RandomApp> = (0..count).map(RandomApp::random).collect();
        for program in &programs {
            let carried = serde_json::to_string(program).unwrap();
            let variables =
                [("HTTP_X_PROGRAM", carried.as_str()), ("UNIQUE_ID", &program.request_id())];
            let response: CgiResponse =
                served.request(program.method, "/", &variables, &program.body);
            let expected = program.expected();
            let mut came = Expected {
                status: response.status.clone(),
                headers: Some(response.headers.clone()),
                body: response.body.clone(),
                cut: expected.cut.map(|_| !response.exit.success()),
                codes: expected.codes.clone(),
            };
            // A body may be cut that has a length and does not leave with the headers: in CGI, and
            // over FastCGI for some web servers, the client's connection is closed then.
            if let Some(headers) = came.headers.as_mut().filter(|_| mode.is_cgi()) {
                let has_length =
                    headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("Content-Length"));
                headers.retain(|(name, value)| {
                    !(has_length && name == "Connection" && value == "close")
                });
            }
            if expected.headers.is_none() {
                came.headers = None;
                came.body.truncate(expected.body.len());
            }
            let shown = String::from_utf8_lossy(&response.raw[..response.raw.len().min(500)]);
            assert!(
                came == expected,
                "{mode:?}, {}\nexpected {}\ncame {shown}",
                program.shown(),
                expected.shown()
            );
        }
        check_log(mode, &programs, &served.stop());
    }
}

/// Compares what the log says of each program with what the model says.
fn check_log(mode: Mode, programs: &[RandomApp], log: &str) {
    let logged = codes_by_request(log);
    // This warning comes once a pool, which is a request that starts a new interpreter.
    let counts = |code: &&String| mode == Mode::Cold || *code != "W0506";
    for program in programs {
        let said: Vec<&String> =
            logged.get(&program.request_id()).into_iter().flatten().filter(counts).collect();
        let expected = program.expected().codes;
        assert_eq!(
            said,
            expected.iter().filter(counts).collect::<Vec<_>>(),
            "{mode:?}, {}\n{log}",
            program.shown()
        );
        let closed =
            log.lines().filter(|line| *line == format!("closed {}", program.number)).count();
        assert_eq!(
            closed,
            usize::from(program.kind == "closing"),
            "{mode:?}, {}\n{log}",
            program.shown()
        );
    }
}

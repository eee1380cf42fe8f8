//! RFC 3875 and what CGI programs need beyond it. The name of a test begins with the row of
//! `docs/conformance.md` that it proves; what the reference implementation can be asked, it is
//! asked as well.

mod addresses;
mod arguments;
mod body;
mod fields;
mod handlers;
mod invocation;
mod process;
mod property;
mod response;
mod variables;

use serde_json::Value;

use crate::support::probe::{CgiResponse, Probe};

/// Shows the strings of its environ.
const ENVIRON: &str = "
    import json
    def application(environ, start_response):
        start_response('200 OK', [('Content-Type', 'application/json')])
        shown = {name: value for name, value in environ.items() if isinstance(value, str)}
        return [json.dumps(shown).encode()]
    ";

/// A request to an application that shows its environ.
fn environ() -> Probe {
    Probe::new(ENVIRON)
}

/// The environ that an application has shown.
#[track_caller]
fn seen(response: &CgiResponse) -> Value {
    assert_eq!(response.status, "200 OK", "{response:?}");
    serde_json::from_slice(&response.body).unwrap()
}

/// Bytes as the PEP's strings: each one a character.
fn latin_1(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| char::from(byte)).collect()
}

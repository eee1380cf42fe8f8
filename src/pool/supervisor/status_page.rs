//! The status page: the responses to requests at `--status-listen`, as CGI responses.

use control::pool_status::PoolStatus;
use diagnostics::escape::{self, Escaped};
use fastcgi_server::Params;
use serde_json::Value;

use crate::pool::status_options::StatusPaths;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// The response to the request with these parameters. `status` is called if the request needs it.
pub(super) fn respond(
    paths: &StatusPaths,
    params: Option<&Params>,
    status: impl FnOnce() -> PoolStatus,
) -> Vec<u8> {
    let Some(params) = params else {
        return response("400 Bad Request", TEXT, "the request cannot be read\n", false);
    };
    let get = |name: &[u8]| String::from_utf8_lossy(params.get(name).unwrap_or_default());
    let (method, path, query) = (get(b"REQUEST_METHOD"), path(&get), get(b"QUERY_STRING"));
    let is_head = method == "HEAD";
    if !is_head && method != "GET" {
        return response("405 Method Not Allowed", TEXT, "use GET\n", false);
    }
    let is = |known: &Option<String>| known.as_ref().is_some_and(|known| *known == path);
    if is(&paths.ping) {
        return if serves(&status()) {
            response("200 OK", TEXT, &paths.ping_response, is_head)
        } else {
            response("503 Service Unavailable", TEXT, "no worker serves\n", is_head)
        };
    }
    if !is(&paths.status) {
        return response("404 Not Found", TEXT, "not found\n", is_head);
    }
    let asks_for = |word: &str| query.split('&').any(|part| part == word);
    // The types of a status cannot make serialization fail.
    let mut status = serde_json::to_value(status()).unwrap_or_default();
    if let Some(fields) = status.as_object_mut() {
        // `wsgate status` finds out both, and the pool does not.
        fields.retain(|name, _| !["user", "directory"].contains(&&**name));
        if !asks_for("full") {
            fields.remove("workers");
        }
    }
    if asks_for("json") {
        let body = escape::json(format!("{status}\n"));
        return response("200 OK", JSON, &body, is_head);
    }
    let mut text = String::new();
    write_text(&status, "", &mut text);
    response("200 OK", TEXT, &text, is_head)
}

/// The path that the web server asks for: that of the script and the rest, as an application would
/// see them, or else the path of the request.
fn path<'a>(get: &impl Fn(&[u8]) -> std::borrow::Cow<'a, str>) -> String {
    let path = format!("{}{}", get(b"SCRIPT_NAME"), get(b"PATH_INFO"));
    if path.is_empty() {
        get(b"REQUEST_URI").split('?').next().unwrap_or_default().to_owned()
    } else {
        path
    }
}

/// Can the pool serve a request? Without a worker, a pool that has loaded its code starts one.
fn serves(status: &PoolStatus) -> bool {
    let has_worker = status.workers.iter().any(|worker| !worker.leaving);
    let is_able = (status.generation > 0 || status.resting) && status.failed_load.is_none();
    !status.stopping && (has_worker || is_able)
}

/// Writes each field as a line `name: value`, fields of objects as `outer.name`. An empty line
/// comes before each object of a list.
fn write_text(value: &Value, name: &str, text: &mut String) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(field, value)| {
            let name = if name.is_empty() { field.clone() } else { format!("{name}.{field}") };
            write_text(value, &name, text);
        }),
        Value::Array(items) if items.iter().any(Value::is_object) => {
            for item in items {
                text.push('\n');
                write_text(item, name, text);
            }
        }
        Value::Null => text.push_str(&format!("{name}:\n")),
        Value::String(string) => text.push_str(&format!("{name}: {}\n", Escaped(string))),
        other => text.push_str(&format!("{name}: {other}\n")),
    }
}

fn response(status: &str, content_type: &str, body: &str, is_head: bool) -> Vec<u8> {
    let head = format!(
        "Status: {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), if is_head { b"" } else { body.as_bytes() }].concat()
}

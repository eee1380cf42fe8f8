//! Pages that reload themselves: a script at the end of HTML pages waits for events of the server.

use std::{io, time::Duration};

use hyper::{
    HeaderMap, Method, Response, StatusCode,
    body::Bytes,
    header::{ACCEPT, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue},
    http::request::Parts,
};
use tokio::{
    sync::{
        mpsc::{Sender, channel},
        watch,
    },
    task::spawn_local,
    time::timeout,
};

use crate::serve::{body::ResponseBody, pages::response};

/// The path of the stream of events.
const EVENTS_PATH: &str = "/.wsgate/live";

/// The path of the script.
const SCRIPT_PATH: &str = "/.wsgate/live.js";

/// The script.
const SCRIPT: &str = include_str!("live.js");

/// How often a silent stream sends something: a closed browser is noticed then.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// The numbers of the code that runs. A new one comes with each change.
pub(super) struct Live {
    /// Changes whenever the server starts: a page of an earlier server reloads itself.
    server: String,
    numbers: watch::Receiver<u64>,
}

impl Live {
    /// Sends `numbers` to pages.
    pub(super) fn new(numbers: watch::Receiver<u64>) -> Self {
        let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        Self { server: format!("{:x}", since.as_millis()), numbers }
    }

    /// The response to a request for the script or the events.
    pub(super) fn answer(&self, parts: &Parts) -> Option<Response<ResponseBody>> {
        if parts.method != Method::GET {
            return None;
        }
        match parts.uri.path() {
            SCRIPT_PATH => {
                Some(response(StatusCode::OK, "text/javascript; charset=utf-8", SCRIPT.to_owned()))
            }
            EVENTS_PATH => {
                let (sender, blocks) = channel(1);
                spawn_local(send(self.server.clone(), self.numbers.clone(), sender));
                let events = response(StatusCode::OK, "text/event-stream", String::new());
                Some(events.map(|_| ResponseBody::blocks(blocks)))
            }
            _ => None,
        }
    }

    /// Is `path` a path of the server itself? Its requests are no requests of the application.
    pub(super) fn is_own(path: &str) -> bool {
        [SCRIPT_PATH, EVENTS_PATH].contains(&path)
    }

    /// `response` of the code with `number`. If a browser shows it as a page, the script follows.
    pub(super) fn complete(
        &self,
        number: u64,
        parts: &Parts,
        mut response: Response<ResponseBody>,
    ) -> Response<ResponseBody> {
        let headers = response.headers();
        let is_html = headers.get(CONTENT_TYPE).is_some_and(|it| is_html(it.as_bytes()));
        let has_body = !matches!(response.status().as_u16(), 204 | 206 | 304);
        if !is_html || !has_body || headers.contains_key(CONTENT_ENCODING) || !shows(parts) {
            return response;
        }
        // The number tells the script whether newer code runs.
        let server = &self.server;
        let tag = format!("\n<script src=\"{SCRIPT_PATH}?{server}-{number}\"></script>\n");
        let length = headers.get(CONTENT_LENGTH).and_then(|it| it.to_str().ok()?.parse().ok());
        if let Some(length) = length {
            let longer: u64 = u64::saturating_add(length, tag.len() as u64);
            response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(longer));
        }
        response.map(|body| body.with_suffix(Bytes::from(tag)))
    }
}

fn is_html(content_type: &[u8]) -> bool {
    content_type.get(..9).is_some_and(|start| start.eq_ignore_ascii_case(b"text/html"))
}

/// Does a browser show the response as a page? Scripts and other programs get it as it is.
fn shows(parts: &Parts) -> bool {
    let value = |headers: &HeaderMap, name: &str| {
        headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
    };
    match value(&parts.headers, "sec-fetch-dest") {
        Some(destination) => ["document", "iframe"].contains(&&*destination),
        // Browsers send no such header to other machines without TLS.
        None => value(&parts.headers, ACCEPT.as_str())
            .is_some_and(|accept| accept.to_ascii_lowercase().contains("text/html")),
    }
}

/// Sends the number to a page, and each new one.
async fn send(server: String, mut numbers: watch::Receiver<u64>, page: Sender<io::Result<Bytes>>) {
    loop {
        let event = format!("data: {server}-{}\n\n", *numbers.borrow_and_update());
        if page.send(Ok(event.into())).await.is_err() {
            return;
        }
        while let Err(_elapsed) = timeout(HEARTBEAT, numbers.changed()).await {
            if page.send(Ok(Bytes::from_static(b":\n\n"))).await.is_err() {
                return;
            }
        }
    }
}

//! The pages of the monitor. All of them only read.

use std::{cell::RefCell, collections::BTreeMap, convert::Infallible, rc::Rc};

use control::pool_status::PoolStatus;
use diagnostics::escape::{
    Escaped, {self},
};
use hyper::{Method, Request, StatusCode, body::Bytes, header::ACCEPT};
use wire::percent;

use crate::{
    access::{Access, Denial, Origin},
    exposition::Format,
    metrics,
    page::Page,
    pools::{PoolRecord, PoolRecords, Pools},
    response::{Answer, answer, sentence, with_header},
};

/// A page that is made from the status of all pools.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum View {
    Page,
    Json,
    Metrics(Format),
}

/// The pages, and the last text of each.
pub(crate) struct Routes {
    access: Access,
    pools: Rc<Pools>,
    page: Page,
    /// Each text with the version of the records that it was made from.
    texts: RefCell<BTreeMap<View, (u64, Bytes)>>,
}

impl Routes {
    /// The pages about `pools`.
    pub(crate) fn new(access: Access, pools: Rc<Pools>) -> Self {
        Self { access, pools, page: Page::new(), texts: RefCell::default() }
    }

    /// Answers a request.
    ///
    /// # Errors
    /// Never.
    pub(crate) async fn answer<B>(
        &self,
        request: &Request<B>,
        origin: Origin,
    ) -> Result<Answer, Infallible> {
        Ok(self.answered(request, origin).await)
    }

    async fn answered<B>(&self, request: &Request<B>, origin: Origin) -> Answer {
        if ![Method::GET, Method::HEAD].contains(request.method()) {
            let refused = sentence(StatusCode::METHOD_NOT_ALLOWED, "use GET or HEAD");
            return with_header(refused, "allow", "GET, HEAD");
        }
        let path = request.uri().path();
        if path == "/healthz" {
            return sentence(StatusCode::OK, "ok");
        }
        match self.access.check(request.headers(), origin) {
            Ok(()) => {}
            Err(Denial::Token) => {
                let refused = sentence(
                    StatusCode::UNAUTHORIZED,
                    "send the token of --token-file: `Authorization: Bearer TOKEN`, or as the \
                     password in a browser",
                );
                let challenge = "Basic realm=\"wsgate monitor\", charset=\"UTF-8\"";
                return with_header(refused, "www-authenticate", challenge);
            }
            Err(Denial::Host) => {
                return sentence(
                    StatusCode::MISDIRECTED_REQUEST,
                    "the Host header is neither an address nor `localhost`: use \
                     http://127.0.0.1:PORT/, or start the monitor with --token-file",
                );
            }
        }
        match path {
            "/" => {
                let body = self.text(View::Page).await;
                self.html(body)
            }
            "/metrics" => {
                let accept = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok());
                let format = Format::accepted(accept.unwrap_or_default());
                let body = self.text(View::Metrics(format)).await;
                let metrics = answer(StatusCode::OK, format.content_type(), body);
                with_header(metrics, "vary", "Accept")
            }
            "/pools.json" => {
                let body = self.text(View::Json).await;
                answer(StatusCode::OK, "application/json", body)
            }
            "/stacks" => self.stacks(request.uri().query().unwrap_or_default()).await,
            "/readyz" => self.readiness(request.uri().query().unwrap_or_default()).await,
            _ => sentence(
                StatusCode::NOT_FOUND,
                "there are /, /metrics, /pools.json, /healthz, /readyz?pool=NAME and \
                 /stacks?pool=NAME&pid=PID",
            ),
        }
    }

    /// The text of a view. Requests of the same moment share it.
    async fn text(&self, view: View) -> Bytes {
        self.pools.refresh().await;
        self.pools.read(|records, version| {
            let mut texts = self.texts.borrow_mut();
            if let Some((made, text)) = texts.get(&view)
                && *made == version
            {
                return text.clone();
            }
            let text = match view {
                View::Page => self.page.render(records, self.pools.search_failure().as_deref()),
                View::Json => json(records),
                View::Metrics(format) => metrics::render(records, format),
            };
            let text = Bytes::from(text);
            texts.insert(view, (version, text.clone()));
            text
        })
    }

    async fn stacks(&self, query: &str) -> Answer {
        if let Some(refused) = unknown_parameter(query, &["pool", "pid"]) {
            return refused;
        }
        let pid = parameter(query, "pid").and_then(|pid| str::from_utf8(&pid).ok()?.parse().ok());
        let (Some(name), Some(pid)) = (parameter(query, "pool"), pid) else {
            return sentence(
                StatusCode::BAD_REQUEST,
                "name a pool and a worker: /stacks?pool=NAME&pid=PID",
            );
        };
        match self.pools.stacks(&name, pid).await {
            Some(Ok(stacks)) => self.html(self.page.render_stacks(&stacks).into()),
            Some(Err(error)) => {
                sentence(StatusCode::SERVICE_UNAVAILABLE, &Escaped(&error).to_string())
            }
            None => sentence(StatusCode::NOT_FOUND, "no pool with this name has this worker"),
        }
    }

    fn html(&self, body: Bytes) -> Answer {
        let page = answer(StatusCode::OK, "text/html; charset=utf-8", body);
        with_header(page, "content-security-policy", self.page.policy())
    }

    async fn readiness(&self, query: &str) -> Answer {
        if let Some(refused) = unknown_parameter(query, &["pool"]) {
            return refused;
        }
        let Some(name) = parameter(query, "pool") else {
            return sentence(StatusCode::BAD_REQUEST, "name a pool: /readyz?pool=NAME");
        };
        self.pools.refresh().await;
        self.pools.read(|records, _| {
            let named = records.iter().filter(|(socket, record)| record.is_named(socket, &name));
            let mut reasons = named.map(|(_, record)| unreadiness(record)).peekable();
            if reasons.peek().is_none() {
                return sentence(StatusCode::NOT_FOUND, "no pool with this name is running");
            }
            match reasons.flatten().next() {
                None => sentence(StatusCode::OK, "ready"),
                Some(reason) => sentence(StatusCode::SERVICE_UNAVAILABLE, &reason),
            }
        })
    }
}

/// The refusal of a query with a parameter that is not one of `known`.
fn unknown_parameter(query: &str, known: &[&str]) -> Option<Answer> {
    let names = query.split('&').map(|pair| pair.split_once('=').map_or(pair, |(name, _)| name));
    let mut unknown = names.filter(|name| !name.is_empty() && !known.contains(name));
    unknown.next().map(|name| {
        let known = known.join("` and `");
        let refused = format!("unknown parameter `{}`; there are `{known}`", Escaped(name));
        sentence(StatusCode::BAD_REQUEST, &refused)
    })
}

/// The value of a parameter of the query.
fn parameter(query: &str, name: &str) -> Option<Vec<u8>> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| percent::decode(value.as_bytes()))
}

/// Why a pool cannot serve a request now.
fn unreadiness(record: &PoolRecord) -> Option<String> {
    let Some(status) = record.status() else {
        return Some(record.failure().unwrap_or("the pool has not answered yet").to_owned());
    };
    let mut workers = status.workers.iter().filter(|worker| !worker.leaving).peekable();
    match status {
        PoolStatus { stopping: true, .. } => Some("the pool is stopping".to_owned()),
        // The next connection starts a worker.
        PoolStatus { resting: true, .. } => None,
        _ if workers.peek().is_none() => Some("no worker of the pool serves".to_owned()),
        _ if workers.all(|worker| worker.stopped) => status.stopped_sentence(),
        _ => None,
    }
}

/// The status of each pool, with the field `up`. A pool that does not answer has `failure` instead.
fn json(records: &PoolRecords) -> String {
    let statuses = records.iter().map(|(socket, record)| {
        let status = record.status().and_then(|status| serde_json::to_value(status).ok());
        match status {
            Some(mut status) => {
                status["up"] = true.into();
                status
            }
            None => serde_json::json!({
                "name": socket.name(),
                "directory": socket.directory().to_string_lossy(),
                "user": record.user(),
                "up": false,
                "failure": record.failure(),
            }),
        }
    });
    escape::json(serde_json::Value::from_iter(statuses).to_string())
}

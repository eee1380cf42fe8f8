//! Answers requests: from the application, or with a page that says why there is no response.

use std::{os::fd::OwnedFd, rc::Rc, time::Duration};

use http_body_util::Empty;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body as _, Incoming},
    header::HOST,
    http::request::Parts,
};
use wire::serve::ServeLaunch;

use crate::{
    access::has_local_host,
    serve::{
        body::ResponseBody,
        cgi::CgiDirectory,
        console::Console,
        environ::{Ends, variables},
        exchange::{ExchangeError, exchange},
        live::Live,
        pages::{app_not_loaded, sentence},
        pool::AppPools,
        static_files::StaticFiles,
    },
};

/// How long a request waits for the exit of a pool that has closed its connection.
const EXIT_WAIT: Duration = Duration::from_millis(200);

/// What a server answers.
pub(super) struct Site {
    /// The host that clients may name, beside addresses and `localhost`.
    host: String,
    content: Content,
    console: Console,
    static_files: StaticFiles,
    /// Whether pages reload themselves.
    live: Option<Live>,
}

/// What is served.
pub(super) enum Content {
    Application(Rc<AppPools>),
    Cgi(CgiDirectory),
}

impl Site {
    /// Serves `content`.
    pub(super) fn new(launch: &ServeLaunch, content: Content) -> Self {
        let live = match &content {
            Content::Application(pools) if launch.live => Some(Live::new(pools.numbers())),
            _ => None,
        };
        Self {
            host: launch.host.clone(),
            content,
            console: Console::new(),
            static_files: StaticFiles::new(&launch.static_files),
            live,
        }
    }

    /// Where lines about requests are printed.
    pub(super) fn console(&self) -> Console {
        self.console
    }

    /// Answers a request on the connection `client` between `ends`.
    pub(super) async fn answer(
        &self,
        request: Request<Incoming>,
        ends: Ends,
        client: Rc<OwnedFd>,
    ) -> Response<ResponseBody> {
        let (parts, body) = request.into_parts();
        if self.live.is_some() && Live::is_own(parts.uri.path()) {
            let answer = self.refusal(&parts, ends).or_else(|| self.live.as_ref()?.answer(&parts));
            return answer.unwrap_or_else(|| sentence(StatusCode::METHOD_NOT_ALLOWED, "use GET"));
        }
        let mut line = self.console.line(parts.method.as_str(), parts.uri.path(), client);
        let own = self.refusal(&parts, ends).or_else(|| self.static_files.answer(&parts));
        let response = match own {
            Some(response) => response,
            None => match &self.content {
                Content::Cgi(programs) => programs.answer(&parts, body, ends).await,
                Content::Application(pools) => {
                    let (number, response) = of_application(pools, &parts, body, ends).await;
                    match &self.live {
                        Some(live) => live.complete(number, &parts, response),
                        None => response,
                    }
                }
            },
        };
        line.set_status(response.status());
        if parts.method == Method::HEAD || matches!(response.status().as_u16(), 204 | 304) {
            // hyper sends no body, and does not ask for it.
            line.finish();
            return response;
        }
        response.map(|body| body.with_line(line))
    }

    /// Why a request is not passed to the application.
    fn refusal(&self, parts: &Parts, ends: Ends) -> Option<Response<ResponseBody>> {
        if [Method::CONNECT, Method::TRACE].contains(&parts.method) {
            return Some(sentence(
                StatusCode::NOT_IMPLEMENTED,
                "a development server has no CONNECT and no TRACE",
            ));
        }
        let is_host = |host: &str| {
            let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
            name.eq_ignore_ascii_case(&self.host)
                || name.to_ascii_lowercase().ends_with(".localhost")
        };
        let host = parts.headers.get(HOST).and_then(|host| host.to_str().ok());
        let is_known = !ends.server.ip().is_loopback()
            || has_local_host(&parts.headers)
            || host.is_some_and(is_host);
        (!is_known).then(|| {
            sentence(
                StatusCode::MISDIRECTED_REQUEST,
                "the Host header is neither an address, `localhost` nor the name of --host: \
                 another web site may have sent your browser here",
            )
        })
    }
}

/// The response of the application, and the number of the code that has made it.
async fn of_application(
    pools: &AppPools,
    parts: &Parts,
    body: Incoming,
    ends: Ends,
) -> (u64, Response<ResponseBody>) {
    let variables = variables(parts, ends);
    let mut body = Some(body).filter(|body| !body.is_end_stream());
    let has_body = body.is_some();
    let (pool, error) = loop {
        let pool = pools.ready().await;
        let result = match body.take() {
            Some(body) => exchange(&pool.socket, &variables, body).await,
            None => exchange(&pool.socket, &variables, Empty::new()).await,
        };
        match result {
            Ok(response) => return (pool.number, response),
            // The pool was stopped before it took the request.
            Err(ExchangeError::NoPool) if pools.is_old(&pool) && !has_body => {}
            Err(error) => break (pool, error),
        }
    };
    let response = match error {
        ExchangeError::NoPool if pools.is_old(&pool) => sentence(
            StatusCode::SERVICE_UNAVAILABLE,
            "the application was loaded again before it took the request: send it again",
        ),
        ExchangeError::NoPool => match pool.failure(EXIT_WAIT).await {
            Some(log) => app_not_loaded(&log),
            None => sentence(
                StatusCode::BAD_GATEWAY,
                "the process of the application has ended without a response; the terminal \
                 shows why",
            ),
        },
        ExchangeError::BadRequestBody => {
            sentence(StatusCode::BAD_REQUEST, "the request body breaks the rules of HTTP")
        }
        ExchangeError::TooLong => sentence(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "the headers are longer than FastCGI allows",
        ),
        ExchangeError::BadResponse(what) => sentence(
            StatusCode::BAD_GATEWAY,
            &format!("the response of the application has {what}"),
        ),
    };
    (pool.number, response)
}

//! Responses of the server itself.

use hyper::{
    Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue},
};
use maud::{DOCTYPE, html};

use crate::serve::body::ResponseBody;

/// The style of pages.
const STYLE: &str = "\
:root { color-scheme: light dark }
body { font: 1rem/1.5 system-ui, sans-serif; margin: 2rem auto; padding: 0 1rem; max-width: 60rem }
pre { overflow-x: auto; padding: 1rem; border: 1px solid; border-radius: .25rem }";

/// A response of one sentence.
pub(super) fn sentence(status: StatusCode, sentence: &str) -> Response<ResponseBody> {
    response(status, "text/plain; charset=utf-8", format!("{sentence}\n"))
}

/// The page about an application that cannot be loaded, with the log of its pool.
pub(super) fn app_not_loaded(log: &str) -> Response<ResponseBody> {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "The application cannot be loaded" }
                style { (STYLE) }
            }
            body {
                h1 { "The application cannot be loaded" }
                pre tabindex="0" { (log) }
                p { "The next change of a file loads it again." }
            }
        }
    };
    response(StatusCode::INTERNAL_SERVER_ERROR, "text/html; charset=utf-8", page.into_string())
}

/// A response of one text, which no cache keeps.
pub(super) fn response(
    status: StatusCode,
    content_type: &'static str,
    text: String,
) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::text(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

//! The response that stands in for an application's own when that fails: complete, short, and
//! silent about causes unless the deployer asked for them (RFC 3875 6.2, 6.3.3).

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::escape::is_hidden;

/// How the head of a response is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ResponseFormat {
    /// `Status:` and headers, which the web server completes (RFC 3875 6.2).
    Cgi,
    /// The same over FastCGI, in an order of fields that every web server understands.
    FastCgi,
    /// A whole HTTP response, for scripts whose name begins with `nph-` (RFC 3875 5).
    NonParsed,
}

/// Status of a stand-in response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// The request itself is wrong.
    BadRequest,
    /// The program was called in a way that the deployer has not allowed.
    Forbidden,
    /// The application or its set-up is at fault.
    InternalServerError,
    /// The process that served the request died.
    BadGateway,
    /// The request was ended from outside, or the machine has nothing left to serve it with.
    ServiceUnavailable,
    /// The request took longer than it may.
    GatewayTimeout,
}

impl Status {
    /// Code and reason phrase as they stand in a status line.
    pub const fn line(self) -> &'static str {
        match self {
            Self::BadRequest => "400 Bad Request",
            Self::Forbidden => "403 Forbidden",
            Self::InternalServerError => "500 Internal Server Error",
            Self::BadGateway => "502 Bad Gateway",
            Self::ServiceUnavailable => "503 Service Unavailable",
            Self::GatewayTimeout => "504 Gateway Timeout",
        }
    }

    /// The reason phrase alone.
    const fn reason(self) -> &'static str {
        // Three digits and a space stand before it in every line above.
        self.line().split_at(4).1
    }
}

impl ResponseFormat {
    /// What stands before and after a status such as `200 OK` at the beginning of a head, line ends
    /// included.
    pub const fn around_status(self) -> (&'static str, &'static str) {
        match self {
            Self::Cgi | Self::FastCgi => ("Status: ", "\r\n"),
            // The connection ends with the response, since nothing says how long the body is (RFC
            // 3875 5.2).
            Self::NonParsed => ("HTTP/1.1 ", "\r\nConnection: close\r\n"),
        }
    }
}

/// A stand-in response.
#[derive(Clone, Debug)]
pub struct Page<'a> {
    /// What went wrong, in a number.
    pub status: Status,
    /// Ties the page to its log message.
    pub request_id: &'a str,
    /// What the client is shown beside the id; only with `--debug`.
    pub detail: Option<&'a str>,
    /// A `HEAD` request: no body (RFC 3875 4.3.3).
    pub head_only: bool,
}

impl Page<'_> {
    /// The whole response.
    pub fn render(&self, form: ResponseFormat) -> Vec<u8> {
        let mut body = format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta \
                charset=\"utf-8\"><title>{status}</title></head>\n\
             <body>\n<h1>{reason}</h1>\n<p>Request id: <code>{id}</code></p>\n",
            status = self.status.line(),
            reason = self.status.reason(),
            id = HtmlEscaped(self.request_id),
        );
        if let Some(detail) = self.detail {
            // Writing to a string cannot fail.
            let _ = writeln!(body, "<pre>{}</pre>", HtmlEscaped(detail));
        }
        body.push_str("</body>\n</html>\n");
        let (before, after) = form.around_status();
        let mut response = format!("{before}{}{after}", self.status.line());
        let _ = write!(
            response,
            "Content-Type: text/html; charset=utf-8\r\nCache-Control: no-store\r\nContent-Length: \
                {}\r\n\r\n",
            body.len()
        );
        if !self.head_only {
            response.push_str(&body);
        }
        response.into_bytes()
    }
}

/// Text as it may stand in HTML.
struct HtmlEscaped<'a>(&'a str);

impl std::fmt::Display for HtmlEscaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.chars().try_for_each(|character| match character {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '"' => f.write_str("&quot;"),
            '\'' => f.write_str("&#39;"),
            '\n' => f.write_char('\n'),
            hidden if is_hidden(hidden) => write!(f, "{}", hidden.escape_default()),
            other => f.write_char(other),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(detail: Option<&str>, head_only: bool) -> String {
        let page = Page { status: Status::BadGateway, request_id: "abc", detail, head_only };
        String::from_utf8(page.render(ResponseFormat::Cgi)).unwrap()
    }

    #[test]
    fn the_length_of_the_body_is_the_length_that_is_announced() {
        let response = page(None, false);
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("Status: 502 Bad Gateway\r\n"), "{head}");
        assert!(head.ends_with(&format!("Content-Length: {}", body.len())), "{head}");
        assert!(body.contains("<h1>Bad Gateway</h1>"), "{body}");
    }

    #[test]
    fn a_head_request_gets_the_head_alone() {
        assert!(page(None, true).ends_with("\r\n\r\n"));
    }

    #[test]
    fn a_detail_cannot_become_markup() {
        assert!(page(Some("<script>'\"&"), false).contains("&lt;script&gt;&#39;&quot;&amp;"));
        assert!(page(Some("a\nb\u{202e}c"), false).contains("<pre>a\nb\\u{202e}c</pre>"));
    }

    #[test]
    fn a_non_parsed_response_is_a_whole_http_response() {
        let page = Page {
            status: Status::GatewayTimeout,
            request_id: "abc",
            detail: None,
            head_only: true,
        };
        assert!(
            page.render(ResponseFormat::NonParsed)
                .starts_with(b"HTTP/1.1 504 Gateway Timeout\r\nConnection: close\r\n")
        );
    }
}

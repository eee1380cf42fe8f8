//! The error page: a complete, short response in place of the application's own. It does not show
//! the cause without `--debug` (RFC 3875 6.2, 6.3.3).

use std::fmt::Write as _;

use crate::{escape::is_hidden, request_id};

/// Seconds after which a client may try again, in responses with status 503 (RFC 9110, 10.2.3).
const RETRY_AFTER_SECS: u32 = 5;

/// Status of an error page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// The request is malformed.
    BadRequest,
    /// The program was requested in a way that is not allowed.
    Forbidden,
    /// The application or its configuration is wrong.
    InternalServerError,
    /// The process that served the request was killed or exited.
    BadGateway,
    /// The request was stopped, or no process is left to serve it.
    ServiceUnavailable,
    /// The request exceeded its timeout.
    GatewayTimeout,
}

impl Status {
    /// Status code and reason phrase.
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

    /// Status code.
    pub fn code(self) -> u16 {
        // Every line above begins with three digits.
        self.line().split_at(3).0.parse().unwrap_or(500)
    }

    /// The reason phrase without the code.
    const fn reason(self) -> &'static str {
        // In every line above, three digits and a space come first.
        self.line().split_at(4).1
    }
}

/// An error page.
#[derive(Clone, Debug)]
pub struct Page<'a> {
    /// The status of the response.
    pub status: Status,
    /// Id of the request, which its log message has, too.
    pub request_id: &'a str,
    /// The text of the log message; only with `--debug`.
    pub detail: Option<&'a str>,
    /// The method is `HEAD`: the response has no body (RFC 3875 4.3.3).
    pub head_only: bool,
}

impl Page<'_> {
    /// Renders the response. `around_status` is the text before and after the status at the
    /// beginning of the response headers, line ends included.
    pub fn render(&self, around_status: (&str, &str)) -> Vec<u8> {
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
        let (before, after) = around_status;
        let mut response = format!("{before}{}{after}", self.status.line());
        if self.status == Status::ServiceUnavailable {
            let _ = write!(response, "Retry-After: {RETRY_AFTER_SECS}\r\n");
        }
        if request_id::is_sent() {
            let _ = write!(response, "{}: {}\r\n", request_id::HEADER, self.request_id);
        }
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

/// Text that is escaped for HTML.
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

    const CGI: (&str, &str) = ("Status: ", "\r\n");

    fn page(detail: Option<&str>, head_only: bool) -> String {
        let page = Page { status: Status::BadGateway, request_id: "abc", detail, head_only };
        String::from_utf8(page.render(CGI)).unwrap()
    }

    #[test]
    fn content_length_is_the_length_of_the_body() {
        let response = page(None, false);
        let (headers, body) = response.split_once("\r\n\r\n").unwrap();
        assert!(headers.starts_with("Status: 502 Bad Gateway\r\n"), "{headers}");
        assert!(headers.ends_with(&format!("Content-Length: {}", body.len())), "{headers}");
        assert!(body.contains("<h1>Bad Gateway</h1>"), "{body}");
    }

    #[test]
    fn a_page_of_an_overloaded_server_says_when_to_try_again() {
        let page = Page {
            status: Status::ServiceUnavailable,
            request_id: "abc",
            detail: None,
            head_only: false,
        };
        let expected = b"Status: 503 Service Unavailable\r\nRetry-After: 5\r\nContent-Type: ";
        assert!(page.render(CGI).starts_with(expected));
    }

    #[test]
    fn a_response_to_head_has_no_body() {
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
            page.render(("HTTP/1.1 ", "\r\nConnection: close\r\n"))
                .starts_with(b"HTTP/1.1 504 Gateway Timeout\r\nConnection: close\r\n")
        );
    }
}

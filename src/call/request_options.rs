//! The options of `wsgate call` about the request and its response, named as curl names them.

use std::{ffi::OsString, path::PathBuf};

use clap::Args;

use crate::config::options::{Context, contexts::ActsIn, count};

/// One request.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Request")]
pub(crate) struct CallOptions {
    /// Send a request with METHOD [default: GET, HEAD with -I, or POST with a request body]
    #[arg(short = 'X', long = "request", value_name = "METHOD")]
    pub(crate) method: Option<String>,

    /// Add a request header, `Name: value` (repeatable)
    ///
    /// `Name:` removes a header that wsgate sends, `Name;` sends one without a value, and @FILE
    /// reads headers from FILE, one a line.
    #[arg(short = 'H', long = "header", value_name = "HEADER")]
    pub(crate) headers: Vec<OsString>,

    /// Send a HEAD request, and print the response headers
    #[arg(short = 'I', long)]
    pub(crate) head: bool,

    /// Send the data of -d in the query of a GET request
    #[arg(short = 'G', long)]
    pub(crate) get: bool,

    /// Set HTTPS to `on`, as for a request over TLS
    #[arg(long)]
    pub(crate) https: bool,

    /// Send the request to HOST, as NAME or NAME:PORT
    #[arg(long, value_name = "HOST", default_value = "localhost")]
    pub(crate) host: String,

    /// Send USER and PASSWORD in an Authorization header (Basic)
    #[arg(short = 'u', long = "user", value_name = "USER:PASSWORD")]
    pub(crate) credentials: Option<String>,

    /// Set REMOTE_USER, as if the web server had authenticated USER
    #[arg(long, value_name = "USER")]
    pub(crate) remote_user: Option<String>,

    /// Send AGENT as User-Agent
    #[arg(short = 'A', long, value_name = "AGENT")]
    pub(crate) user_agent: Option<String>,

    /// Send URL as Referer
    ///
    /// With `;auto` at its end, each redirect sends the URL before it.
    #[arg(short = 'e', long, value_name = "URL")]
    pub(crate) referer: Option<String>,

    /// Send cookies: `NAME=VALUE; NAME=VALUE`, or those in the file COOKIES (repeatable)
    ///
    /// The file has the format of -c, or lines `Set-Cookie: ...`. A cookie of a file is sent where
    /// its domain and path match.
    #[arg(short = 'b', long = "cookie", value_name = "COOKIES")]
    pub(crate) cookies: Vec<String>,

    /// Write all cookies to FILE afterwards, in the format of curl and Netscape
    #[arg(short = 'c', long, value_name = "FILE")]
    pub(crate) cookie_jar: Option<PathBuf>,

    /// Send another request where the response redirects to a URL of this application
    #[arg(short = 'L', long)]
    pub(crate) location: bool,

    /// Stop after COUNT redirects
    #[arg(long, value_name = "COUNT", default_value_t = 50, value_parser = count(0, 1000))]
    pub(crate) max_redirs: u32,

    /// Send Accept-Encoding for gzip and deflate, and print the decompressed response
    #[arg(long)]
    pub(crate) compressed: bool,
}

impl ActsIn for CallOptions {
    const CONTEXTS: &'static [Context] = &[Context::Call, Context::Via];
}

/// The output of the response.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Output")]
pub(crate) struct OutputOptions {
    /// Print the response headers, too
    #[arg(short = 'i', long)]
    pub(crate) include: bool,

    /// Write the response to FILE
    #[arg(short = 'o', long, value_name = "FILE", conflicts_with = "remote_name")]
    pub(crate) output: Option<PathBuf>,

    /// Write the response to a file of the working directory, named as the last part of the URL
    #[arg(short = 'O', long)]
    pub(crate) remote_name: bool,

    /// Print an error instead of the response if its status is 400 or more
    #[arg(short = 'f', long)]
    pub(crate) fail: bool,

    /// Print TEXT after the response, with variables such as `%{http_code}`
    ///
    /// TEXT may be @FILE. The variables are those of curl: content_type, filename_effective,
    /// http_code, http_version, method, num_headers, num_redirects, redirect_url, response_code,
    /// scheme, size_download, size_header, size_upload, speed_download, speed_upload,
    /// time_starttransfer, time_total, url, url_effective, and `%header{NAME}`.
    #[arg(short = 'w', long, value_name = "TEXT")]
    pub(crate) write_out: Option<String>,

    /// Print no messages of wsgate about the command itself
    #[arg(short = 's', long)]
    pub(crate) silent: bool,

    /// Print the environ of the request to standard error
    #[arg(short = 'v', long)]
    pub(crate) verbose: bool,
}

impl ActsIn for OutputOptions {
    const CONTEXTS: &'static [Context] = &[Context::Call, Context::Via];
}

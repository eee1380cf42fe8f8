//! The status page of a FastCGI pool: what answers it, and where.

use clap::Args;

use crate::{
    config::options::{Context, contexts::ActsIn},
    pool::address::Address,
};

/// Text of the response to a ping, as php-fpm sends it.
const DEFAULT_PING_RESPONSE: &str = "pong";

/// The options of a pool about its status page.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Status page")]
pub(crate) struct StatusOptions {
    /// Listen on ADDRESS for requests for --status-path and --ping-path: unix:PATH or HOST:PORT
    ///
    /// The supervisor answers them over FastCGI, without Python and even if all workers are stuck.
    /// The addresses of --listen never show the status.
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    status_listen: Option<Address>,

    /// Show the status of the pool at the URL path PATH of --status-listen
    ///
    /// The query `json` asks for JSON, `full` for the workers with their requests.
    #[arg(long, value_name = "PATH", requires = "status_listen", value_parser = url_path)]
    status_path: Option<String>,

    /// Return --ping-response at the URL path PATH of --status-listen while the pool serves, and
    /// 503 otherwise
    #[arg(long, value_name = "PATH", requires = "status_listen", value_parser = url_path)]
    ping_path: Option<String>,

    /// Return TEXT at --ping-path [default: pong]
    #[arg(long, value_name = "TEXT", requires = "ping_path")]
    ping_response: Option<String>,
}

impl ActsIn for StatusOptions {
    const CONTEXTS: &'static [Context] = &[Context::Pool];
}

/// The URL paths of the status page.
#[derive(Clone, Debug)]
pub(super) struct StatusPaths {
    /// Path of the status.
    pub(super) status: Option<String>,
    /// Path of the ping.
    pub(super) ping: Option<String>,
    /// Response to a ping.
    pub(super) ping_response: String,
}

impl StatusOptions {
    /// The address for status requests.
    pub(super) fn listen(&self) -> Option<&Address> {
        self.status_listen.as_ref()
    }

    /// Each option, and whether `other` has another value.
    pub(super) fn changes(&self, other: &Self) -> [(&'static str, bool); 4] {
        [
            ("status-listen", self.status_listen != other.status_listen),
            ("status-path", self.status_path != other.status_path),
            ("ping-path", self.ping_path != other.ping_path),
            ("ping-response", self.ping_response != other.ping_response),
        ]
    }

    /// The option that a single process without a supervisor cannot have, and whether it was given.
    pub(super) fn given(&self) -> (&'static str, bool) {
        ("status-listen", self.status_listen.is_some())
    }

    /// The message about an address at which nothing would be answered, or which is one of
    /// `listen`, or about a path with two meanings; and a hint.
    pub(super) fn contradiction(&self, listen: &[Address]) -> Option<(String, &'static str)> {
        if let Some(both) = self.status_path.as_ref().filter(|_| self.status_path == self.ping_path)
        {
            let sentence = format!("--status-path and --ping-path are both `{both}`");
            return Some((sentence, "give each a path of its own, such as `/status` and `/ping`"));
        }
        let of_requests = |address: &&Address| address.is_fixed() && listen.contains(address);
        if let Some(address) = self.status_listen.as_ref().filter(of_requests) {
            let sentence =
                format!("--status-listen names `{address}`, where --listen of this pool listens");
            return Some((sentence, "give --status-listen an address of its own"));
        }
        let is_useless = self.status_path.is_none() && self.ping_path.is_none();
        (self.status_listen.is_some() && is_useless).then(|| {
            let sentence = "--status-listen needs --status-path or --ping-path";
            (sentence.to_owned(), "add `--status-path /status`")
        })
    }

    /// The URL paths.
    pub(super) fn paths(&self) -> StatusPaths {
        let response = self.ping_response.as_deref().unwrap_or(DEFAULT_PING_RESPONSE);
        StatusPaths {
            status: self.status_path.clone(),
            ping: self.ping_path.clone(),
            ping_response: response.to_owned(),
        }
    }
}

fn address(value: &str) -> Result<Address, String> {
    match value.parse::<Address>() {
        Ok(Address::Descriptor(_)) => {
            Err("a passed socket cannot be used; name an address such as unix:/run/status.sock"
                .to_owned())
        }
        parsed => parsed.map_err(|error| error.to_string()),
    }
}

fn url_path(value: &str) -> Result<String, String> {
    let is_path = value.starts_with('/')
        && !value.contains(|character: char| character.is_control() || "?#".contains(character));
    if is_path { Ok(value.to_owned()) } else { Err("use a URL path such as /status".to_owned()) }
}

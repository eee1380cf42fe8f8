//! Proxies in front of the web server that are trusted to say where a request came from.

use clap::{ArgAction, Args};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use wire::trusted_proxies::{ProxyHeader, TrustedProxies, network};

use crate::config::options::{
    contexts::{
        ActsIn,
        Context::{self, Call, Cold, LoneWorker, Pool, Resident, Warm},
    },
    nearest::nearest,
};

/// Which proxies are trusted, and which of their headers.
#[derive(Args, Clone, Debug, Default, Deserialize, Serialize)]
#[command(next_help_heading = "Request")]
pub(crate) struct TrustOptions {
    /// Trust the proxies with the addresses CIDR, such as 10.0.0.0/8 or 192.0.2.7, to set the
    /// headers of --trust-header (repeatable)
    ///
    /// A proxy is trusted if it is the client of the web server, REMOTE_ADDR. In a list of
    /// addresses, such as X-Forwarded-For, the last one that is not trusted is the client.
    #[arg(
        long,
        value_name = "CIDR",
        requires = "trust_header",
        value_parser = cidr,
        action = ArgAction::Append
    )]
    trust_proxy: Vec<IpNet>,

    /// Read address, scheme, host, port or path of a request from HEADER, if a trusted proxy sets
    /// it (repeatable)
    ///
    /// HEADER is Forwarded, X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host,
    /// X-Forwarded-Port, X-Forwarded-Prefix, or another name that docs/behind-a-proxy.md lists.
    /// Name only headers that your proxy sets in each request. Other headers for the same purpose,
    /// and headers from other clients, are removed.
    #[arg(
        long,
        value_name = "HEADER",
        requires = "trust_proxy",
        value_parser = header,
        action = ArgAction::Append
    )]
    trust_header: Vec<ProxyHeader>,
}

impl ActsIn for TrustOptions {
    const CONTEXTS: &'static [Context] = &[Cold, Warm, Resident, Pool, LoneWorker, Call];
}

impl TrustOptions {
    /// These options, completed by those of a `#!` line.
    pub(super) fn completed_by(self, line: Self) -> Self {
        Self {
            trust_proxy: [self.trust_proxy, line.trust_proxy].concat(),
            trust_header: [self.trust_header, line.trust_header].concat(),
        }
    }

    /// The trusted proxies, and their headers.
    pub(crate) fn proxies(&self) -> TrustedProxies {
        TrustedProxies { networks: self.trust_proxy.clone(), headers: self.trust_header.clone() }
    }
}

fn cidr(value: &str) -> Result<IpNet, String> {
    network(value).ok_or_else(|| {
        "give an IP address or a network in CIDR notation, such as `10.0.0.0/8`".to_owned()
    })
}

fn header(value: &str) -> Result<ProxyHeader, String> {
    value.parse().map_err(|()| {
        let names = ProxyHeader::ALL.iter().map(|header| header.name());
        let nearest = nearest(value, names.clone());
        let hint = nearest.map(|name| format!("; the nearest is `{name}`")).unwrap_or_default();
        format!(
            "give a header, such as X-Forwarded-For{hint}; possible values: {}",
            names.collect::<Vec<_>>().join(", ")
        )
    })
}

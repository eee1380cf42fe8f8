//! The URL of a request, and the URL that a redirect leads to (RFC 3986 5.2).

use std::fmt;

use anyhow::{Result, bail};
use wire::{
    host_port::HostPort,
    launch::target_parts,
    percent::{decode, encode_path},
};

/// The URL of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Url {
    /// The request comes over TLS.
    pub(super) is_https: bool,
    /// The value of the Host header.
    pub(super) host: String,
    /// The path below that of the application, encoded.
    pub(super) path: String,
    /// The query, without `?`.
    pub(super) query: String,
    /// The URL path of the application, decoded.
    pub(super) script_name: String,
    /// `USER:PASSWORD` before the host, decoded.
    pub(super) credentials: Option<Vec<u8>>,
}

impl Url {
    /// The URL that TARGET names: a path, or a full URL. A path is for `host`.
    ///
    /// # Errors
    /// If `target` is neither a path nor a URL, or the host is none.
    pub(super) fn parse(
        target: &str,
        host: &str,
        is_https: bool,
        script_name: &str,
    ) -> Result<Self> {
        // Browsers do not send the fragment.
        let target = target.split('#').next().unwrap_or_default();
        let (scheme, own_host, rest) = target_parts(target, script_name);
        let is_full = rest.len() < target.len();
        let (credentials, host, is_https) = if is_full {
            let (credentials, host) = match own_host.rsplit_once('@') {
                Some((user, host)) => (Some(decode(user.as_bytes())), host),
                None => (None, own_host),
            };
            let is_https = is_https || scheme == "https";
            check_host(host)?;
            let usual = if is_https { "443" } else { "80" };
            let HostPort { host: name, port } = HostPort::split(host);
            // Browsers and curl leave out the usual port.
            (credentials, if port == Some(usual) { name } else { host }, is_https)
        } else {
            check_host(host)?;
            (None, host, is_https)
        };
        if !(rest.is_empty() || rest.starts_with(['/', '?'])) {
            bail!("{}", not_a_target(target));
        }
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let path = if path.is_empty() && script_name.is_empty() { "/" } else { path };
        if decode(path.as_bytes()).contains(&0) {
            bail!(
                "`{target}` is not a target: its path has a NUL byte (`%00`), which no variable of \
                 a request can hold, and servers answer 400 Bad Request"
            );
        }
        Ok(Self {
            is_https,
            host: host.to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            script_name: script_name.to_owned(),
            credentials,
        })
    }

    /// `http` or `https`.
    pub(super) fn scheme(&self) -> &'static str {
        if self.is_https { "https" } else { "http" }
    }

    /// The path in the URL, with that of the application.
    pub(super) fn whole_path(&self) -> String {
        let mount = encode_path(self.script_name.as_bytes());
        format!("{}{}", String::from_utf8_lossy(&mount), self.path)
    }

    /// The last part of the path, if that can be the name of a file.
    pub(super) fn file_name(&self) -> Option<&str> {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        (!["", ".", ".."].contains(&name)).then_some(name)
    }

    /// The whole URL that the header `Location: reference` means here.
    pub(super) fn resolve(&self, reference: &str) -> String {
        let reference = reference.split('#').next().unwrap_or_default();
        let scheme = self.scheme();
        let has_scheme = reference.split_once(':').is_some_and(|(name, _)| {
            name.starts_with(|c: char| c.is_ascii_alphabetic())
                && name.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
        });
        if has_scheme {
            return reference.to_owned();
        }
        if reference.starts_with("//") {
            return format!("{scheme}:{reference}");
        }
        let (path, query) = match reference.split_once('?') {
            Some((path, query)) => (path, format!("?{query}")),
            None if reference.is_empty() && !self.query.is_empty() => {
                ("", format!("?{}", self.query))
            }
            None => (reference, String::new()),
        };
        let own = self.whole_path();
        let path = match path {
            "" => own,
            path if path.starts_with('/') => without_dots(path),
            path => {
                let directory = own.rfind('/').map_or("/", |slash| &own[..=slash]);
                without_dots(&format!("{directory}{path}"))
            }
        };
        format!("{scheme}://{}{path}{query}", self.host)
    }

    /// The URL `target`, which a redirect from here leads to, if this application serves that.
    ///
    /// # Errors
    /// Why not, as the end of a sentence about `target`.
    pub(super) fn redirected(&self, target: &str) -> Result<Self, String> {
        if !target.starts_with("http://") && !target.starts_with("https://") {
            return Err("which is no URL of http or https".to_owned());
        }
        let (_, host, rest) = target_parts(target, &self.script_name);
        let mut next =
            Self::parse(target, host, false, &self.script_name).map_err(|bad| bad.to_string())?;
        let name = |host: &str| HostPort::split(host).host.to_ascii_lowercase();
        if name(&next.host) != name(&self.host) {
            return Err(format!("at another host than `{}`", self.host));
        }
        let mount = encode_path(self.script_name.as_bytes());
        let path = target.split_once("://").map_or("", |(_, rest)| rest);
        let path = &path[path.find(['/', '?']).unwrap_or(path.len())..];
        if !mount.is_empty() && path == rest {
            return Err(format!("outside of the application at `{}`", self.script_name));
        }
        next.credentials.clone_from(&self.credentials);
        Ok(next)
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let question = if self.query.is_empty() { "" } else { "?" };
        let (scheme, path) = (self.scheme(), self.whole_path());
        write!(f, "{scheme}://{}{path}{question}{}", self.host, self.query)
    }
}

/// `path` without the segments `.` and `..` (RFC 3986 5.2.4).
fn without_dots(path: &str) -> String {
    let mut segments: Vec<&str> = Vec::new();
    let all: Vec<&str> = path.split('/').skip(1).collect();
    for (index, segment) in all.iter().enumerate() {
        let is_last = index + 1 == all.len();
        match *segment {
            "." | ".." => {
                if *segment == ".." {
                    segments.pop();
                }
                if is_last {
                    segments.push("");
                }
            }
            segment => segments.push(segment),
        }
    }
    format!("/{}", segments.join("/"))
}

/// The message about `target`, which is neither a path nor a URL.
fn not_a_target(target: &str) -> String {
    let meant = match target.split_once("://") {
        Some((scheme, rest)) if ["http", "https"].iter().any(|known| is_near(scheme, known)) => {
            let scheme = if scheme.to_ascii_lowercase().contains('s') { "https" } else { "http" };
            format!("`{scheme}://{rest}`")
        }
        Some(_) => return format!("`{target}` is not a target: write /path?query, or a full URL"),
        None => {
            let host = target.split(['/', '?']).next().unwrap_or_default();
            let has_port = HostPort::<Option<&str>>::split(host).port.is_some();
            if has_port || host == "localhost" || host.contains('.') && target.contains('/') {
                format!("`http://{target}`")
            } else {
                format!("`/{target}`")
            }
        }
    };
    format!("`{target}` is not a target: write {meant}, if you mean that, or a full URL")
}

/// Is `scheme` a misspelt `known`?
fn is_near(scheme: &str, known: &str) -> bool {
    strsim::damerau_levenshtein(&scheme.to_ascii_lowercase(), known) <= 1
}

/// Is `host` NAME or NAME:PORT, as a `Host` header has them?
fn check_host(host: &str) -> Result<()> {
    let parts = HostPort::split(host);
    let name = parts.host;
    let is_address = name.starts_with('[') && name.ends_with(']');
    let is_strange = |character: char| {
        character.is_whitespace() || character == '/' || (character == ':' && !is_address)
    };
    if name.is_empty() || name.contains(is_strange) {
        bail!("`{host}` is not a host: write NAME or NAME:PORT, and an IPv6 address in brackets");
    }
    let is_port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
    if let Some(port) = parts.port.filter(|port| !is_port(port)) {
        bail!("`{port}` is not a port, in `{host}`: a port is a number from 1 to 65535");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::Url;

    fn url(target: &str) -> Url {
        Url::parse(target, "localhost", false, "").unwrap()
    }

    #[test]
    fn a_redirect_is_resolved_against_the_url_of_the_request() {
        let base = url("https://x.example:8443/a/b?q");
        for (reference, whole) in [
            ("http://y.example/z", "http://y.example/z"),
            ("//y.example/z", "https://y.example/z"),
            ("/z?r", "https://x.example:8443/z?r"),
            ("z", "https://x.example:8443/a/z"),
            ("../z", "https://x.example:8443/z"),
            ("./", "https://x.example:8443/a/"),
            ("../../..", "https://x.example:8443/"),
            ("?r", "https://x.example:8443/a/b?r"),
            ("z:1/c?d=/../e", "z:1/c?d=/../e"),
            ("/z#f", "https://x.example:8443/z"),
        ] {
            assert_eq!(base.resolve(reference), whole, "{reference}");
        }
    }

    #[test]
    fn a_redirect_leads_to_the_same_application_or_nowhere() {
        let base = Url::parse("/a", "x.example", false, "/app").unwrap();
        assert_eq!(base.redirected("https://x.example/app/z?q").unwrap().path, "/z");
        for (target, reason) in [
            ("http://y.example/app/z", "another host"),
            ("http://x.example/other", "outside of the application"),
            ("ftp://x.example/app", "no URL of http"),
        ] {
            let refused = base.redirected(target).unwrap_err();
            assert!(refused.contains(reason), "{target}: {refused}");
        }
    }

    #[test]
    fn a_target_that_is_none_names_the_nearest_one() {
        for (target, meant) in [
            ("path", "`/path`"),
            ("localhost:8000/a", "`http://localhost:8000/a`"),
            ("example.org/a", "`http://example.org/a`"),
            ("htp://x/a", "`http://x/a`"),
            ("HTTPS://x/a", "`https://x/a`"),
            ("/%00a", "its path has a NUL byte"),
            ("http://h/a%2f%00?b", "its path has a NUL byte"),
        ] {
            let refused = Url::parse(target, "h", false, "").unwrap_err().to_string();
            assert!(refused.contains(meant), "{refused}");
        }
    }
}

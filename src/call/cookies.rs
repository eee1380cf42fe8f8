//! The cookies of a command (RFC 6265), from files and responses, and their file format.

use std::{
    fs::{
        File, {self},
    },
    io::{
        Write as _, {self},
    },
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::call::url::Url;

/// The first lines of a file of cookies; Python's `http.cookiejar` requires the first.
const HEADING: &str = "# Netscape HTTP Cookie File\n# Written by wsgate call.\n\n";

/// The prefix of a line whose cookie scripts of a page do not see.
const HTTP_ONLY: &str = "#HttpOnly_";

/// One cookie.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Cookie {
    domain: String,
    /// Hosts below the domain get the cookie, too.
    has_subdomains: bool,
    path: String,
    is_secure: bool,
    is_http_only: bool,
    /// When the cookie ends, in seconds of the epoch; 0 is the end of a session.
    expires: u64,
    name: String,
    value: String,
}

/// Cookies that are sent where their domain and path match.
#[derive(Clone, Debug, Default)]
pub(super) struct CookieJar(Vec<Cookie>);

impl CookieJar {
    /// Adds the cookies in `text`, the content of a file.
    pub(super) fn read(&mut self, text: &str, url: &Url) {
        for line in text.lines() {
            if let Some(cookie) = Cookie::from_line(line) {
                self.add(cookie);
            } else if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("Set-Cookie")
            {
                self.set(value, url);
            }
        }
    }

    /// Adds the cookie of a response header `Set-Cookie: value` of `url`, or removes it.
    pub(super) fn set(&mut self, value: &str, url: &Url) {
        if let Some(cookie) = Cookie::from_header(value, url) {
            self.add(cookie);
        }
    }

    fn add(&mut self, cookie: Cookie) {
        self.0.retain(|known| {
            (&known.domain, &known.path, &known.name)
                != (&cookie.domain, &cookie.path, &cookie.name)
        });
        if cookie.expires == 0 || cookie.expires > now() {
            self.0.push(cookie);
        }
    }

    /// The cookies for a request to `url`, as the header has them.
    pub(super) fn header(&self, url: &Url) -> Option<String> {
        let mut sent: Vec<&Cookie> = self.0.iter().filter(|cookie| cookie.is_for(url)).collect();
        // Longer paths first (RFC 6265 5.4).
        sent.sort_by_key(|cookie| std::cmp::Reverse(cookie.path.len()));
        let pairs = sent.iter().map(|cookie| format!("{}={}", cookie.name, cookie.value));
        let header = pairs.collect::<Vec<_>>().join("; ");
        (!header.is_empty()).then_some(header)
    }

    /// Writes all cookies to `path`, or to standard output for `-`. The file is for its owner
    /// alone: cookies are as good as passwords.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        let lines = self.0.iter().map(Cookie::to_line).collect::<String>();
        let text = format!("{HEADING}{lines}");
        if path.as_os_str() == "-" {
            return io::stdout().lock().write_all(text.as_bytes());
        }
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        let mut file: File = options.open(path)?;
        file.write_all(text.as_bytes())
    }
}

impl Cookie {
    fn from_line(line: &str) -> Option<Self> {
        let (is_http_only, line) = match line.strip_prefix(HTTP_ONLY) {
            Some(line) => (true, line),
            None => (false, line),
        };
        let fields: Vec<&str> = line.split('\t').collect();
        let [domain, has_subdomains, path, is_secure, expires, name, rest @ ..] = &fields[..]
        else {
            return None;
        };
        Some(Self {
            domain: domain.trim_start_matches('.').to_ascii_lowercase(),
            has_subdomains: *has_subdomains == "TRUE",
            path: (*path).to_owned(),
            is_secure: *is_secure == "TRUE",
            is_http_only,
            expires: expires.parse().ok()?,
            name: (*name).to_owned(),
            value: rest.first().copied().unwrap_or_default().to_owned(),
        })
    }

    fn to_line(&self) -> String {
        let flag = |is_set: bool| if is_set { "TRUE" } else { "FALSE" };
        format!(
            "{}{}{}\t{}\t{}\t{}\t{}\t{}\t{}\n",
            if self.is_http_only { HTTP_ONLY } else { "" },
            if self.has_subdomains { "." } else { "" },
            self.domain,
            flag(self.has_subdomains),
            self.path,
            flag(self.is_secure),
            self.expires,
            self.name,
            self.value,
        )
    }

    /// The cookie of a response header (RFC 6265 5.2, 5.3).
    fn from_header(header: &str, url: &Url) -> Option<Self> {
        let mut parts = header.split(';');
        let (name, value) = parts.next()?.split_once('=')?;
        let (name, value) = (name.trim(), value.trim());
        if name.is_empty() || header.contains(|c: char| c.is_control() && c != '\t') {
            return None;
        }
        let host = host_name(url);
        let own_path = url.whole_path();
        let directory = own_path.rfind('/').filter(|slash| *slash > 0);
        let mut cookie = Self {
            domain: host.clone(),
            has_subdomains: false,
            path: directory.map_or("/", |slash| &own_path[..slash]).to_owned(),
            is_secure: false,
            is_http_only: false,
            expires: 0,
            name: name.to_owned(),
            value: value.to_owned(),
        };
        let mut max_age = None;
        for part in parts {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let value = value.trim();
            match name.trim().to_ascii_lowercase().as_str() {
                "domain" if !value.is_empty() => {
                    let domain = value.trim_start_matches('.').to_ascii_lowercase();
                    // A domain such as `com` is none of the host's own.
                    if domain != host && !(domain.contains('.') && is_below(&host, &domain)) {
                        return None;
                    }
                    (cookie.domain, cookie.has_subdomains) = (domain, true);
                }
                "path" if value.starts_with('/') => value.clone_into(&mut cookie.path),
                "secure" => cookie.is_secure = true,
                "httponly" => cookie.is_http_only = true,
                "max-age" => max_age = value.parse::<i64>().ok().or(max_age),
                "expires" if max_age.is_none() => cookie.expires = seconds_of(value).unwrap_or(0),
                _ => {}
            }
        }
        if let Some(age) = max_age {
            let end = u64::try_from(age).ok().filter(|age| *age > 0);
            // The first second of the epoch is long over.
            cookie.expires = end.map_or(1, |age| now().saturating_add(age));
        }
        Some(cookie)
    }

    fn is_for(&self, url: &Url) -> bool {
        let (host, path) = (host_name(url), url.whole_path());
        let is_local = host == "localhost" || host.starts_with("127.") || host == "[::1]";
        let has_host = host == self.domain || self.has_subdomains && is_below(&host, &self.domain);
        let has_path = path.strip_prefix(self.path.as_str()).is_some_and(|rest| {
            rest.is_empty() || rest.starts_with('/') || self.path.ends_with('/')
        });
        let is_over = self.expires != 0 && self.expires <= now();
        has_host && has_path && !is_over && (!self.is_secure || url.is_https || is_local)
    }
}

/// Is `host` below `domain`?
fn is_below(host: &str, domain: &str) -> bool {
    host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
}

fn host_name(url: &Url) -> String {
    wire::host_port::HostPort::split(&url.host).host.to_ascii_lowercase()
}

/// The date of `Expires` in seconds of the epoch, but not 0.
fn seconds_of(date: &str) -> Option<u64> {
    // Old servers write `09-Jun-2021`.
    let date = httpdate::parse_http_date(&date.replace('-', " ")).ok()?;
    Some(date.duration_since(UNIX_EPOCH).map_or(1, |since| since.as_secs().max(1)))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(target: &str) -> Url {
        Url::parse(target, "localhost", false, "").unwrap()
    }

    #[test]
    fn a_cookie_is_sent_where_its_attributes_allow() {
        let set_by = url("https://www.x.example/shop/cart");
        for (header, target, is_sent) in [
            ("a=b", "https://www.x.example/shop/pay", true),
            ("a=b", "https://www.x.example/", false),
            ("a=b", "https://www.x.example/shopping", false),
            ("a=b; Path=/", "https://www.x.example/", true),
            ("a=b; Path=/", "https://x.example/", false),
            ("a=b; Path=/; Domain=.x.example", "https://y.x.example/", true),
            ("a=b; Path=/; Domain=example", "https://www.x.example/", false),
            ("a=b; Path=/; Domain=y.example", "https://www.x.example/", false),
            ("a=b; Path=/; Secure", "http://www.x.example/", false),
            ("a=b; Path=/; Max-Age=0", "https://www.x.example/", false),
            ("a=b; Path=/; Max-Age=60; Expires=x", "https://www.x.example/", true),
            ("a=b; Path=/; Expires=Wed, 09 Jun 2021 10:18:14 GMT", "https://www.x.example/", false),
            ("a=b; Path=/; Expires=Wed, 09-Jun-2021 10:18:14 GMT", "https://www.x.example/", false),
            ("a=b; Path=/; Expires=Thu, 01 Jan 2099 00:00:00 GMT", "https://www.x.example/", true),
            ("=b; Path=/", "https://www.x.example/", false),
            ("a; Path=/", "https://www.x.example/", false),
        ] {
            let mut jar = CookieJar::default();
            jar.set(header, &set_by);
            let expected = is_sent.then(|| "a=b".to_owned());
            assert_eq!(jar.header(&url(target)), expected, "{header} {target}");
        }
    }

    #[test]
    fn a_file_of_cookies_comes_back() {
        let base = url("https://www.x.example/");
        let mut jar = CookieJar::default();
        jar.set("a=1; HttpOnly; Max-Age=100", &base);
        jar.set("b=; Domain=x.example; Secure", &base);
        jar.set("c=2", &base);
        jar.set("c=3", &base);
        let lines: String = jar.0.iter().map(Cookie::to_line).collect();
        let mut read = CookieJar::default();
        read.read(&format!("{HEADING}{lines}Set-Cookie: d=4\n"), &base);
        assert_eq!(read.0[..3], jar.0[..]);
        assert_eq!(read.header(&base).as_deref(), Some("a=1; b=; c=3; d=4"));
    }
}

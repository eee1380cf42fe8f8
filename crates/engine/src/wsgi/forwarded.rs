//! What trusted proxies say about the origin of a request (RFC 7239, and the headers before it).
//!
//! Only values that a trusted proxy has added count. The list of addresses is read from its end,
//! which the last proxy has written, up to the first address that is not trusted: that is the
//! client. A malformed value changes nothing.

use std::{borrow::Cow, net::IpAddr};

use wire::{
    percent,
    trusted_proxies::{ProxyHeader, Topic, TrustedProxies},
};

use crate::wsgi::{names::KnownVariable, variables::Variables};

/// Maximum length of a part of a host name, in bytes.
const MAX_LABEL_BYTES: usize = 63;

/// Maximum length of a host name with port, in bytes.
const MAX_HOST_BYTES: usize = 300;

/// What is known about the origin of a request; `None` where the proxies say nothing valid.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Origin {
    /// The address of the client, and its port.
    pub(super) client: Option<(IpAddr, Option<u16>)>,
    /// Does the URL of the request begin with `https`?
    pub(super) is_https: Option<bool>,
    /// Host, with its port if it has one.
    pub(super) host: Option<String>,
    /// Port of the server.
    pub(super) port: Option<u16>,
    /// Name of the server.
    pub(super) server: Option<String>,
    /// The URL path that the proxy has removed, decoded.
    pub(super) prefix: Option<Vec<u8>>,
    /// The URL path of the application, decoded.
    pub(super) script_name: Option<Vec<u8>>,
}

/// Replaces what the web server says about the origin of the request by what trusted `proxies`
/// say. Removes headers that might contradict them.
pub(crate) fn trust_proxies(variables: &mut Variables<'_>, proxies: &TrustedProxies) {
    if proxies.are_none() {
        return;
    }
    let text = |value| std::str::from_utf8(value).ok();
    let peer: Option<IpAddr> =
        variables.named("REMOTE_ADDR").and_then(text).and_then(|text| text.parse().ok());
    let peer = peer.filter(|peer| proxies.trust(*peer));
    let origin =
        peer.map(|peer| origin(proxies, peer, |header| variables.named(header.variable())));
    for header in withheld(proxies, peer.is_some()) {
        variables.remove(header.variable());
    }
    if let Some(origin) = origin {
        set_origin(variables, origin);
    }
}

fn set_origin(variables: &mut Variables<'_>, origin: Origin) {
    if let Some((address, port)) = origin.client {
        variables.set_named("REMOTE_ADDR", address.to_string());
        variables.remove("REMOTE_HOST");
        match port {
            Some(port) => variables.set_named("REMOTE_PORT", port.to_string()),
            None => variables.remove("REMOTE_PORT"),
        }
    }
    let mut port = origin.port.map(|port| port.to_string());
    if let Some(host) = origin.host {
        let own_port = port_of(&host);
        let name = own_port.map_or(&*host, |port| &host[..host.len() - port.len() - 1]);
        variables.set(KnownVariable::ServerName, name.as_bytes().to_vec());
        port = port.or(own_port.map(str::to_owned));
        variables.set_named("HTTP_HOST", host);
    }
    if let Some(server) = origin.server {
        variables.set(KnownVariable::ServerName, server.into_bytes());
    }
    if let Some(is_https) = origin.is_https {
        let (https, scheme, default) =
            if is_https { ("on", "https", "443") } else { ("off", "http", "80") };
        variables.set(KnownVariable::Https, https.as_bytes());
        variables.set(KnownVariable::RequestScheme, scheme.as_bytes());
        port.get_or_insert_with(|| default.to_owned());
    }
    if let Some(port) = port {
        variables.set(KnownVariable::ServerPort, port.into_bytes());
    }
    let behind = variables.get(KnownVariable::ScriptName).unwrap_or_default();
    let before = origin.prefix.map(|prefix| [&*prefix, behind].concat());
    if let Some(script_name) = origin.script_name.or(before) {
        variables.set(KnownVariable::ScriptName, script_name);
    }
}

/// Name and value of a parameter of `Forwarded`.
type Parameter<'a> = (&'a str, Cow<'a, str>);

/// The headers that must not reach the application: other headers for what a trusted header tells,
/// and trusted ones from a peer that is not `is_trusted`.
fn withheld(proxies: &TrustedProxies, is_trusted: bool) -> impl Iterator<Item = ProxyHeader> + '_ {
    let tells = |header: &ProxyHeader, topic| header.topics().contains(topic);
    let is_concerned = move |header: &&ProxyHeader| {
        proxies.headers.iter().any(|known| known.topics().iter().any(|topic| tells(header, topic)))
    };
    let all = ProxyHeader::ALL.iter().filter(is_concerned);
    all.filter(move |header| !is_trusted || !proxies.headers.contains(header)).copied()
}

/// The origin of a request from a trusted `peer`. `header` gives the values of headers.
pub(super) fn origin<'a>(
    proxies: &TrustedProxies,
    peer: IpAddr,
    header: impl Fn(ProxyHeader) -> Option<&'a [u8]>,
) -> Origin {
    let mut origin = Origin::default();
    for &trusted in &proxies.headers {
        let Some(text) = header(trusted).and_then(|value| std::str::from_utf8(value).ok()) else {
            continue;
        };
        // The last value is that of the last proxy.
        let last = text.rsplit(',').next().unwrap_or_default().trim();
        match trusted {
            ProxyHeader::Forwarded => {
                let found = forwarded(proxies, peer, text);
                origin.client = origin.client.or(found.client);
                origin.is_https = origin.is_https.or(found.is_https);
                origin.host = origin.host.or(found.host);
            }
            ProxyHeader::ForwardedPrefix => origin.prefix = origin.prefix.or_else(|| path(last)),
            ProxyHeader::ScriptName | ProxyHeader::ForwardedScriptName => {
                origin.script_name = origin.script_name.or_else(|| path(last));
            }
            ProxyHeader::ForwardedHttps | ProxyHeader::ForwardedSsl | ProxyHeader::Https => {
                origin.is_https = origin.is_https.or_else(|| switch(last));
            }
            header => match header.topics() {
                [Topic::Client] => {
                    let addresses = text.rsplit(',').map(|text| address(text.trim()));
                    origin.client = origin.client.or_else(|| client(proxies, peer, addresses));
                }
                [Topic::Scheme] => origin.is_https = origin.is_https.or_else(|| scheme(last)),
                [Topic::Host] => origin.host = origin.host.or_else(|| host(last)),
                [Topic::Server] => {
                    let name = host(last).filter(|name| port_of(name).is_none());
                    origin.server = origin.server.or(name);
                }
                [Topic::Port] => origin.port = origin.port.or_else(|| port(last)),
                _ => {}
            },
        }
    }
    origin
}

/// The first address that is not trusted, from the last proxy on; or the first proxy. An address
/// that cannot be read ends the list.
fn client(
    proxies: &TrustedProxies,
    peer: IpAddr,
    addresses: impl Iterator<Item = Option<(IpAddr, Option<u16>)>>,
) -> Option<(IpAddr, Option<u16>)> {
    let mut client = None;
    for address in addresses {
        let Some(address) = address else { break };
        client = Some(address);
        if !proxies.trust(address.0) {
            break;
        }
    }
    client.filter(|(address, _)| *address != peer)
}

/// What the header `Forwarded` tells (RFC 7239, 4).
fn forwarded(proxies: &TrustedProxies, peer: IpAddr, text: &str) -> Origin {
    let mut origin = Origin::default();
    let Some(elements) = elements(text) else {
        return origin;
    };
    let value = |pairs: &Vec<Parameter<'_>>, name: &str| {
        let found = pairs.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.to_string())
    };
    let addresses = elements.iter().rev().map(|pairs| address(&value(pairs, "for")?));
    // Each proxy whose address is trusted has written the element before, too.
    let written = addresses
        .clone()
        .take_while(|address| address.is_some_and(|(address, _)| proxies.trust(address)));
    let position = (elements.len().saturating_sub(1)).saturating_sub(written.count());
    let first = &elements[position];
    origin.client = client(proxies, peer, addresses);
    origin.is_https = value(first, "proto").and_then(|proto| scheme(&proto));
    origin.host = value(first, "host").and_then(|name| host(&name));
    origin
}

/// The name and value of each parameter of each element; `None` if `text` is malformed.
fn elements(text: &str) -> Option<Vec<Vec<Parameter<'_>>>> {
    let mut elements = vec![Vec::new()];
    let mut rest = text.trim();
    loop {
        let (name, after) = rest.split_once('=')?;
        let name = name.trim_start();
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        {
            return None;
        }
        let value;
        (value, rest) = match after.strip_prefix('"') {
            Some(quoted) => unquoted(quoted)?,
            None => {
                let end = after.find([',', ';']).unwrap_or(after.len());
                let (token, after) = after.split_at(end);
                if token.contains(['"', '=']) {
                    return None;
                }
                (Cow::Borrowed(token.trim_end()), after)
            }
        };
        elements.last_mut()?.push((name, value));
        rest = rest.trim_start();
        if let Some(after) = rest.strip_prefix(';') {
            rest = after;
        } else if let Some(after) = rest.strip_prefix(',') {
            rest = after;
            elements.push(Vec::new());
        } else {
            return rest.is_empty().then_some(elements);
        }
    }
}

/// The text of a quoted string, after its first quote, and what follows it.
fn unquoted(quoted: &str) -> Option<(Cow<'_, str>, &str)> {
    let mut text = String::new();
    let mut characters = quoted.char_indices();
    while let Some((position, character)) = characters.next() {
        match character {
            '"' => return Some((Cow::Owned(text), &quoted[position + 1..])),
            '\\' => text.push(characters.next()?.1),
            other => text.push(other),
        }
    }
    None
}

/// An address with or without port; `None` for a name, an obfuscated identifier or `unknown`.
fn address(text: &str) -> Option<(IpAddr, Option<u16>)> {
    let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    let (address, port) = match text.strip_prefix('[') {
        Some(text) => {
            let (address, after) = text.split_once(']')?;
            (IpAddr::V6(address.parse().ok()?), after)
        }
        None => match text.parse() {
            Ok(address) => (address, ""),
            Err(_) => {
                let (address, _) = text.split_once(':')?;
                (IpAddr::V4(address.parse().ok()?), &text[address.len()..])
            }
        },
    };
    let port = match port.strip_prefix(':') {
        Some(number) => Some(self::port(number)?),
        None if port.is_empty() => None,
        None => return None,
    };
    Some((address.to_canonical(), port))
}

fn scheme(text: &str) -> Option<bool> {
    ["http", "https"].iter().position(|name| text.eq_ignore_ascii_case(name)).map(|at| at == 1)
}

fn switch(text: &str) -> Option<bool> {
    let is_one_of = |names: [&str; 4]| names.iter().any(|name| text.eq_ignore_ascii_case(name));
    if is_one_of(["on", "1", "true", "yes"]) {
        Some(true)
    } else {
        is_one_of(["off", "0", "false", "no"]).then_some(false)
    }
}

fn port(text: &str) -> Option<u16> {
    let is_number = text.bytes().all(|digit| digit.is_ascii_digit());
    text.parse().ok().filter(|&port| is_number && port > 0)
}

/// A host with or without port (RFC 3986, 3.2.2), of the characters that names in DNS and addresses
/// have.
fn host(text: &str) -> Option<String> {
    let name = match port_of(text) {
        Some(number) => {
            port(number)?;
            &text[..text.len() - number.len() - 1]
        }
        None => text,
    };
    let is_valid = match name.strip_prefix('[') {
        Some(address) => address
            .strip_suffix(']')
            .is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok()),
        None => is_host_name(name),
    };
    (is_valid && text.len() <= MAX_HOST_BYTES).then(|| text.to_owned())
}

/// Is `name` a possible name of a host, or an IPv4 address?
fn is_host_name(name: &str) -> bool {
    let labels = name.strip_suffix('.').unwrap_or(name).split('.');
    let is_number = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    // Browsers take every host that ends in a number for an address.
    if labels.clone().next_back().is_some_and(|last| !last.is_empty() && is_number(last)) {
        return name.parse::<std::net::Ipv4Addr>().is_ok();
    }
    labels.clone().all(|label| {
        (1..=MAX_LABEL_BYTES).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
            && !label.starts_with('-')
            && !label.ends_with('-')
    })
}

/// The text of the port behind a host.
fn port_of(host: &str) -> Option<&str> {
    let (_, port) = host.rsplit_once(':').filter(|(_, port)| !port.contains(']'))?;
    Some(port)
}

/// A URL path, decoded and without a slash at its end.
fn path(text: &str) -> Option<Vec<u8>> {
    let path = percent::decode(text.trim_end_matches('/').as_bytes());
    let is_hidden = |byte: &u8| byte.is_ascii_control() || b"?#\\".contains(byte);
    let is_dots = |segment: &[u8]| segment == b"." || segment == b"..";
    let is_valid = (path.is_empty() || path.starts_with(b"/"))
        && !path.starts_with(b"//")
        && !path.iter().any(is_hidden)
        && !path.split(|&byte| byte == b'/').any(is_dots);
    is_valid.then_some(path)
}

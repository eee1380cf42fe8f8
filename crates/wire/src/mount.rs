//! `SCRIPT_NAME` and `PATH_INFO`: where the application is mounted, and the rest of the path.
//!
//! A URL made of both must lead back to the application (RFC 3875 3.3). Web servers that rewrite
//! URLs break this rule: they name the script that they rewrote to, and not the URL that the client
//! requested, which is still in `REQUEST_URI`. A slash that the web server decoded looks like
//! any other; a slash that it left encoded stays encoded (RFC 3875 4.1.5).

use std::borrow::Cow;

use crate::percent;

/// The variables of a request that say where it leads, as the web server sends them.
#[derive(Clone, Copy, Debug, Default)]
pub struct MountVariables<'a> {
    /// `SCRIPT_NAME`.
    pub script_name: Option<&'a [u8]>,
    /// `PATH_INFO`.
    pub path_info: Option<&'a [u8]>,
    /// `REQUEST_URI`.
    pub request_uri: Option<&'a [u8]>,
    /// `REDIRECT_STATUS`.
    pub redirect_status: Option<&'a [u8]>,
}

impl MountVariables<'_> {
    /// Returns the correct `SCRIPT_NAME` and `PATH_INFO`; `None` if the web server has sent them.
    pub fn corrected(&self) -> Option<(Vec<u8>, Vec<u8>)> {
        let filled = |value: Option<_>| value.filter(|value: &&[u8]| !value.is_empty());
        let script_name = self.script_name.unwrap_or_default();
        let path_info = self.path_info.unwrap_or_default();
        let mounted = filled(self.request_uri)
            .filter(|_| filled(self.redirect_status).is_none_or(|status| status == b"200"))
            .and_then(|uri| from_request_uri(&path_of(uri), script_name, path_info));
        let are_right = self.script_name.is_some()
            && self.path_info.is_some()
            && !script_name.ends_with(b"/")
            && is_consistent(script_name, path_info);
        if mounted.is_none() && are_right {
            return None;
        }
        let (mut script_name, mut path_info) =
            mounted.unwrap_or_else(|| (script_name.to_vec(), path_info.to_vec()));
        // Some web servers call the root `/`; the slash belongs to the path then (PEP 3333 *environ
        // Variables*).
        if script_name.ends_with(b"/") {
            script_name.truncate(script_name.len() - 1);
            if !path_info.starts_with(b"/") {
                path_info.insert(0, b'/');
            }
        }
        if !is_consistent(&script_name, &path_info) {
            path_info.insert(0, b'/');
        }
        Some((script_name, path_info))
    }

    /// The path of the request: the correct `SCRIPT_NAME` and `PATH_INFO` together.
    pub fn path(&self) -> Vec<u8> {
        match self.corrected() {
            Some((script_name, path_info)) => [script_name, path_info].concat(),
            None => [self.script_name, self.path_info].map(Option::unwrap_or_default).concat(),
        }
    }
}

/// Does the rest of the path begin with a slash, or is it empty below a mount?
fn is_consistent(script_name: &[u8], path_info: &[u8]) -> bool {
    path_info.starts_with(b"/") || (path_info.is_empty() && !script_name.is_empty())
}

/// Mount and rest of the path as the client sees them, if those of the web server differ from the
/// URL that the client requested.
fn from_request_uri(
    uri: &[u8],
    script_name: &[u8],
    path_info: &[u8],
) -> Option<(Vec<u8>, Vec<u8>)> {
    if is_below(uri, script_name) {
        return None;
    }
    // Web servers merge slashes in all variables but the target itself.
    let merged = merge_slashes(uri);
    if is_below(&merged, script_name) {
        return None;
    }
    // The web server resolves dots, and applies its access rules to the result. Clients resolve
    // dots before they send a request.
    if uri.split(|&byte| byte == b'/').any(|segment| segment == b"." || segment == b"..") {
        return None;
    }
    if path_info.is_empty() {
        // Rewritten to the script, or the index of a directory: the script's directory is the
        // mount.
        let directory = &script_name[..script_name.iter().rposition(|&byte| byte == b'/')?];
        let rest = uri.strip_prefix(directory).or_else(|| merged.strip_prefix(directory))?;
        return rest.starts_with(b"/").then(|| (directory.to_vec(), rest.to_vec()));
    }
    let uri = if path_info.windows(2).any(|pair| pair == b"//") { uri } else { &merged };
    let mount = uri.strip_suffix(path_info)?;
    Some((mount.to_vec(), path_info.to_vec()))
}

/// Is the path `uri` that of the script, or below it?
pub fn is_below(uri: &[u8], script_name: &[u8]) -> bool {
    uri.strip_prefix(script_name).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

/// The decoded path of a request target, which may be a whole URL (RFC 9112 3.2).
fn path_of(target: &[u8]) -> Cow<'_, [u8]> {
    let scheme_end = if target.starts_with(b"/") {
        None
    } else {
        target.windows(3).position(|three| three == b"://")
    };
    let target = match scheme_end {
        Some(end) => {
            let authority = &target[end + 3..];
            authority
                .iter()
                .position(|&byte| byte == b'/')
                .map_or(&b"/"[..], |start| &authority[start..])
        }
        None => target,
    };
    let path = target.split(|&byte| byte == b'?').next().unwrap_or_default();
    if path.contains(&b'%') { percent::decode(path).into() } else { path.into() }
}

fn merge_slashes(path: &[u8]) -> Vec<u8> {
    let mut merged = path.to_vec();
    merged.dedup_by(|next, last| *next == b'/' && *last == b'/');
    merged
}

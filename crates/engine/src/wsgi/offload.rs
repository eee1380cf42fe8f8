//! Which files and responses the web server may send in place of the application.

use std::{
    ffi::OsStr,
    fs,
    os::{
        fd::AsRawFd as _,
        unix::{
            ffi::{OsStrExt as _, OsStringExt as _},
            fs::MetadataExt as _,
        },
    },
    path::Path,
};

use rustix::fs::fstat;
use wire::{
    offload::{Offload, OffloadHeader},
    percent::encode_path,
};

use crate::process::forks::Descriptor;

/// The headers of a response that nginx keeps if it sends the file, and `Content-Length`, which
/// is that of the file. nginx drops all others.
const KEPT_BY_NGINX: [&str; 6] = [
    "Cache-Control",
    "Content-Disposition",
    "Content-Length",
    "Content-Type",
    "Expires",
    "Set-Cookie",
];

/// The headers that Apache or lighttpd change or interpret if they send the file.
const CHANGED_BY_SENDFILE: [&str; 6] = [
    "Accept-Ranges",
    "Content-Encoding",
    "Content-Range",
    "Location",
    "X-LIGHTTPD-send-file",
    "X-Sendfile2",
];

/// Does a client see the header `name` of a response unchanged, if the web server is asked by
/// `header` to send the file?
pub(super) fn keeps(header: &OffloadHeader, name: &[u8]) -> bool {
    let is = |known: &&str| name.eq_ignore_ascii_case(known.as_bytes());
    match header {
        OffloadHeader::AccelRedirect { .. } => KEPT_BY_NGINX.iter().any(is),
        OffloadHeader::Sendfile => !CHANGED_BY_SENDFILE.iter().any(is) && !is(&header.name()),
    }
}

/// The value of the header that names the open `file` for the web server.
///
/// # Errors
/// Why the web server could not send this file.
pub(super) fn value_for(offload: &Offload, file: &Descriptor) -> Result<Vec<u8>, String> {
    // The kernel knows the path without links, even if the file was renamed meanwhile.
    let name = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))
        .map_err(|error| format!("the path of the file is not known: {error}"))?;
    let opened = fstat(file).map_err(|error| format!("the file cannot be examined: {error}"))?;
    let is_same = fs::symlink_metadata(&name)
        .is_ok_and(|found| (found.dev(), found.ino()) == (opened.st_dev, opened.st_ino));
    if !is_same {
        return Err(format!("`{}` is not the file that was opened", name.display()));
    }
    let directory = Path::new(OsStr::from_bytes(&offload.directory));
    let path = fs::canonicalize(directory)
        .ok()
        .and_then(|directory| Some(name.strip_prefix(directory).ok()?.to_owned()))
        .ok_or_else(|| format!("`{}` is not in `{}`", name.display(), directory.display()))?;
    match &offload.header {
        OffloadHeader::AccelRedirect { location } => {
            let url = [location.as_bytes(), path.as_os_str().as_bytes()].concat();
            Ok(encode_path(&url))
        }
        // lighttpd decodes the path. mod_xsendfile does not, apart from its newest version.
        OffloadHeader::Sendfile => {
            let path = directory.join(path).into_os_string().into_vec();
            if encode_path(&path) == path {
                return Ok(path);
            }
            Err(format!("`{}` has characters that a URL path cannot have", name.display()))
        }
    }
}

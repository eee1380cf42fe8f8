//! Files of `--static`, which a web server would send in production.

use std::{
    ffi::OsStr,
    fs::{self, File, Metadata},
    io::{self, Read as _},
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Component, Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use hyper::{
    HeaderMap, Method, Response, StatusCode,
    body::Bytes,
    header::{
        ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderName, HeaderValue,
        IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED, X_CONTENT_TYPE_OPTIONS,
    },
    http::request::Parts,
};
use tokio::{
    sync::mpsc::{Sender, channel},
    task::{spawn_blocking, spawn_local},
};
use wire::percent;

use crate::serve::{body::ResponseBody, pages::sentence};

/// Bytes of a file that are read at once.
const BLOCK_BYTES: usize = 64 * 1024;

/// Blocks that wait for the client.
const WAITING_BLOCKS: usize = 4;

/// Directories of files, each with the URL path that it is shown at.
pub(super) struct StaticFiles(Vec<(String, PathBuf)>);

impl StaticFiles {
    /// The directories, each after its URL path.
    pub(super) fn new(directories: &[(String, Vec<u8>)]) -> Self {
        let mut directories: Vec<(String, PathBuf)> = directories
            .iter()
            .map(|(url, path)| (url.clone(), PathBuf::from(OsStr::from_bytes(path))))
            .collect();
        // The longest path counts.
        directories.sort_by_key(|(url, _)| std::cmp::Reverse(url.len()));
        Self(directories)
    }

    /// The response to a request below one of the URL paths.
    pub(super) fn answer(&self, parts: &Parts) -> Option<Response<ResponseBody>> {
        let path = percent::decode(parts.uri.path().as_bytes());
        let (directory, rest) = self.0.iter().find_map(|(url, directory)| {
            let rest = path.strip_prefix(url.as_bytes())?;
            Some((directory, rest.strip_prefix(b"/")?))
        })?;
        if ![Method::GET, Method::HEAD].contains(&parts.method) {
            let mut refused = sentence(StatusCode::METHOD_NOT_ALLOWED, "use GET or HEAD");
            refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return Some(refused);
        }
        let found = find(directory, Path::new(OsStr::from_bytes(rest)));
        Some(match found {
            Some((file, metadata)) => respond(parts, rest, file, &metadata),
            None => sentence(StatusCode::NOT_FOUND, "there is no such file"),
        })
    }
}

/// The file `path` in `directory`. Links may not lead out of it, and hidden files are not shown.
fn find(directory: &Path, path: &Path) -> Option<(File, Metadata)> {
    let is_plain = |component: Component<'_>| match component {
        Component::Normal(name) => !name.as_bytes().starts_with(b"."),
        _ => false,
    };
    if !path.components().all(is_plain) || path.as_os_str().as_bytes().contains(&0) {
        return None;
    }
    let target = fs::canonicalize(directory.join(path)).ok()?;
    if !target.starts_with(fs::canonicalize(directory).ok()?) || !target.is_file() {
        return None;
    }
    let file = File::open(target).ok()?;
    let metadata = file.metadata().ok().filter(Metadata::is_file)?;
    Some((file, metadata))
}

fn respond(parts: &Parts, path: &[u8], file: File, metadata: &Metadata) -> Response<ResponseBody> {
    let (seconds, nanoseconds) = (metadata.mtime(), metadata.mtime_nsec());
    let tag = format!("\"{:x}-{seconds:x}-{nanoseconds:x}\"", metadata.len());
    let time = UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    let name = Path::new(OsStr::from_bytes(path));
    let content_type = mime_guess::from_path(name).first_or_octet_stream();
    let charset = if content_type.type_() == "text" { "; charset=utf-8" } else { "" };
    let is_same = is_unchanged(&parts.headers, &tag, time);
    let body = if is_same || parts.method == Method::HEAD {
        ResponseBody::text(Bytes::new())
    } else {
        let (sender, blocks) = channel(WAITING_BLOCKS);
        spawn_local(send(file, sender));
        ResponseBody::blocks(blocks)
    };
    let mut response = Response::new(body);
    *response.status_mut() = if is_same { StatusCode::NOT_MODIFIED } else { StatusCode::OK };
    let mut set = |name: HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(name, value);
        }
    };
    set(ETAG, &tag);
    set(LAST_MODIFIED, &httpdate::fmt_http_date(time));
    // A browser asks each time, and shows no old file.
    set(CACHE_CONTROL, "no-cache");
    set(X_CONTENT_TYPE_OPTIONS, "nosniff");
    if !is_same {
        set(CONTENT_TYPE, &format!("{content_type}{charset}"));
        set(CONTENT_LENGTH, &metadata.len().to_string());
    }
    response
}

/// Does the client have the file already (RFC 9110 13)?
fn is_unchanged(headers: &HeaderMap, tag: &str, time: SystemTime) -> bool {
    let value = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(tags) = value(IF_NONE_MATCH) {
        let mut tags = tags.split(',').map(|known| known.trim().trim_start_matches("W/"));
        return tags.any(|known| known == "*" || known == tag);
    }
    let since = value(IF_MODIFIED_SINCE).and_then(|date| httpdate::parse_http_date(date).ok());
    since.is_some_and(|since| time <= since)
}

/// Sends the content of `file`.
async fn send(file: File, client: Sender<io::Result<Bytes>>) {
    let mut file = file;
    loop {
        // A disk may be slow.
        let read = spawn_blocking(move || {
            let mut block = vec![0; BLOCK_BYTES];
            let length = file.read(&mut block)?;
            block.truncate(length);
            Ok((file, Bytes::from(block)))
        });
        let block = match read.await.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok((_, block)) if block.is_empty() => return,
            Ok((rest, block)) => {
                file = rest;
                block
            }
            Err(error) => {
                // The client learns that the body is not complete.
                let _ = client.send(Err(error)).await;
                return;
            }
        };
        if client.send(Ok(block)).await.is_err() {
            return;
        }
    }
}

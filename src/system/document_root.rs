//! The usual names of document roots, below which clients can request files.

use std::path::Path;

const NAMES: [&str; 8] =
    ["public_html", "htdocs", "httpdocs", "www", "html", "public", "webroot", "wwwroot"];

/// Has `directory` such a name?
pub(crate) fn is_named_so(directory: &Path) -> bool {
    directory.file_name().is_some_and(|own| NAMES.iter().any(|name| own == *name))
}

/// Has `directory` a directory with such a name?
pub(crate) fn is_in(directory: &Path) -> bool {
    NAMES.iter().any(|name| directory.join(name).is_dir())
}

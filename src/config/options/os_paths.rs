//! Serde for paths that need not be UTF-8, which serde's own encoding of paths refuses.

use std::{ffi::OsString, path::PathBuf};

use serde::{Deserialize, Deserializer, Serializer};

/// A value that holds paths.
pub(crate) trait HoldsPaths: Sized {
    /// The value that holds `paths`.
    fn holding(paths: impl Iterator<Item = PathBuf>) -> Self;
}

impl HoldsPaths for Option<PathBuf> {
    fn holding(mut paths: impl Iterator<Item = PathBuf>) -> Self {
        paths.next()
    }
}

impl HoldsPaths for Vec<PathBuf> {
    fn holding(paths: impl Iterator<Item = PathBuf>) -> Self {
        paths.collect()
    }
}

pub(crate) fn serialize<'a, P, S>(paths: &'a P, serializer: S) -> Result<S::Ok, S::Error>
where
    &'a P: IntoIterator<Item = &'a PathBuf>,
    S: Serializer,
{
    serializer.collect_seq(paths.into_iter().map(|path| path.as_os_str()))
}

pub(crate) fn deserialize<'de, P, D>(deserializer: D) -> Result<P, D::Error>
where
    P: HoldsPaths,
    D: Deserializer<'de>,
{
    let paths = Vec::<OsString>::deserialize(deserializer)?;
    Ok(P::holding(paths.into_iter().map(PathBuf::from)))
}

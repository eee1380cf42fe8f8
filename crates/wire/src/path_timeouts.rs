//! Timeouts of requests that depend on the URL path.

use serde::{Deserialize, Serialize};

use crate::mount::is_below;

/// The timeout of requests for one URL path and the paths below it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathTimeout {
    /// The path, without a slash at its end.
    pub path: String,
    /// The timeout in seconds; 0 is no timeout.
    pub seconds: u64,
}

/// The timeout in seconds for a request of `path` (`SCRIPT_NAME` and `PATH_INFO`): that of the
/// longest path in `timeouts` that is the same or above; `None` if there is none.
pub fn timeout_of(path: &[u8], timeouts: &[PathTimeout]) -> Option<u64> {
    let above = timeouts.iter().filter(|timeout| is_below(path, timeout.path.as_bytes()));
    above.max_by_key(|timeout| timeout.path.len()).map(|timeout| timeout.seconds)
}

/// The shortest timeout in seconds of `default` and `timeouts`; 0 if there is none.
pub fn shortest(default: u64, timeouts: &[PathTimeout]) -> u64 {
    let all = timeouts.iter().map(|timeout| timeout.seconds).chain([default]);
    all.filter(|&seconds| seconds > 0).min().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeouts() -> Vec<PathTimeout> {
        [("/upload", 600), ("/upload/small", 5), ("/live", 0), ("/twice", 1), ("/twice", 2)]
            .map(|(path, seconds)| PathTimeout { path: path.to_owned(), seconds })
            .to_vec()
    }

    #[test]
    fn the_longest_path_of_whole_segments_counts() {
        for (path, expected) in [
            ("/upload", Some(600)),
            ("/upload/", Some(600)),
            ("/upload/a", Some(600)),
            ("/upload/small", Some(5)),
            ("/upload/small/a/b", Some(5)),
            ("/upload/smaller", Some(600)),
            ("/live/feed", Some(0)),
            ("/twice", Some(2)),
            ("/uploads", None),
            ("/", None),
            ("", None),
            ("upload", None),
            ("/UPLOAD", None),
        ] {
            assert_eq!(timeout_of(path.as_bytes(), &timeouts()), expected, "{path}");
        }
        let all = [PathTimeout { path: String::new(), seconds: 9 }];
        assert_eq!(timeout_of(b"/", &all), Some(9));
        assert_eq!(timeout_of(b"/a", &all), Some(9));
        assert_eq!((shortest(0, &timeouts()), shortest(3, &[]), shortest(0, &[])), (1, 3, 0));
    }
}

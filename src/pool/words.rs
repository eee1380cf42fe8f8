//! The words of `wsgate fastcgi`.

use clap::Args;

use super::listen::Address;
use crate::options::Options;

/// Longest time that is counted, in seconds: clocks end somewhere.
const LONGEST: u64 = u32::MAX as u64;

/// A pool, described on the command line.
#[derive(Args, Clone, Debug)]
pub(crate) struct Fastcgi {
    #[command(flatten)]
    pub(crate) options: Options,

    /// The application
    #[arg(value_name = "APP")]
    pub(crate) app: String,

    /// Where to listen: unix:PATH, HOST:PORT, or fd:0 for standard input (repeatable)
    #[arg(long, value_name = "ADDRESS", default_value = "fd:0")]
    pub(crate) listen: Vec<Address>,

    /// Name of the pool, for `wsgate status`; without it that of the file or module
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,

    /// Permissions of Unix sockets, in octal
    #[arg(long, value_name = "MODE", default_value = "660", value_parser = mode)]
    pub(crate) socket_mode: u32,

    /// Owner of Unix sockets, as USER or USER:GROUP
    #[arg(long, value_name = "OWNER")]
    pub(crate) socket_owner: Option<String>,

    /// Worker processes; without it one for each processor, or one alone for standard input
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024), conflicts_with = "max")]
    pub(crate) workers: Option<u32>,

    /// Worker processes at most: more are started when all are busy and connections wait, and idle ones go again
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) max: Option<u32>,

    /// Worker processes at least, with --max; with 0 no process of Python stays while there is no work
    #[arg(long, value_name = "N", default_value_t = 0, requires = "max")]
    pub(crate) min: u32,

    /// Seconds without work after which a worker that is not needed goes, with --max
    #[arg(long, value_name = "S", default_value_t = 60, requires = "max", value_parser = clap::value_parser!(u64).range(1..=LONGEST))]
    pub(crate) idle: u64,

    /// Requests that a worker serves at the same time
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) threads: u32,

    /// Requests after which a worker is replaced, or up to a tenth fewer, so that not all are at once; 0 is never
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) max_requests: u64,

    /// Seconds after which a worker is replaced, or up to a tenth fewer; 0 is never
    #[arg(long, value_name = "S", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=LONGEST))]
    pub(crate) max_age: u64,

    /// Resident memory above which a worker is replaced after a request, such as 200M (units K, M, G); 0 is never
    #[arg(long, value_name = "SIZE", default_value = "0", value_parser = size)]
    pub(crate) max_rss: u64,

    /// Seconds after which a request that is still being served is logged, with the stacks of its worker
    #[arg(long, value_name = "S")]
    pub(crate) slow: Option<u64>,

    /// Seconds that workers have to finish their requests when they are to end
    #[arg(long, value_name = "S", default_value_t = 30)]
    pub(crate) drain: u64,
}

/// Bytes: a number, and perhaps a unit.
fn size(word: &str) -> Result<u64, String> {
    let digits = word.trim_end_matches(|unit: char| unit.is_ascii_alphabetic());
    let factor = match word[digits.len()..].to_ascii_uppercase().as_str() {
        "" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        _ => return Err(format!("`{word}` has another unit than K, M and G")),
    };
    let number: u64 = digits.parse().map_err(|_| format!("`{word}` is no number with a unit, such as 200M"))?;
    number.checked_mul(factor).ok_or_else(|| format!("`{word}` is too much"))
}

fn mode(word: &str) -> Result<u32, String> {
    u32::from_str_radix(word, 8)
        .ok()
        .filter(|mode| *mode <= 0o777)
        .ok_or_else(|| format!("`{word}` is no octal number up to 777"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (word, bytes) in [("0", 0), ("512", 512), ("1k", 1024), ("200M", 200 << 20), ("2G", 2 << 30)] {
            assert_eq!(size(word), Ok(bytes), "{word}");
        }
        for wrong in ["", "M", "-1", "1.5G", "200MB", "20T", "1 M", "99999999999G", "é"] {
            assert!(size(wrong).is_err(), "{wrong:?}");
        }
    }
}

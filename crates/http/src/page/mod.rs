//! The status page for people. The page is one file: style and script stand in it, and the policy
//! of the response names their hashes.
//!
//! A pool of another user chooses most of what is shown. maud escapes what has a meaning in HTML,
//! and [`Escaped`] what hides or reorders text.

mod curve;
mod pool;
mod stacks;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use control::process_stacks::ProcessStacks;
use diagnostics::{escape::Escaped, shorten::shorten};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use sha2::{Digest as _, Sha256};

use crate::{
    page::pool::{long_requests, pool},
    pools::PoolRecords,
};

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// Maximum length of a shown text in bytes.
const MAX_TEXT_BYTES: usize = 300;

/// The page, and the policy of its response.
pub(crate) struct Page {
    policy: String,
}

impl Page {
    /// The page with its style and script.
    pub(crate) fn new() -> Self {
        let hash = |text: &str| STANDARD.encode(Sha256::digest(text));
        let policy = format!(
            "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; connect-src \
             'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            hash(STYLE),
            hash(SCRIPT)
        );
        Self { policy }
    }

    /// The value of `Content-Security-Policy`.
    pub(crate) fn policy(&self) -> &str {
        &self.policy
    }

    /// The text of the page with the stacks of a worker.
    pub(crate) fn render_stacks(&self, stacks: &ProcessStacks) -> String {
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                (head("wsgate: stacks"))
                body { (stacks::stacks(stacks)) }
            }
        };
        page.into_string()
    }

    /// The text of the page. `search_failure` says why no pools can be found.
    pub(crate) fn render(&self, records: &PoolRecords, search_failure: Option<&str>) -> String {
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                (head("wsgate: pools"))
                body {
                    a.skip href="#pools" { "Skip to the pools" }
                    header {
                        h1 { "wsgate" }
                        p { (summary(records)) }
                        button type="button" hidden aria-pressed="false" { "Pause" }
                        span role="status" class="problem" {}
                    }
                    main id="pools" {
                        @if let Some(failure) = search_failure {
                            section { p.problem { "Pools cannot be found: " (shown(failure)) } }
                        } @else if records.is_empty() {
                            section { p { "No pool of this user is running." } }
                        }
                        (long_requests(records))
                        @for (number, (socket, record)) in records.iter().enumerate() {
                            (pool(number, socket, record))
                        }
                    }
                    script { (PreEscaped(SCRIPT)) }
                }
            }
        };
        page.into_string()
    }
}

/// The head of a page.
fn head(title: &str) -> Markup {
    html! {
        head {
            meta charset="utf-8";
            meta name="viewport" content="width=device-width, initial-scale=1";
            title { (title) }
            link rel="icon" href="data:,";
            style { (PreEscaped(STYLE)) }
        }
    }
}

/// The numbers of all pools together.
fn summary(records: &PoolRecords) -> Markup {
    let statuses = || records.values().filter_map(|record| record.status());
    let busy: usize = statuses().map(|status| status.busy).fold(0, usize::saturating_add);
    let idle: usize = statuses().map(|status| status.idle).fold(0, usize::saturating_add);
    let silent = records.len() - statuses().count();
    html! {
        "Pools: " (records.len()) ". Threads: " (busy) " busy, " (idle) " idle."
        @if silent > 0 { " " strong.problem { "Without an answer: " (silent) "." } }
    }
}

/// `text` without hidden characters, and not too long.
fn shown(text: &str) -> String {
    shorten(&Escaped(text).to_string(), MAX_TEXT_BYTES).into_owned()
}

/// A time of `seconds` in the unit that a person would use.
fn time(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// Milliseconds as seconds with one digit.
fn seconds(milliseconds: u64) -> String {
    format!("{}.{} s", milliseconds / 1000, milliseconds % 1000 / 100)
}

/// Bytes in mebibytes.
fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

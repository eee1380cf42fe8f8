//! `--write-out`: text with variables, printed after the response.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::call::{body_files::UnusableFile, output::Output};

/// The facts about a command that variables show, beside those of its output.
pub(super) struct Facts<'a> {
    pub(super) started: Instant,
    pub(super) method: &'a str,
    pub(super) target: &'a str,
    pub(super) url: &'a str,
    pub(super) scheme: &'a str,
    pub(super) redirects: u32,
    pub(super) redirect_url: &'a str,
    pub(super) uploaded: u64,
}

/// A part of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
enum WriteOutPart {
    Text(String),
    Variable(Variable),
    Header(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variable {
    ContentType,
    FilenameEffective,
    HttpCode,
    HttpVersion,
    Method,
    NumHeaders,
    NumRedirects,
    RedirectUrl,
    Scheme,
    SizeDownload,
    SizeHeader,
    SizeUpload,
    SpeedDownload,
    SpeedUpload,
    TimeStarttransfer,
    TimeTotal,
    Url,
    UrlEffective,
}

const VARIABLES: [(&str, Variable); 19] = [
    ("content_type", Variable::ContentType),
    ("filename_effective", Variable::FilenameEffective),
    ("http_code", Variable::HttpCode),
    ("http_version", Variable::HttpVersion),
    ("method", Variable::Method),
    ("num_headers", Variable::NumHeaders),
    ("num_redirects", Variable::NumRedirects),
    ("redirect_url", Variable::RedirectUrl),
    ("response_code", Variable::HttpCode),
    ("scheme", Variable::Scheme),
    ("size_download", Variable::SizeDownload),
    ("size_header", Variable::SizeHeader),
    ("size_upload", Variable::SizeUpload),
    ("speed_download", Variable::SpeedDownload),
    ("speed_upload", Variable::SpeedUpload),
    ("time_starttransfer", Variable::TimeStarttransfer),
    ("time_total", Variable::TimeTotal),
    ("url", Variable::Url),
    ("url_effective", Variable::UrlEffective),
];

/// A parsed text of `--write-out`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct WriteOut(Vec<WriteOutPart>);

impl WriteOut {
    /// Parses `format`, which may have variables `%{NAME}` and escapes of C.
    ///
    /// # Errors
    /// If a variable is unknown.
    pub(super) fn parse(format: &str) -> Result<Self> {
        let mut parts = Vec::new();
        let mut text = String::new();
        let mut rest = format;
        while let Some(first) = rest.chars().next() {
            if let Some(after) = rest.strip_prefix("%%") {
                text.push('%');
                rest = after;
            } else if let Some((name, after)) = between(rest, "%{", '}') {
                let Some((_, variable)) = VARIABLES.iter().find(|(known, _)| *known == name) else {
                    bail!(
                        "`%{{{name}}}` is no variable of --write-out here: `wsgate call --help` \
                         lists them"
                    );
                };
                parts.extend([
                    WriteOutPart::Text(std::mem::take(&mut text)),
                    WriteOutPart::Variable(*variable),
                ]);
                rest = after;
            } else if let Some((name, after)) = between(rest, "%header{", '}') {
                let header = WriteOutPart::Header(name.to_owned());
                parts.extend([WriteOutPart::Text(std::mem::take(&mut text)), header]);
                rest = after;
            } else if let Some((escape, character)) = [("\\n", '\n'), ("\\r", '\r'), ("\\t", '\t')]
                .into_iter()
                .find(|(escape, _)| rest.starts_with(escape))
            {
                text.push(character);
                rest = &rest[escape.len()..];
            } else {
                text.push(first);
                rest = &rest[first.len_utf8()..];
            }
        }
        parts.push(WriteOutPart::Text(text));
        Ok(Self(parts))
    }

    /// The parsed text of the option's value, which may name a file.
    ///
    /// # Errors
    /// If the file cannot be read, or a variable is unknown.
    pub(super) fn of_option(value: &str) -> Result<Self> {
        match value.strip_prefix('@') {
            Some(path) => {
                let path = if path == "-" { "/dev/stdin" } else { path };
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("`{path}`"))
                    .context(UnusableFile::after_at("the text of --write-out cannot be read"))?;
                Self::parse(&text)
            }
            None => Self::parse(value),
        }
    }

    /// The text about a command that has ended.
    pub(super) fn render(&self, facts: &Facts<'_>, output: &Output) -> String {
        let total = facts.started.elapsed();
        self.0
            .iter()
            .map(|part| match part {
                WriteOutPart::Text(text) => text.clone(),
                WriteOutPart::Header(name) => {
                    output.head.field(name).unwrap_or_default().to_owned()
                }
                WriteOutPart::Variable(variable) => value(*variable, facts, output, total),
            })
            .collect()
    }
}

fn value(variable: Variable, facts: &Facts<'_>, output: &Output, total: Duration) -> String {
    let seconds = |time: Duration| format!("{:.6}", time.as_secs_f64());
    let speed = |bytes: u64| {
        u128::from(bytes).saturating_mul(1_000_000).checked_div(total.as_micros()).unwrap_or(0)
    };
    match variable {
        Variable::ContentType => output.head.field("Content-Type").unwrap_or_default().to_owned(),
        Variable::FilenameEffective => {
            output.path.as_ref().map(|path| path.display().to_string()).unwrap_or_default()
        }
        Variable::HttpCode => format!("{:03}", output.head.code()),
        Variable::HttpVersion => "1.1".to_owned(),
        Variable::Method => facts.method.to_owned(),
        Variable::NumHeaders => output.head.fields.len().to_string(),
        Variable::NumRedirects => facts.redirects.to_string(),
        Variable::RedirectUrl => facts.redirect_url.to_owned(),
        Variable::Scheme => facts.scheme.to_ascii_uppercase(),
        Variable::SizeDownload => output.body_bytes.to_string(),
        Variable::SizeHeader => output.head_bytes.to_string(),
        Variable::SizeUpload => facts.uploaded.to_string(),
        Variable::SpeedDownload => speed(output.body_bytes).to_string(),
        Variable::SpeedUpload => speed(facts.uploaded).to_string(),
        Variable::TimeStarttransfer => {
            let begun = output.head_at.map(|at| at.duration_since(facts.started));
            seconds(begun.unwrap_or_default())
        }
        Variable::TimeTotal => seconds(total),
        Variable::Url => facts.target.to_owned(),
        Variable::UrlEffective => facts.url.to_owned(),
    }
}

/// The text after `open`, with which `text` begins, up to `close`, and the rest.
fn between<'a>(text: &'a str, open: &str, close: char) -> Option<(&'a str, &'a str)> {
    text.strip_prefix(open)?.split_once(close)
}

//! Writes metrics in OpenMetrics 1.0, or in the older text format of Prometheus (0.0.4).

use std::fmt::{Display, Write as _};

/// The format of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Format {
    OpenMetrics,
    Text,
}

impl Format {
    /// The format that a client with this `Accept` header gets. Prometheus sends a list with
    /// weights; a client that names OpenMetrics understands it.
    pub(crate) fn accepted(accept: &str) -> Self {
        let ranges = accept.split(',').map(|range| range.split(';').map(str::trim));
        let names_it = ranges.into_iter().any(|mut parts| {
            let name = parts.next().unwrap_or_default();
            let is_refused = parts.any(|part| matches!(part, "q=0" | "q=0.0"));
            name.eq_ignore_ascii_case("application/openmetrics-text") && !is_refused
        });
        if names_it { Self::OpenMetrics } else { Self::Text }
    }

    /// The value of `Content-Type`.
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// The type of a family of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// The text of metrics.
pub(crate) struct Exposition {
    format: Format,
    text: String,
    family: &'static str,
    kind: Kind,
}

impl Exposition {
    /// An empty text.
    pub(crate) fn new(format: Format) -> Self {
        Self { format, text: String::with_capacity(64 * 1024), family: "", kind: Kind::Gauge }
    }

    /// Begins the family `name`, whose samples follow. The name of a counter ends in `_total`.
    pub(crate) fn family(&mut self, name: &'static str, kind: Kind, help: &str) {
        // In OpenMetrics the suffix belongs to the sample.
        let shown = match (self.format, kind) {
            (Format::OpenMetrics, Kind::Counter) => name.trim_end_matches("_total"),
            _ => name,
        };
        let kind_name = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "# HELP {shown} {help}\n# TYPE {shown} {kind_name}");
        (self.family, self.kind) = (name, kind);
    }

    /// Writes a sample of the family.
    pub(crate) fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.line("", labels, None, value);
    }

    /// Writes a histogram of the family: for each bound the number of times up to it.
    pub(crate) fn histogram(
        &mut self,
        labels: &[(&str, &str)],
        buckets: &[(Option<f64>, u64)],
        sum: f64,
    ) {
        let Some((_, count)) = buckets.last() else { return };
        for (bound, count) in buckets {
            let bound = bound.map_or("+Inf".to_owned(), |bound| format!("{bound:?}"));
            self.line("_bucket", labels, Some(&bound), count);
        }
        self.line("_sum", labels, None, sum);
        self.line("_count", labels, None, count);
    }

    /// The complete text.
    pub(crate) fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }

    fn line(
        &mut self,
        suffix: &str,
        labels: &[(&str, &str)],
        bound: Option<&str>,
        value: impl Display,
    ) {
        self.text.push_str(self.family);
        self.text.push_str(suffix);
        let labels = labels.iter().copied().chain(bound.map(|bound| ("le", bound)));
        let mut separator = '{';
        for (name, value) in labels {
            self.text.push(separator);
            self.text.push_str(name);
            self.text.push_str("=\"");
            push_escaped(&mut self.text, value);
            self.text.push('"');
            separator = ',';
        }
        if separator == ',' {
            self.text.push('}');
        }
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, " {value}");
    }
}

/// Both formats escape these three characters in the value of a label.
fn push_escaped(text: &mut String, value: &str) {
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            other => text.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_loses_its_suffix_in_the_header_of_open_metrics_only() {
        let text = |format| {
            let mut exposition = Exposition::new(format);
            exposition.family("a_total", Kind::Counter, "Help.");
            exposition.sample(&[("pool", "a\"b\\c\nd")], 3);
            exposition.finish()
        };
        assert_eq!(
            text(Format::OpenMetrics),
            "# HELP a Help.\n# TYPE a counter\na_total{pool=\"a\\\"b\\\\c\\nd\"} 3\n# EOF\n"
        );
        assert_eq!(
            text(Format::Text),
            "# HELP a_total Help.\n# TYPE a_total counter\na_total{pool=\"a\\\"b\\\\c\\nd\"} 3\n"
        );
    }

    #[test]
    fn a_histogram_has_floats_as_bounds() {
        let mut exposition = Exposition::new(Format::Text);
        exposition.family("h_seconds", Kind::Histogram, "Help.");
        exposition.histogram(&[], &[(Some(0.005), 1), (Some(1.0), 2), (None, 3)], 4.5);
        let text = exposition.finish();
        let expected = "h_seconds_bucket{le=\"0.005\"} 1\nh_seconds_bucket{le=\"1.0\"} 2\n\
            h_seconds_bucket{le=\"+Inf\"} 3\nh_seconds_sum 4.5\nh_seconds_count 3\n";
        assert!(text.ends_with(expected), "{text}");
    }

    #[test]
    fn the_format_follows_the_accept_header() {
        let prometheus =
            "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";
        assert_eq!(Format::accepted(prometheus), Format::OpenMetrics);
        for text in ["", "*/*", "text/plain", "application/openmetrics-text;q=0, text/plain"] {
            assert_eq!(Format::accepted(text), Format::Text, "{text}");
        }
    }
}

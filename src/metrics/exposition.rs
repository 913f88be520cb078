//! Writes Prometheus' text format, version 0.0.4.

use std::{
    fmt::{self, Write as _},
    sync::atomic::Ordering::Relaxed,
};

use super::instruments::Histogram;

/// The type of a family, for Prometheus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    Counter,
    Gauge,
    Histogram,
}

/// A value, written without loss of precision.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    Whole(u64),
    Signed(i64),
    Real(f64),
}

impl From<u64> for Number {
    fn from(value: u64) -> Number {
        Number::Whole(value)
    }
}

impl From<usize> for Number {
    fn from(value: usize) -> Number {
        Number::Whole(value as u64)
    }
}

impl From<i64> for Number {
    fn from(value: i64) -> Number {
        Number::Signed(value)
    }
}

impl From<f64> for Number {
    fn from(value: f64) -> Number {
        Number::Real(value)
    }
}

/// 1 or 0.
impl From<bool> for Number {
    fn from(value: bool) -> Number {
        Number::Whole(value.into())
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Number::Whole(value) => value.fmt(f),
            Number::Signed(value) => value.fmt(f),
            Number::Real(value) if *value == f64::INFINITY => f.write_str("+Inf"),
            Number::Real(value) => value.fmt(f),
        }
    }
}

/// The text of one scrape.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
}

impl Exposition {
    /// The `Content-Type` of the text.
    pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

    /// A family with one value.
    pub fn gauge(&mut self, name: &str, help: &str, value: impl Into<Number>) {
        self.family(name, MetricKind::Gauge, help).sample(&[], value);
    }

    /// A family with one value.
    pub fn counter(&mut self, name: &str, help: &str, value: impl Into<Number>) {
        self.family(name, MetricKind::Counter, help).sample(&[], value);
    }

    /// A family with one histogram.
    pub fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.family(name, MetricKind::Histogram, help).histogram(&[], histogram);
    }

    /// A family of values with labels. Write all of its values before the next family, and each name only
    /// once.
    pub fn family<'a>(
        &'a mut self,
        name: &'a str,
        kind: MetricKind,
        help: &str,
    ) -> FamilyWriter<'a> {
        let kind = match kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        };
        write(&mut self.text, format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        FamilyWriter { text: &mut self.text, name }
    }

    pub fn finish(self) -> String {
        self.text
    }
}

/// Writes the values of one family.
#[derive(Debug)]
pub struct FamilyWriter<'a> {
    text: &'a mut String,
    name: &'a str,
}

impl FamilyWriter<'_> {
    pub fn sample(&mut self, labels: &[(&str, &str)], value: impl Into<Number>) {
        self.line("", labels, None, value.into());
    }

    pub fn histogram(&mut self, labels: &[(&str, &str)], histogram: &Histogram) {
        let mut count = 0;
        let bounds = histogram.bounds.iter().map(|b| histogram.unit.of(b.as_nanos() as f64));
        for (bound, bucket) in bounds.chain([f64::INFINITY]).zip(&histogram.counts) {
            count += bucket.load(Relaxed);
            self.line("_bucket", labels, Some(bound), count.into());
        }
        let sum = histogram.unit.of(histogram.sum_nanos());
        self.line("_sum", labels, None, sum.into());
        self.line("_count", labels, None, count.into());
    }

    fn line(&mut self, suffix: &str, labels: &[(&str, &str)], bound: Option<f64>, value: Number) {
        write(self.text, format_args!("{}{suffix}", self.name));
        let mut open = '{';
        for (name, value) in labels {
            write(self.text, format_args!("{open}{name}=\"{}\"", Escaped(value)));
            open = ',';
        }
        if let Some(bound) = bound {
            write(self.text, format_args!("{open}le=\"{}\"", Number::Real(bound)));
            open = ',';
        }
        let close = if open == ',' { "}" } else { "" };
        write(self.text, format_args!("{close} {value}\n"));
    }
}

/// A label value, escaped for quotes.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '\\' | '"' => write!(f, "\\{c}"),
            '\n' => f.write_str("\\n"),
            _ => f.write_char(c),
        })
    }
}

fn write(text: &mut String, args: fmt::Arguments<'_>) {
    text.write_fmt(args).expect("writing to a string cannot fail");
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::metrics::{Unit, exponential_buckets};

    static BOUNDS: [Duration; 2] = exponential_buckets(Duration::from_micros(500));

    #[test]
    fn a_family_is_written_as_prometheus_reads_it() {
        let mut text = Exposition::default();
        text.gauge("has_leader", "Whether there is one.", true);
        let mut family = text.family("handled_total", MetricKind::Counter, "How many.");
        family.sample(&[("code", "OK"), ("method", "a\"b\\c\nd")], 7u64);
        let expected = "# HELP has_leader Whether there is one.\n# TYPE has_leader gauge\n\
            has_leader 1\n\
            # HELP handled_total How many.\n# TYPE handled_total counter\n\
            handled_total{code=\"OK\",method=\"a\\\"b\\\\c\\nd\"} 7\n";
        assert_eq!(text.finish(), expected);
    }

    #[test]
    fn buckets_are_cumulative_and_end_with_infinity() {
        let histogram = Histogram::with_unit(Unit::Milliseconds, &BOUNDS);
        histogram.observe(Duration::from_micros(300));
        histogram.observe(Duration::from_secs(1));
        let mut text = Exposition::default();
        text.histogram("pause", "How long.", &histogram);
        let text = text.finish();
        let lines: Vec<&str> = text.lines().skip(2).collect();
        let expected = [
            "pause_bucket{le=\"0.5\"} 1",
            "pause_bucket{le=\"1\"} 1",
            "pause_bucket{le=\"+Inf\"} 2",
            "pause_sum 1000.3",
            "pause_count 2",
        ];
        assert_eq!(lines, expected);
    }
}

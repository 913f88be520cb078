//! The result of a run, as text and as JSON.

use std::{fmt::Write as _, time::Duration};

use serde_json::{Value, json};

use super::{
    pace::Elapsed,
    settings::Settings,
    tally::{Counts, Row, Tally},
};
use crate::ctl::context::ClientConfig;

#[derive(Debug)]
pub struct BenchReport {
    bench: &'static str,
    settings: Value,
    counts: Counts,
    time: Duration,
    pub interrupted: bool,
    /// Numbers of this bench only, by name.
    pub extra: Vec<(&'static str, Value)>,
}

/// The columns of latencies: heading, name in JSON, quantile.
const QUANTILES: [(&str, &str, f64); 5] = [
    ("p50", "p50", 0.5),
    ("p90", "p90", 0.9),
    ("p99", "p99", 0.99),
    ("p99.9", "p999", 0.999),
    ("max", "max", 1.0),
];

impl BenchReport {
    pub fn new(
        bench: &'static str,
        settings: &Settings,
        config: &ClientConfig,
        tally: &Tally,
        elapsed: Elapsed,
    ) -> BenchReport {
        let endpoints: Vec<_> = config.endpoints.iter().map(ToString::to_string).collect();
        let settings = json!({
            "endpoints": endpoints,
            "clients": settings.clients,
            "conns": settings.conns(),
            "rate": settings.rate,
            "key_size": settings.key_size,
            "value_size": settings.value_size,
            "keyspace": settings.keyspace_or(if bench == "watch" { 1 } else { 10_000 }),
            "serializable": settings.serializable,
            "seed": settings.seed,
        });
        let Elapsed { time, interrupted } = elapsed;
        BenchReport { bench, settings, counts: tally.counts(), time, interrupted, extra: vec![] }
    }

    fn per_second(&self, row: &Row) -> f64 {
        row.latency_us.len() as f64 / self.time.as_secs_f64().max(1e-6)
    }

    /// One line. Names are stable; all times but `seconds` are microseconds.
    pub fn json(&self) -> String {
        let rows: Vec<_> = self.counts.rows.iter().map(|row| self.row_json(row)).collect();
        let mut report = json!({
            "bench": self.bench,
            "interrupted": self.interrupted,
            "seconds": self.time.as_secs_f64(),
            "settings": self.settings,
            "rows": rows,
            "errors": self.counts.errors,
        });
        for (name, value) in &self.extra {
            report[*name] = value.clone();
        }
        format!("{report}\n")
    }

    fn row_json(&self, row: &Row) -> Value {
        let mut latency = json!({ "mean": row.latency_us.mean().round() });
        for (_, name, quantile) in QUANTILES {
            latency[name] = row.latency_us.value_at_quantile(quantile).into();
        }
        json!({
            "name": row.name,
            "count": row.latency_us.len(),
            "errors": row.errors,
            "per_second": self.per_second(row),
            "latency_us": latency,
        })
    }

    /// A line for each kind of request, and the circumstances.
    pub fn table(&self) -> String {
        let mut text =
            format!("{:<10} {:>10} {:>8} {:>12}", "", "answered", "errors", "per second");
        for (column, ..) in QUANTILES {
            let _ = write!(text, " {column:>9}");
        }
        text.push('\n');
        for row in &self.counts.rows {
            let count = row.latency_us.len();
            let _ = write!(
                text,
                "{:<10} {count:>10} {:>8} {:>12.1}",
                row.name,
                row.errors,
                self.per_second(row)
            );
            for (_, _, quantile) in QUANTILES {
                let latency = match count {
                    0 => "-".into(),
                    _ => milliseconds(row.latency_us.value_at_quantile(quantile)),
                };
                let _ = write!(text, " {latency:>9}");
            }
            text.push('\n');
        }
        let _ = writeln!(text, "\n{}", self.circumstances());
        for (name, value) in &self.extra {
            let _ = writeln!(text, "{}: {value}", name.replace('_', " "));
        }
        for (kind, count) in &self.counts.errors {
            let _ = writeln!(text, "errors, {count} times: {kind}");
        }
        text
    }

    fn circumstances(&self) -> String {
        let settings = &self.settings;
        let from = if settings["rate"].is_null() { "was sent" } else { "was due" };
        let endpoints = settings["endpoints"].as_array().map_or(0, Vec::len);
        format!(
            "{}Took {:.1} s; {} clients, {} connections, {endpoints} {}. Times from when a request \
             {from} until its answer.",
            if self.interrupted { "Interrupted. " } else { "" },
            self.time.as_secs_f64(),
            settings["clients"],
            settings["conns"],
            if endpoints == 1 { "endpoint" } else { "endpoints" },
        )
    }
}

/// Three significant digits.
fn milliseconds(us: u64) -> String {
    match us {
        0..10_000 => format!("{:.2} ms", us as f64 / 1e3),
        10_000..100_000 => format!("{:.1} ms", us as f64 / 1e3),
        100_000..1_000_000 => format!("{:.0} ms", us as f64 / 1e3),
        _ => format!("{:.2} s", us as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> BenchReport {
        let tally = Tally::default();
        for ms in 1..=1000 {
            tally.done("put", Duration::from_millis(ms));
        }
        tally.failed("put", "no answer in time".into());
        BenchReport {
            bench: "put",
            settings: json!({ "clients": 32, "conns": 4, "rate": null, "endpoints": ["a:1"] }),
            counts: tally.counts(),
            time: Duration::from_secs(2),
            interrupted: false,
            extra: vec![("missing_deliveries", 3.into())],
        }
    }

    #[test]
    fn the_table_shows_units_and_circumstances() {
        assert_eq!(
            report().table(),
            "             answered   errors   per second       p50       p90       p99     p99.9       max\n\
             put              1000        1        500.0    500 ms    900 ms    990 ms    999 ms    1.00 s\n\
             \n\
             Took 2.0 s; 32 clients, 4 connections, 1 endpoint. Times from when a request was sent \
             until its answer.\n\
             missing deliveries: 3\n\
             errors, 1 times: no answer in time\n"
        );
    }

    #[test]
    fn the_json_has_stable_names() {
        let json: Value = serde_json::from_str(&report().json()).unwrap();
        let row = &json["rows"][0];
        assert_eq!(
            (&row["name"], &row["count"], &row["errors"]),
            (&"put".into(), &1000.into(), &1.into())
        );
        assert_eq!(row["per_second"], 500.0);
        for name in ["mean", "p50", "p90", "p99", "p999", "max"] {
            assert!(row["latency_us"][name].is_number(), "{name}");
        }
        assert_eq!(json["errors"]["no answer in time"], 1);
        assert_eq!(json["missing_deliveries"], 3);
    }
}

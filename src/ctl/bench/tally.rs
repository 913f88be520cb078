//! Counters and latencies of a running bench.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hdrhistogram::Histogram;

use crate::client::ClientError;

/// Significant digits of latencies, which are at most ten minutes.
const DIGITS: u8 = 3;
const LATENCY_MAX_US: u64 = 600_000_000;
/// Further kinds of errors are counted together.
const ERROR_KINDS_MAX: usize = 20;

/// Shared by all clients of a bench.
#[derive(Debug, Clone, Default)]
pub struct Tally(Arc<Mutex<Counts>>);

#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// By kind of request, in the order of first use.
    pub rows: Vec<Row>,
    /// By kind of error.
    pub errors: BTreeMap<String, u64>,
}

/// One kind of request.
#[derive(Debug, Clone)]
pub struct Row {
    pub name: &'static str,
    /// Of successful requests, in microseconds.
    pub latency_us: Histogram<u64>,
    pub errors: u64,
}

impl Tally {
    pub fn done(&self, name: &'static str, latency: Duration) {
        let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.lock().row(name).latency_us.saturating_record(us.max(1));
    }

    pub fn failed(&self, name: &'static str, kind: String) {
        let mut counts = self.lock();
        counts.row(name).errors += 1;
        let known = counts.errors.contains_key(&kind) || counts.errors.len() < ERROR_KINDS_MAX;
        let kind = if known { kind } else { "other errors".into() };
        *counts.errors.entry(kind).or_default() += 1;
    }

    /// Successful and failed requests.
    pub fn total(&self) -> u64 {
        self.lock().rows.iter().map(|row| row.latency_us.len() + row.errors).sum()
    }

    pub fn counts(&self) -> Counts {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        // A client that panicked while it counted leaves one request uncounted.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    fn row(&mut self, name: &'static str) -> &mut Row {
        let at = self.rows.iter().position(|row| row.name == name).unwrap_or_else(|| {
            let latency_us = Histogram::new_with_bounds(1, LATENCY_MAX_US, DIGITS)
                .expect("the bounds are in order and the digits few");
            self.rows.push(Row { name, latency_us, errors: 0 });
            self.rows.len() - 1
        });
        &mut self.rows[at]
    }
}

/// The kind of an error, without its endpoint.
pub fn kind(error: &ClientError) -> String {
    match error {
        ClientError::Unreachable(all) => {
            format!("cannot connect: {}", all.first().map_or("no endpoint", |one| &one.reason))
        }
        ClientError::Refused { message, .. } => message.clone(),
        ClientError::Lost { reason, .. } => format!("lost the answer: {reason}"),
        ClientError::TimedOut { .. } => "no answer in time".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_counted_by_kind_and_kinds_are_bounded() {
        let tally = Tally::default();
        tally.done("put", Duration::from_millis(1));
        for n in 0..100 {
            tally.failed("put", format!("kind {}", n / 2));
        }
        let counts = tally.counts();
        assert_eq!((tally.total(), counts.rows[0].errors), (101, 100));
        assert_eq!((counts.errors.len(), counts.errors["kind 0"]), (ERROR_KINDS_MAX + 1, 2));
        assert_eq!(counts.errors["other errors"], 60);
    }
}

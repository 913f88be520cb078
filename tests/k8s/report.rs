//! What came of it, as a table for docs/chaos.md.

use std::fmt;

use tokio::time::Duration;

use crate::{scenarios::Scenario, workload::Seen};

#[derive(Debug, Default)]
pub(crate) struct Report(Vec<Row>);

#[derive(Debug)]
struct Row {
    scenario: Scenario,
    runs: usize,
    acknowledged: usize,
    /// Until all pods were ready.
    formed: Duration,
    write_gap: Duration,
    read_gap: Duration,
    failures: Vec<String>,
}

impl Report {
    pub(crate) fn add(&mut self, scenario: &Scenario, ran: Result<(Duration, Seen), String>) {
        if self.0.last().is_none_or(|row| row.scenario.name != scenario.name) {
            self.0.push(Row::new(*scenario));
        }
        self.0.last_mut().expect("just pushed").add(ran);
    }

    pub(crate) fn failures(&self) -> impl Iterator<Item = String> {
        let of_row = |row: &Row| {
            let name = row.scenario.name;
            row.failures.iter().map(move |failure| format!("{name}: {failure}")).collect::<Vec<_>>()
        };
        self.0.iter().flat_map(of_row)
    }
}

impl Row {
    fn new(scenario: Scenario) -> Row {
        let none = Duration::ZERO;
        let (formed, write_gap, read_gap) = (none, none, none);
        let failures = Vec::new();
        Row { scenario, runs: 0, acknowledged: 0, formed, write_gap, read_gap, failures }
    }

    fn add(&mut self, ran: Result<(Duration, Seen), String>) {
        self.runs += 1;
        match ran {
            Ok((formed, seen)) => {
                self.acknowledged += seen.acknowledged;
                self.formed = self.formed.max(formed);
                self.write_gap = self.write_gap.max(seen.write_gap.lasted);
                self.read_gap = self.read_gap.max(seen.read_gap.lasted);
                let failure = self.scenario.too_long(&seen).filter(|_| gaps_count());
                self.failures.extend(failure);
            }
            Err(failure) => self.failures.push(failure),
        }
    }
}

/// On a machine that does other things too, how long is no measure of the store.
fn gaps_count() -> bool {
    std::env::var("K8S_GAPS").as_deref() != Ok("tell")
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| scenario | runs | failed | acknowledged | lost | formed within | longest write gap | \
             longest read gap |\n|---|--:|--:|--:|--:|--:|--:|--:|"
        )?;
        for row in &self.0 {
            let lost = row.failures.iter().filter(|failure| failure.contains("lost:")).count();
            writeln!(
                f,
                "| {} | {} | {} | {} | {lost} | {:.1} s | {:.2} s | {:.2} s |",
                row.scenario.name,
                row.runs,
                row.failures.len(),
                row.acknowledged,
                row.formed.as_secs_f64(),
                row.write_gap.as_secs_f64(),
                row.read_gap.as_secs_f64()
            )?;
        }
        Ok(())
    }
}

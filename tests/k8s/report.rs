//! The results, as a table for docs/chaos.md.

use std::fmt;

use tokio::time::Duration;

use crate::k8s::{scenarios::Scenario, workload::Seen};

#[derive(Debug, Default)]
pub struct Report(Vec<Row>);

#[derive(Debug)]
struct Row {
    scenario: Scenario,
    runs: usize,
    acknowledged: usize,
    /// Time until all pods were ready.
    formed: Duration,
    /// The longest gaps of undisturbed runs.
    write_gap: Duration,
    read_gap: Duration,
    disturbed: usize,
    /// The longest gap of disturbed runs, of writes or reads.
    disturbed_gap: Duration,
    failures: Vec<String>,
}

/// A completed run.
#[derive(Debug)]
pub struct Run {
    /// Until all pods were ready.
    pub formed: Duration,
    pub seen: Seen,
    /// The machine was too busy for the gaps to count.
    pub disturbed: bool,
}

impl Report {
    pub fn add(&mut self, scenario: &Scenario, ran: Result<Run, String>) {
        self.row(scenario).add(ran);
    }

    /// A failure of all runs together.
    pub fn fail(&mut self, scenario: &Scenario, failure: String) {
        self.row(scenario).failures.push(failure);
    }

    fn row(&mut self, scenario: &Scenario) -> &mut Row {
        if self.0.last().is_none_or(|row| row.scenario.name != scenario.name) {
            self.0.push(Row::new(*scenario));
        }
        self.0.last_mut().expect("just pushed")
    }

    pub fn failures(&self) -> impl Iterator<Item = String> {
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
        Row {
            scenario,
            runs: 0,
            acknowledged: 0,
            formed: none,
            write_gap: none,
            read_gap: none,
            disturbed: 0,
            disturbed_gap: none,
            failures: Vec::new(),
        }
    }

    fn add(&mut self, ran: Result<Run, String>) {
        self.runs += 1;
        let Run { formed, seen, disturbed } = match ran {
            Ok(run) => run,
            Err(failure) => return self.failures.push(failure),
        };
        self.acknowledged += seen.acknowledged;
        self.formed = self.formed.max(formed);
        let (write, read) = (seen.write_gap.lasted, seen.read_gap.lasted);
        if disturbed {
            self.disturbed += 1;
            self.disturbed_gap = self.disturbed_gap.max(write).max(read);
        } else {
            self.write_gap = self.write_gap.max(write);
            self.read_gap = self.read_gap.max(read);
            self.failures.extend(self.scenario.too_long(&seen).filter(|_| gaps_count()));
        }
    }
}

/// Whether long gaps fail a scenario. On a machine with other load, they are no measure of the
/// store.
pub fn gaps_count() -> bool {
    std::env::var("K8S_GAPS").as_deref() != Ok("report")
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| scenario | runs | failed | acknowledged | lost | formed within | longest write gap | \
             longest read gap | disturbed runs | longest gap of those |\n\
             |---|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
        )?;
        for row in &self.0 {
            let lost = row.failures.iter().filter(|failure| failure.contains("lost:")).count();
            writeln!(
                f,
                "| {} | {} | {} | {} | {lost} | {:.1} s | {:.2} s | {:.2} s | {} | {:.2} s |",
                row.scenario.name,
                row.runs,
                row.failures.len(),
                row.acknowledged,
                row.formed.as_secs_f64(),
                row.write_gap.as_secs_f64(),
                row.read_gap.as_secs_f64(),
                row.disturbed,
                row.disturbed_gap.as_secs_f64()
            )?;
        }
        Ok(())
    }
}

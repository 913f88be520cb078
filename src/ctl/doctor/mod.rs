//! `kvctl doctor`: checks a cluster, and advises on each problem.
//!
//! [`probe`] calls every member, one by one; [`findings`] judges the responses, and is pure. Neither
//! knows the other's code, so a test writes the responses down.

mod findings;
mod probe;
pub mod report;
#[cfg(test)]
mod tests;

use super::{context::ClientConfig, print::Outcome};

/// Checks the cluster, and advises on each problem.
///
/// Calls every member: whether it answers, which one leads, whether names resolve, clocks agree,
/// disks keep up and have space, alarms are raised, and whether versions and contents are equal.
/// Exit code 0: no problem; 1: at least one.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example:\n  kvctl doctor --endpoints kv-client:2379")]
pub struct DoctorArgs {}

impl DoctorArgs {
    pub async fn call(self, config: &ClientConfig) -> Outcome {
        let report = findings::report(&probe::facts(config).await);
        let errors = match report.problems() {
            0 => vec![],
            1 => vec!["Error: 1 problem".into()],
            n => vec![format!("Error: {n} problems")],
        };
        Outcome::with_errors(report, errors)
    }
}

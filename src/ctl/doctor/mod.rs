//! `kvctl doctor`: finds what is wrong with a cluster, and says what to do.
//!
//! [`gather`] asks every member, by itself; [`findings`] judges what they said, and is pure. One file
//! more knows nothing of the other: what is to be found can be written down in a test.

mod findings;
mod gather;
#[cfg(test)]
mod tests;

use super::{
    CtlError,
    print::Answer,
    request::{Connection, Outcome},
};

/// Looks for what is wrong with the cluster, and says what to do about it.
///
/// Every member is asked by itself: whether it answers, who leads, whether names resolve, clocks agree,
/// disks keep up and have room, alarms are raised, versions and contents are the same. Exits with 0 if
/// nothing is wrong, else with 1.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example:\n  kvctl doctor --endpoints kv-client:2379")]
pub(crate) struct DoctorArgs {}

/// What was found, the worst first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Report {
    /// One line about the whole.
    pub(crate) summary: String,
    pub(crate) findings: Vec<Finding>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// Its kind, for programs: a word that stays.
    pub(crate) check: &'static str,
    /// Else worth knowing, and nothing to be mended.
    pub(crate) problem: bool,
    pub(crate) what: String,
    /// What to do. May be empty where there is nothing.
    pub(crate) advice: String,
}

impl Report {
    pub(crate) fn is_healthy(&self) -> bool {
        self.problems() == 0
    }

    fn problems(&self) -> usize {
        self.findings.iter().filter(|finding| finding.problem).count()
    }
}

impl DoctorArgs {
    pub(crate) async fn call(self, connection: &Connection) -> Result<Outcome, CtlError> {
        let report = findings::of(&gather::facts(connection).await);
        let complaints = match report.problems() {
            0 => vec![],
            1 => vec!["Error: 1 problem".into()],
            n => vec![format!("Error: {n} problems")],
        };
        Ok(Outcome { answer: Answer::Report(report), complaints })
    }
}

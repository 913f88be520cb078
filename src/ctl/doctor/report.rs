//! The result of `kvctl doctor`.

use crate::ctl::print::{
    Answer, Rendered, ValueStyle,
    json::{Object, array, text},
};

/// The findings, problems first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthReport {
    /// One line about the whole cluster.
    pub summary: String,
    pub findings: Vec<Finding>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The kind, for programs: a stable name.
    pub check: &'static str,
    /// False: a note, which needs no action.
    pub problem: bool,
    pub message: String,
    /// The next step. Empty where there is none.
    pub advice: String,
}

impl HealthReport {
    pub fn is_healthy(&self) -> bool {
        self.problems() == 0
    }

    pub fn problems(&self) -> usize {
        self.findings.iter().filter(|finding| finding.problem).count()
    }
}

impl Answer for HealthReport {
    fn simple(&self, _: ValueStyle) -> Rendered {
        let mut out = format!("{}\n", self.summary);
        for finding in &self.findings {
            let mark = if finding.problem { "PROBLEM" } else { "note   " };
            out += &format!("\n{mark}  {}\n", finding.message);
            if !finding.advice.is_empty() {
                out += &format!("         {}\n", finding.advice);
            }
        }
        Rendered::stdout(out)
    }

    fn json(&self, _: ValueStyle) -> String {
        let finding = |finding: &Finding| {
            Object::new()
                .value("check", text(finding.check))
                .value("problem", finding.problem.to_string())
                .value("what", text(&finding.message))
                .value("advice", text(&finding.advice))
                .end()
        };
        Object::new()
            .value("healthy", self.is_healthy().to_string())
            .value("summary", text(&self.summary))
            .value("findings", array(&self.findings, finding))
            .end()
    }
}

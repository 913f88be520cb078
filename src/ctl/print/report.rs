//! What `kvctl doctor` found, as text.

use crate::ctl::doctor::Report;

pub(crate) fn text(report: &Report) -> String {
    let mut out = format!("{}\n", report.summary);
    for finding in &report.findings {
        let mark = if finding.problem { "PROBLEM" } else { "note   " };
        out += &format!("\n{mark}  {}\n", finding.what);
        if !finding.advice.is_empty() {
            out += &format!("         {}\n", finding.advice);
        }
    }
    out
}

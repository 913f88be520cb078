//! A panic means that an invariant is broken, so the process ends before it acts on the broken state.
//!
//! A lane or a task that ended alone would leave a member half alive. Kubernetes restarts the process, and
//! recovery checks the data.

use std::panic;

/// sled panics when it finds damaged pages; `storage` catches that panic and rebuilds the tables.
const CAUGHT: &str = "/sled-0.34";

/// Makes every further panic end the process, after its report.
pub fn end_process_on_panic() {
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        report(info);
        let caught = info.location().is_some_and(|at| at.file().contains(CAUGHT));
        if !caught {
            std::process::abort();
        }
    }));
}

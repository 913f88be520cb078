//! What a panic means: an invariant of ours is broken, so the process ends before it acts on it.
//!
//! A lane or a task that died alone would leave a member half alive. Kubernetes starts it again, and
//! recovery looks at everything anew.

use std::panic;

/// sled panics where it finds its pages damaged; `storage` catches that and rebuilds the tables.
const CAUGHT: &str = "/sled-0.34";

/// From now on a panic ends the process, after it was reported.
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

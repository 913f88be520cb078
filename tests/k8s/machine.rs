//! What the machine under the cluster did meanwhile: a virtual one may not get its processors.

use std::{fmt, fs};

/// How much of the processors somebody else on the same hardware has had since it was made.
#[derive(Debug)]
pub(crate) struct Stolen {
    began: Option<Ticks>,
}

/// Of the time of all processors; `None` where the kernel does not tell.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Percent(Option<u64>);

/// Time of all processors since the machine started.
#[derive(Debug, Clone, Copy)]
struct Ticks {
    total: u64,
    stolen: u64,
}

impl Stolen {
    pub(crate) fn from_now() -> Stolen {
        Stolen { began: Ticks::now() }
    }

    pub(crate) fn percent(&self) -> Percent {
        Percent(self.began.zip(Ticks::now()).map(|(then, now)| {
            let total = now.total.saturating_sub(then.total).max(1);
            100 * now.stolen.saturating_sub(then.stolen) / total
        }))
    }
}

impl Percent {
    /// So much that clients' waiting is no measure of the store: a twentieth on average is, at times,
    /// both processors for half a second.
    pub(crate) fn disturbs(self) -> bool {
        self.0.is_some_and(|percent| percent > 5)
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(percent) => write!(f, "{percent} % of the processors stolen"),
            None => f.write_str("nobody tells how much of the processors was stolen"),
        }
    }
}

impl Ticks {
    /// `None` where the kernel does not tell.
    fn now() -> Option<Ticks> {
        let told = fs::read_to_string("/proc/stat").ok()?;
        // user nice system idle iowait irq softirq steal; what follows is part of user and nice.
        let ticks = told.lines().next()?.strip_prefix("cpu ")?.split_whitespace();
        let ticks: Vec<u64> = ticks.take(8).map_while(|n| n.parse().ok()).collect();
        Some(Ticks { total: ticks.iter().sum(), stolen: *ticks.get(7)? })
    }
}

//! What the machine under the cluster did meanwhile: a virtual one may not get its processors.

use std::{fmt, fs};

/// Time of all processors since the machine started, in ticks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Processors {
    total: u64,
    stolen: u64,
}

/// How much of the processors somebody else on the same hardware had.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stolen {
    percent: u64,
}

impl Processors {
    /// `None` where the kernel does not tell.
    pub(crate) fn now() -> Option<Processors> {
        let told = fs::read_to_string("/proc/stat").ok()?;
        // user nice system idle iowait irq softirq steal; what follows is part of user and nice.
        let ticks = told.lines().next()?.strip_prefix("cpu ")?.split_whitespace();
        let ticks: Vec<u64> = ticks.take(8).map_while(|n| n.parse().ok()).collect();
        Some(Processors { total: ticks.iter().sum(), stolen: *ticks.get(7)? })
    }

    pub(crate) fn stolen_until(self, then: Processors) -> Stolen {
        let total = then.total.saturating_sub(self.total).max(1);
        Stolen { percent: 100 * then.stolen.saturating_sub(self.stolen) / total }
    }
}

impl fmt::Display for Stolen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} % of the processors stolen", self.percent)
    }
}

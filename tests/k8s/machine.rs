//! What the machine under the cluster did meanwhile: a virtual one may not get its processors.

use std::{fmt, fs};

/// How much of the processors somebody else on the same hardware has had since it was made.
#[derive(Debug)]
pub(crate) struct Stolen {
    began: Option<Ticks>,
}

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
}

impl fmt::Display for Stolen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((then, now)) = self.began.zip(Ticks::now()) else {
            return f.write_str("nobody tells how much of the processors was stolen");
        };
        let total = now.total.saturating_sub(then.total).max(1);
        let percent = 100 * now.stolen.saturating_sub(then.stolen) / total;
        write!(f, "{percent} % of the processors stolen")
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

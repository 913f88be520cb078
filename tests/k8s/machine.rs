//! Processor time that the hypervisor gave to other machines during a run.

use std::{fmt, fs};

/// Stolen processor time since this value was made.
#[derive(Debug)]
pub struct StealTime {
    began: Option<Ticks>,
}

/// Share of the time of all processors; `None` where the kernel does not report it.
#[derive(Debug, Clone, Copy)]
pub struct StealPercent(Option<u64>);

/// Time of all processors since boot.
#[derive(Debug, Clone, Copy)]
struct Ticks {
    total: u64,
    stolen: u64,
}

impl StealTime {
    pub fn from_now() -> StealTime {
        StealTime { began: Ticks::now() }
    }

    pub fn percent(&self) -> StealPercent {
        StealPercent(self.began.zip(Ticks::now()).map(|(then, now)| {
            let total = now.total.saturating_sub(then.total).max(1);
            100 * now.stolen.saturating_sub(then.stolen) / total
        }))
    }
}

impl StealPercent {
    /// Whether gaps are no measure of the store: an average of a twentieth can mean both processors
    /// for half a second.
    pub fn disturbs(self) -> bool {
        self.0.is_some_and(|percent| percent > 5)
    }
}

impl fmt::Display for StealPercent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(percent) => write!(f, "{percent} % of the processors stolen"),
            None => f.write_str("stolen processor time is unknown"),
        }
    }
}

impl Ticks {
    /// `None` where the kernel does not report it.
    fn now() -> Option<Ticks> {
        let stat = fs::read_to_string("/proc/stat").ok()?;
        // user nice system idle iowait irq softirq steal; the later columns are part of user and
        // nice.
        let ticks = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace();
        let ticks: Vec<u64> = ticks.take(8).map_while(|n| n.parse().ok()).collect();
        Some(Ticks { total: ticks.iter().sum(), stolen: *ticks.get(7)? })
    }
}

//! The age of the oldest entry that has not reached a goal: pure, with `now` passed in.

use std::time::Duration;

use tokio::time::Instant;

/// Notes the last index of a log, and how long a goal (the commit index) takes to reach it.
#[derive(Debug, Default)]
pub struct PendingAge(Option<(u64, Instant)>);

impl PendingAge {
    /// The age of the noted entry, as far as the observations tell. Zero if the goal has reached it; then
    /// `last` is noted next.
    pub fn observe(&mut self, last: Option<u64>, goal: Option<u64>, now: Instant) -> Duration {
        match self.0 {
            // A log that became shorter has lost the noted entry.
            Some((index, since)) if goal < Some(index) && last >= Some(index) => {
                now.saturating_duration_since(since)
            }
            _ => {
                self.0 = last.map(|last| (last, now));
                Duration::ZERO
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_ages_until_the_goal_reaches_it() {
        let (mut pending, begun) = (PendingAge::default(), Instant::now());
        let mut at = |second, last, goal| {
            pending.observe(last, goal, begun + Duration::from_secs(second)).as_secs()
        };
        assert_eq!(at(0, None, None), 0);
        assert_eq!(at(1, Some(7), None), 0);
        assert_eq!(at(5, Some(9), Some(6)), 4);
        // Entry 7 has reached the goal; the next one is noted only now.
        assert_eq!(at(6, Some(9), Some(7)), 0);
        assert_eq!(at(9, Some(12), Some(8)), 3);
        assert_eq!(at(10, Some(12), Some(12)), 0);
        // Idle: nothing is pending.
        assert_eq!(at(3600, Some(12), Some(12)), 0);
        assert_eq!(at(3601, Some(20), Some(12)), 0);
        assert_eq!(at(3605, Some(20), Some(12)), 4);
        // The entries were truncated.
        assert_eq!(at(3606, Some(14), Some(12)), 0);
    }
}

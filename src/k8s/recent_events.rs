//! Suppresses events that repeat, and counts them: pure, with `now` passed in.

use std::{collections::VecDeque, mem, time::Duration};

use tokio::time::Instant;

use crate::membership::ClusterEvent;

/// Distinct events that are remembered. The oldest is dropped first, and may repeat then.
pub const RECENT_MAX: usize = 64;
/// An identical event is suppressed for this time.
pub const REPEAT_AFTER: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub struct RecentEvents(VecDeque<RecentEvent>);

#[derive(Debug)]
struct RecentEvent {
    event: ClusterEvent,
    at: Instant,
    repeats: Repeats,
}

/// The suppressed repetitions of an event.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Repeats {
    pub count: i32,
    /// The wall-clock time of the first repetition.
    pub first: Option<Duration>,
}

impl RecentEvents {
    /// `None` if the event is suppressed; otherwise the repetitions that were suppressed before.
    pub fn admit(&mut self, event: &ClusterEvent, now: Instant, date: Duration) -> Option<Repeats> {
        match self.0.iter_mut().find(|recent| recent.event == *event) {
            Some(recent) if now.duration_since(recent.at) < REPEAT_AFTER => {
                recent.repeats.count = recent.repeats.count.saturating_add(1);
                recent.repeats.first.get_or_insert(date);
                None
            }
            Some(recent) => {
                recent.at = now;
                Some(mem::take(&mut recent.repeats))
            }
            None => {
                if self.0.len() == RECENT_MAX {
                    self.0.pop_front();
                }
                let (event, repeats) = (event.clone(), Repeats::default());
                self.0.push_back(RecentEvent { event, at: now, repeats });
                Some(repeats)
            }
        }
    }
}

//! The time that a terminating pod has until it is killed.
//!
//! The configured period is an upper bound. A pod that is deleted with `--grace-period`, or evicted, has a
//! shorter one, and a deletion can be shortened while it is under way. The kubelet may send SIGTERM again
//! then, but some container runtimes deliver the signal only once. So the pod is read again at each SIGTERM,
//! and at an interval.

use std::{convert::Infallible, future, time::Duration};

use tokio::{sync::watch, time::Instant};

use crate::membership::orchestrator::{Orchestrator, Termination};

/// The part of the period that is kept for closing the storage; half of a shorter period.
const CLOSE_RESERVE: Duration = Duration::from_secs(15);
/// Interval of reading the pod.
const READ_INTERVAL: Duration = Duration::from_secs(1);

/// The expected kill: pure, with the time passed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StopDeadline {
    /// The shortest period so far.
    period: Duration,
    kill_at: Instant,
    /// The last time at which the period was known to hold: of the signal, or of a reading.
    known_at: Instant,
}

impl StopDeadline {
    /// `period` began with a signal at `signal`.
    pub fn new(period: Duration, signal: Instant) -> StopDeadline {
        StopDeadline { period, kill_at: signal + period, known_at: signal }
    }

    /// Records the period that a reading found, which began at `asked`. A shorter period counts from the
    /// last moment at which the longer one was known to hold. A longer one cannot be.
    fn record(&mut self, period: Duration, asked: Instant) {
        if period < self.period {
            self.kill_at = self.kill_at.min(self.known_at + period);
            self.period = period;
        }
        self.known_at = asked;
    }

    /// The end of all waiting. Later the member drains, and closes its storage.
    pub fn waiting_ends(&self) -> Instant {
        self.kill_at - CLOSE_RESERVE.min(self.period / 2)
    }

    /// The share of the time until the kill, at most `limit`.
    pub fn share_of_rest(&self, divisor: u32, limit: Duration) -> Duration {
        let rest = self.kill_at.saturating_duration_since(Instant::now());
        limit.min(rest / divisor)
    }

    /// The share of the whole period, at most `limit`.
    pub fn share_of_period(&self, divisor: u32, limit: Duration) -> Duration {
        limit.min(self.period / divisor)
    }
}

/// The grace period of a pod that has received SIGTERM.
#[derive(Debug)]
pub struct GracePeriod {
    signal: Instant,
    deadline: watch::Sender<StopDeadline>,
    /// Whether the pod is being deleted; `None`: unknown.
    is_deleted: watch::Sender<Option<bool>>,
    /// Counts the repetitions of SIGTERM.
    repeated: watch::Receiver<u32>,
}

impl GracePeriod {
    /// The signal has arrived now.
    pub fn start(configured: Duration, repeated: watch::Receiver<u32>) -> GracePeriod {
        let signal = Instant::now();
        let deadline = watch::Sender::new(StopDeadline::new(configured, signal));
        GracePeriod { signal, deadline, is_deleted: watch::Sender::new(None), repeated }
    }

    /// The time of the signal.
    pub fn signal(&self) -> Instant {
        self.signal
    }

    pub fn deadline(&self) -> StopDeadline {
        *self.deadline.borrow()
    }

    /// Resolves at the end of all waiting.
    pub async fn waiting_ended(&self) {
        let mut changes = self.deadline.subscribe();
        loop {
            let ends = changes.borrow_and_update().waiting_ends();
            tokio::select! {
                () = tokio::time::sleep_until(ends) => return,
                // The sender lives as long as `self`.
                _ = changes.changed() => {}
            }
        }
    }

    /// Resolves once the pod is known not to be deleted: then only its readiness withdraws its endpoints.
    pub async fn not_deleted(&self) {
        // The sender lives as long as `self`.
        let _ = self.is_deleted.subscribe().wait_for(|deleted| *deleted == Some(false)).await;
    }

    /// Keeps the deadline current. While the pod cannot be read, the last period holds.
    pub async fn follow(&self, pods: &dyn Orchestrator) -> Infallible {
        let mut repeated = self.repeated.clone();
        loop {
            let asked = Instant::now();
            match pods.termination().await {
                Ok(Some(Termination { grace, is_deleted })) => {
                    self.record(grace, asked);
                    self.is_deleted.send_replace(Some(is_deleted));
                }
                Ok(None) => {}
                Err(error) => tracing::debug!(%error, "grace period not read"),
            }
            tokio::select! {
                () = signaled(&mut repeated) => {}
                () = tokio::time::sleep(READ_INTERVAL) => {}
            }
        }
    }

    fn record(&self, period: Duration, asked: Instant) {
        self.deadline.send_if_modified(|deadline| {
            let before = deadline.kill_at;
            deadline.record(period, asked);
            let is_shorter = deadline.kill_at < before;
            if is_shorter {
                tracing::info!(?period, "the pod's grace period is shorter than configured");
            }
            is_shorter
        });
    }
}

/// Resolves at the next repetition of the signal.
async fn signaled(repeated: &mut watch::Receiver<u32>) {
    if repeated.changed().await.is_err() {
        // No signal is reported any more.
        future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn waiting_ends_before_the_kill() {
        let signal = Instant::now();
        let ends = |seconds| StopDeadline::new(S * seconds, signal).waiting_ends() - signal;
        assert_eq!(ends(120), S * 105);
        assert_eq!(ends(30), S * 15);
        assert_eq!(ends(5), S * 5 / 2);
        assert_eq!(ends(1), S / 2);
        assert_eq!(ends(0), Duration::ZERO);
    }

    #[test]
    fn a_period_that_was_short_from_the_beginning_counts_from_the_signal() {
        let signal = Instant::now();
        let mut deadline = StopDeadline::new(S * 120, signal);
        deadline.record(S * 5, signal + S * 2);
        assert_eq!(deadline.waiting_ends(), signal + S * 5 / 2);
        // A second reading changes nothing.
        deadline.record(S * 5, signal + S * 3);
        assert_eq!(deadline.waiting_ends(), signal + S * 5 / 2);
    }

    #[test]
    fn a_period_that_is_shortened_counts_from_the_last_reading_of_the_longer_one() {
        let signal = Instant::now();
        let mut deadline = StopDeadline::new(S * 120, signal);
        deadline.record(S * 120, signal + S * 40);
        deadline.record(S * 6, signal + S * 45);
        assert_eq!(deadline.waiting_ends(), signal + S * 43);
        // A period never becomes longer, and what is left of it never either.
        deadline.record(S * 60, signal + S * 46);
        assert_eq!(deadline.waiting_ends(), signal + S * 43);
    }

    #[test]
    fn a_short_period_that_ends_later_than_the_rest_changes_only_the_reserve() {
        let signal = Instant::now();
        let mut deadline = StopDeadline::new(S * 120, signal);
        deadline.record(S * 120, signal + S * 110);
        deadline.record(S * 20, signal + S * 111);
        assert_eq!(deadline.waiting_ends(), signal + S * 110);
    }
}

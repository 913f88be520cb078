//! Election and heartbeat times, derived from the one number an operator gives.

use std::time::Duration;

use openraft::{Config, SnapshotPolicy};

/// Times of one cluster. All members should have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// How often a leader shows that it is there.
    pub heartbeat: Duration,
    /// After so long without a leader, at the latest, an election starts.
    pub election_timeout: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Timing::detecting_in(Duration::from_secs(1))
    }
}

/// Why times were refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimingError {
    #[error("election timeout {0:?} is too short: at least 50ms, and five times the heartbeat")]
    TooShort(Duration),
}

impl Timing {
    /// A leader's loss is noticed within `election_timeout`; ten heartbeats fit into it.
    pub fn detecting_in(election_timeout: Duration) -> Timing {
        Timing { heartbeat: election_timeout / 10, election_timeout }
    }

    /// # Errors
    /// When a lost heartbeat or two would already cost an election.
    pub fn check(self) -> Result<(), TimingError> {
        let enough = self.election_timeout >= Duration::from_millis(50)
            && self.election_timeout >= self.heartbeat * 5;
        if enough { Ok(()) } else { Err(TimingError::TooShort(self.election_timeout)) }
    }

    /// How long a request may wait for its answer: two elections and a slow disk (etcd: 5 s plus
    /// two election timeouts).
    pub fn request_timeout(self) -> Duration {
        Duration::from_secs(5) + self.election_timeout * 2
    }

    /// How long a request waits for a leader to appear before it is told that there is none.
    pub fn leader_wait(self) -> Duration {
        self.election_timeout * 4
    }

    /// The openraft configuration.
    ///
    /// There, a follower campaigns after `election_timeout_max + U(min, max)`: the maximum is the
    /// leader's lease. Two fifths and a half make that 0.9 to 1.0 times what was asked for.
    pub(super) fn raft_config(self) -> Config {
        let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX).max(1);
        let max = millis(self.election_timeout / 2);
        Config {
            cluster_name: "ordinal".into(),
            heartbeat_interval: millis(self.heartbeat),
            election_timeout_min: millis(self.election_timeout * 2 / 5),
            election_timeout_max: max,
            // Killed and restarted, a leader must be elected again: see the module's invariants.
            enable_leader_restore: Some(false),
            enable_pre_vote: Some(true),
            quorum_loss_probe_interval: Some(max * 2),
            // `retention` decides by bytes when to take a snapshot and what to purge.
            snapshot_policy: SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: u64::MAX,
            purge_batch_size: 1,
            // Snapshots have their own progress deadline, in `network`.
            install_snapshot_timeout: 24 * 3600 * 1000,
            // An entry is a batch of commands; the log reader stops at about 1 MiB anyway.
            max_payload_entries: 64,
            replication_lag_threshold: 10_000,
            backoff: "50ms 100ms 200ms ..500ms".into(),
            ..Config::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openraft_accepts_the_derived_times() {
        for millis in [50, 100, 500, 1000, 5000, 50_000] {
            let timing = Timing::detecting_in(Duration::from_millis(millis));
            timing.check().unwrap();
            timing.raft_config().validate().unwrap();
        }
    }

    #[test]
    fn detection_time_is_what_was_asked_for() {
        let config = Timing::detecting_in(Duration::from_secs(1)).raft_config();
        assert_eq!(config.election_timeout_max + config.election_timeout_max, 1000);
        assert_eq!(config.election_timeout_max + config.election_timeout_min, 900);
    }

    #[test]
    fn a_restarted_leader_is_never_restored() {
        assert_eq!(Timing::default().raft_config().enable_leader_restore, Some(false));
    }

    #[test]
    fn times_that_cost_elections_are_refused() {
        assert!(Timing::detecting_in(Duration::from_millis(10)).check().is_err());
        let fifth = Duration::from_millis(300);
        assert!(
            Timing { heartbeat: fifth, election_timeout: Duration::from_secs(1) }.check().is_err()
        );
    }
}

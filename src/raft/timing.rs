//! Election timeout and heartbeat interval, derived from the one number that an operator sets.

use std::time::Duration;

use openraft::{Config, SnapshotPolicy};

/// Timing of a cluster. All members should use the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Interval of the leader's heartbeats.
    pub heartbeat: Duration,
    /// Upper bound on the time without a leader before a follower starts an election.
    pub election_timeout: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Timing::with_election_timeout(Duration::from_secs(1))
    }
}

/// Why a [`Timing`] is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimingError {
    #[error("election timeout {0:?} is too short: at least 50ms, and five times the heartbeat")]
    TooShort(Duration),
}

impl Timing {
    /// Followers detect the loss of the leader within `election_timeout`, which is ten heartbeats.
    pub fn with_election_timeout(election_timeout: Duration) -> Timing {
        Timing { heartbeat: election_timeout / 10, election_timeout }
    }

    /// # Errors
    /// When a lost heartbeat or two would already cost an election.
    pub fn check(self) -> Result<(), TimingError> {
        let enough = self.election_timeout >= Duration::from_millis(50)
            && self.election_timeout >= self.heartbeat * 5;
        if enough { Ok(()) } else { Err(TimingError::TooShort(self.election_timeout)) }
    }

    /// Bound on the time of a request: two elections and a slow disk (etcd: 5 s plus two election
    /// timeouts).
    pub fn request_timeout(self) -> Duration {
        Duration::from_secs(5) + self.election_timeout * 2
    }

    /// Bound on the time that a request waits for a leader.
    pub fn leader_wait(self) -> Duration {
        self.election_timeout * 4
    }

    /// The openraft configuration.
    ///
    /// openraft's followers campaign after `election_timeout_max + U(min, max)`, since the maximum is
    /// also the leader's lease. Two fifths and a half make that 0.9 to 1.0 times our timeout.
    pub fn raft_config(self) -> Config {
        let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX).max(1);
        let max = millis(self.election_timeout / 2);
        Config {
            cluster_name: "ordinal".into(),
            heartbeat_interval: millis(self.heartbeat),
            election_timeout_min: millis(self.election_timeout * 2 / 5),
            election_timeout_max: max,
            // A restarted leader must be elected again: see the module's invariants.
            enable_leader_restore: Some(false),
            enable_pre_vote: Some(true),
            quorum_loss_probe_interval: Some(max * 2),
            // `retention` decides by bytes when to take snapshots and how far to purge.
            snapshot_policy: SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: u64::MAX,
            purge_batch_size: 1,
            // Snapshot transfers have a stall timeout of their own, in `snapshot_sender`.
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
            let timing = Timing::with_election_timeout(Duration::from_millis(millis));
            timing.check().unwrap();
            timing.raft_config().validate().unwrap();
        }
    }

    #[test]
    fn detection_time_is_the_election_timeout() {
        let config = Timing::with_election_timeout(Duration::from_secs(1)).raft_config();
        assert_eq!(config.election_timeout_max + config.election_timeout_max, 1000);
        assert_eq!(config.election_timeout_max + config.election_timeout_min, 900);
    }

    #[test]
    fn a_restarted_leader_is_never_restored() {
        assert_eq!(Timing::default().raft_config().enable_leader_restore, Some(false));
    }

    #[test]
    fn times_that_cost_elections_are_refused() {
        assert!(Timing::with_election_timeout(Duration::from_millis(10)).check().is_err());
        let fifth = Duration::from_millis(300);
        assert!(
            Timing { heartbeat: fifth, election_timeout: Duration::from_secs(1) }.check().is_err()
        );
    }
}

//! Detects that the cluster has had no active leader for long. Streams end then, so that their clients
//! can try another member.

use tokio::sync::watch;

use crate::{raft::Raft, shutdown::ShutdownSignal};

/// Election timeouts without an active leader after which the leader counts as lost. A reconnect
/// costs a client more than waiting out one election (etcd: the same).
const LEADER_LOST_ELECTION_TIMEOUTS: u32 = 3;

/// Publishes in `lost` whether the leader is lost, until shutdown.
pub async fn detect_leader_loss(
    raft: Raft,
    lost: watch::Sender<bool>,
    mut shutdown: ShutdownSignal,
) {
    let mut timeouts_without_leader = 0;
    loop {
        tokio::select! {
            () = shutdown.wait() => return,
            () = tokio::time::sleep(raft.timing().election_timeout) => {}
        }
        let has_leader = raft.active_leadership().leader.is_some();
        timeouts_without_leader = if has_leader { 0 } else { timeouts_without_leader + 1 };
        let now = timeouts_without_leader >= LEADER_LOST_ELECTION_TIMEOUTS;
        lost.send_if_modified(|lost| std::mem::replace(lost, now) != now);
    }
}

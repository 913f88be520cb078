//! Noticing that nobody leads, for streams whose clients want to go elsewhere then.
//!
//! A member that is cut off cannot know that its leader is gone; but the leader says with each
//! heartbeat when a majority last followed it, and that grows old.

use tokio::sync::watch;

use crate::{raft::Raft, stop::Stopping};

/// A stream ends when there was no leader for so many election timeouts. Coming back costs a client
/// more than waiting (etcd: the same).
const PATIENCE: u32 = 3;

/// Whether somebody leads, and a majority follows, as far as this member can know.
pub(super) fn is_there(raft: &Raft) -> bool {
    let recent = raft.timing().election_timeout * 2;
    raft.leadership().leader.is_some() && raft.quorum_age().is_some_and(|age| age < recent)
}

/// Tells `lost` whether nobody has led for long.
pub(super) async fn watch(raft: Raft, lost: watch::Sender<bool>, mut stopping: Stopping) {
    let mut without = 0;
    loop {
        tokio::select! {
            () = stopping.wait() => return,
            () = tokio::time::sleep(raft.timing().election_timeout) => {}
        }
        without = if is_there(&raft) { 0 } else { without + 1 };
        let now = without >= PATIENCE;
        lost.send_if_modified(|lost| std::mem::replace(lost, now) != now);
    }
}

//! Who leads, and how the leader hands that over.

use std::{collections::BTreeSet, time::Duration};

use openraft::{async_runtime::watch::WatchReceiver as _, type_config::alias::WatchReceiverOf};

use super::{Raft, Types};
use crate::types::{MemberId, Ordinal, PeerPlace, Term};

/// Who leads, as this member sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Leadership {
    pub term: Term,
    pub leader: Option<PeerPlace>,
    pub me: MemberId,
}

impl Leadership {
    pub fn is_mine(&self) -> bool {
        self.leader.is_some_and(|l| l.member == self.me)
    }
}

/// Follows who leads.
#[derive(Clone)]
pub struct LeadershipWatch(WatchReceiverOf<Types, openraft::metrics::RaftServerMetrics<Types>>);

impl std::fmt::Debug for LeadershipWatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("LeadershipWatch").field(&leadership(&self.0.borrow_watched())).finish()
    }
}

impl LeadershipWatch {
    pub fn now(&mut self) -> Leadership {
        leadership(&self.0.borrow_and_update())
    }

    /// Waits for a change; `None` once Raft has stopped.
    pub async fn changed(&mut self) -> Option<Leadership> {
        self.0.changed().await.ok()?;
        Some(self.now())
    }
}

impl Raft {
    pub fn leadership(&self) -> Leadership {
        leadership(&self.raft.server_metrics().borrow_watched())
    }

    /// Sees every change of leader.
    pub fn watch_leadership(&self) -> LeadershipWatch {
        LeadershipWatch(self.raft.server_metrics())
    }

    /// As the leader: hands leadership to the voter that holds most of the log, but to none of `not_to`,
    /// and waits until somebody else leads or `limit` has passed. Elsewhere: nothing.
    pub async fn hand_over(&self, not_to: &BTreeSet<MemberId>, limit: Duration) {
        let now = self.leadership();
        if !now.is_mine() {
            return;
        }
        let voters: BTreeSet<MemberId> =
            self.members().into_iter().filter(|m| m.voter).map(|m| m.place.member).collect();
        let heir = self
            .progress()
            .into_iter()
            .filter(|p| p.member != self.me && !not_to.contains(&p.member))
            .filter(|p| voters.contains(&p.member))
            .filter(|p| p.silent_for.is_some_and(|t| t < self.timing().election_timeout))
            .max_by_key(|p| p.matched);
        if let Some(heir) = heir {
            self.hand_over_to(heir.member, limit).await;
        }
    }

    /// As the leader: hands leadership to this voter. See [`Raft::hand_over`].
    pub async fn hand_over_to(&self, heir: MemberId, limit: Duration) {
        tracing::info!(to = %heir, "handing over leadership");
        if self.raft.trigger().transfer_leader(heir).await.is_err() {
            return;
        }
        let mut watch = self.watch_leadership();
        let changed = async {
            while watch.now().leader.is_none_or(|l| l.member == self.me) {
                if watch.changed().await.is_none() {
                    return;
                }
            }
        };
        if tokio::time::timeout(limit, changed).await.is_err() {
            tracing::warn!("nobody took over leadership in time");
        }
    }
}

fn leadership(m: &openraft::metrics::RaftServerMetrics<Types>) -> Leadership {
    let node = |id: MemberId| m.membership_config.membership().get_node(&id).copied();
    let leader = m.current_leader.and_then(|id| place(Some(id), node(id)));
    Leadership { term: Term(m.vote.leader_id.term), leader, me: m.id }
}

/// Of a member, if both are known.
pub(super) fn place(id: Option<MemberId>, node: Option<Ordinal>) -> Option<PeerPlace> {
    Some(PeerPlace { member: id?, ordinal: node? })
}

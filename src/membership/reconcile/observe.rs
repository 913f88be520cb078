//! Gathers the planner's input from Raft and the roster.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::{MembershipReconciler, lock, stalls::Progress};
use crate::{
    membership::planner::{Member, Observed},
    node::NodePort,
    raft::RaftMembership,
    types::MemberId,
};

/// A member that lags by at most this many entries keeps up with the log.
const LAG_ENTRIES_MAX: u64 = 256;

impl<N: NodePort> MembershipReconciler<N> {
    pub fn observe(&self) -> Observed {
        self.observe_membership(&self.raft.membership())
    }

    pub fn observe_membership(&self, membership: &RaftMembership) -> Observed {
        let (me, now) = (self.raft.leadership().me, Instant::now());
        let timeout = self.raft.timing().election_timeout;
        let last = self.raft.last_index().unwrap_or(0);
        let progress = self.progress();
        let permits = self.stop_permits();
        let (catch_up, stalls) = (lock(&self.catch_up), lock(&self.stalls));
        let requested_removals = lock(&self.requested_removals);
        let members = membership.members.iter().map(|member| {
            let id = member.member_ref.member;
            let progress = progress.get(&id).copied().unwrap_or_default();
            let keeps_up = keeps_up(progress, last);
            let in_time = stalls.late_for(id, progress, now) <= timeout;
            Member {
                member_ref: member.member_ref,
                old_voter: membership.voters.first().is_some_and(|set| set.contains(&id)),
                new_voter: membership.voters.last().is_some_and(|set| set.contains(&id)),
                in_contact: progress.in_contact,
                // No step may depend on a member that is permitted to stop.
                caught_up: id == me
                    || (keeps_up && catch_up.is_caught_up(id) && !permits.contains(&id)),
                acks: progress.in_contact && keeps_up && in_time,
                stalled: stalls.is_stalled(id, progress, now),
                removal_requested: requested_removals.contains(&id),
            }
        });
        let members = members.collect();
        let followed = self.orchestrator.is_some();
        Observed {
            me,
            members,
            committed: self.raft.committed_membership().at == membership.at,
            desired: self.raft.view().roster().desired.clone().filter(|_| followed),
            max_voters: self.max_voters,
        }
    }

    /// Records, as the leader, what each member stores of the log.
    pub fn record_progress(&self, membership: &RaftMembership) {
        let (term, now) = (self.raft.leadership().term, Instant::now());
        let last = self.raft.last_index().unwrap_or(0);
        let progress = self.progress();
        let (mut catch_up, mut stalls) = (lock(&self.catch_up), lock(&self.stalls));
        stalls.enter(term);
        stalls.retain(|id| membership.has(id));
        catch_up.retain(|id| membership.has(id));
        for member in &membership.members {
            let id = member.member_ref.member;
            let progress = progress.get(&id).copied().unwrap_or_default();
            catch_up.record(id, keeps_up(progress, last));
            stalls.record(id, progress, last, now);
        }
    }

    /// The progress of all members as this member knows it: only its own unless it leads.
    fn progress(&self) -> BTreeMap<MemberId, Progress> {
        let (me, timeout) = (self.raft.leadership().me, self.raft.timing().election_timeout);
        let of_peers = self.raft.progress().into_iter().map(|peer| {
            let progress = Progress {
                matched: peer.matched,
                receives_snapshot: peer.receives_snapshot,
                snapshot_bytes: peer.snapshot_bytes,
                in_contact: peer.silent_for.is_some_and(|silent| silent < timeout),
            };
            (peer.member, progress)
        });
        // A leader replicates entries before it has synced them: only its log tells which it stores.
        let matched = *self.raft.log().durable().borrow();
        let own = Progress { matched, in_contact: true, ..Progress::default() };
        of_peers.chain([(me, own)]).collect()
    }
}

fn keeps_up(progress: Progress, last: u64) -> bool {
    progress.matched.is_some_and(|at| at.saturating_add(LAG_ENTRIES_MAX) >= last)
}

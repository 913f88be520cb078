//! Gathers the planner's input from Raft and the roster.

use super::{MembershipReconciler, lock};
use crate::{
    membership::planner::{Member, Observed},
    node::NodePort,
    raft::{PeerProgress, RaftMembership},
};

/// A learner that lags by at most this many entries keeps up with the log.
const LAG_ENTRIES_MAX: u64 = 256;

impl<N: NodePort> MembershipReconciler<N> {
    pub fn observe(&self) -> Observed {
        self.observe_membership(&self.raft.membership())
    }

    pub fn observe_membership(&self, membership: &RaftMembership) -> Observed {
        let me = self.raft.leadership().me;
        let timeout = self.raft.timing().election_timeout;
        let last = self.raft.last_index().unwrap_or(0);
        let progress = self.raft.progress();
        let permits = self.stop_permits();
        let catch_up = lock(&self.catch_up);
        let requested_removals = lock(&self.requested_removals);
        let members = membership.members.iter().map(|member| {
            let id = member.member_ref.member;
            let progress = progress.iter().find(|p| p.member == id);
            let keeps_up = progress.is_some_and(|progress| keeps_up(progress, last));
            let silent = progress.and_then(|p| p.silent_for);
            Member {
                member_ref: member.member_ref,
                old_voter: membership.voters.first().is_some_and(|set| set.contains(&id)),
                new_voter: membership.voters.last().is_some_and(|set| set.contains(&id)),
                in_contact: id == me || silent.is_some_and(|silent| silent < timeout),
                // No step may depend on a member that is permitted to stop.
                caught_up: id == me
                    || (keeps_up && catch_up.is_caught_up(id) && !permits.contains(&id)),
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

    pub fn record_catch_up(&self, membership: &RaftMembership) {
        let last = self.raft.last_index().unwrap_or(0);
        let progress = self.raft.progress();
        let mut catch_up = lock(&self.catch_up);
        catch_up.retain(|id| membership.has(id));
        for member in &membership.members {
            let id = member.member_ref.member;
            let progress = progress.iter().find(|p| p.member == id);
            catch_up.record(id, progress.is_some_and(|progress| keeps_up(progress, last)));
        }
    }
}

fn keeps_up(progress: &PeerProgress, last: u64) -> bool {
    progress.matched.is_some_and(|at| at.saturating_add(LAG_ENTRIES_MAX) >= last)
}

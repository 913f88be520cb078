//! The cluster's condition as one member knows it, for `kvctl cluster` and metrics.

use std::time::Duration;

use super::MembershipReconciler;
use crate::{
    membership::planner::{self, Member, Plan},
    node::{ClusterOverview, LeaderOverview, LocalOverview, MemberOverview, NodePort},
    raft::PeerProgress,
};

impl<N: NodePort> MembershipReconciler<N> {
    /// `now` is the wall-clock time.
    pub fn overview(&self, now: Duration) -> ClusterOverview {
        let (raft, leadership) = (&self.raft, self.raft.active_leadership());
        let roster = raft.view().roster();
        let observed = self.observe();
        let (last, progress) = (raft.last_index().unwrap_or(0), raft.progress());
        let leads = leadership.is_mine();
        let lag = |at: &PeerProgress| last.saturating_sub(at.matched.unwrap_or(0));
        let overview = |member: &Member| {
            let id = member.id();
            let attributes = roster.members.get(&id).cloned().unwrap_or_default();
            let lag = match id == leadership.me {
                true => 0,
                // A member without progress has not acknowledged any entry yet.
                false => progress.iter().find(|at| at.member == id).map_or(last, lag),
            };
            MemberOverview {
                member_ref: member.member_ref,
                name: attributes.name,
                peer_urls: attributes.peer_urls,
                client_urls: attributes.client_urls,
                boot: attributes.boot,
                votes: member.old_voter,
                will_vote: member.new_voter,
                in_contact: leads.then_some(member.in_contact),
                lag: leads.then_some(lag),
            }
        };
        let mut members: Vec<MemberOverview> = observed.members.iter().map(overview).collect();
        members.sort_by_key(|m| (m.member_ref.ordinal, m.member_ref.member));
        let leading = leads.then(|| LeaderOverview {
            waits_for: match self.plan() {
                Plan::Wait(blocked) => Some(blocked.to_string()),
                Plan::Settled | Plan::Do(_) => None,
            },
            tolerates: planner::tolerates(&observed),
        });
        ClusterOverview {
            cluster: self.cluster,
            answered_by: leadership.me,
            leader: leadership.leader.map(|leader| leader.member),
            term: leadership.term,
            desired: roster.desired.clone(),
            follows_pods: self.follows_pods(),
            members,
            leading,
            local: LocalOverview {
                now,
                fsync_p99: raft.log().metrics().sync.percentile(99),
                volume_full: raft.is_log_space_low(),
            },
        }
    }
}

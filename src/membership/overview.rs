//! How the cluster is doing, as one member knows it: for whoever shows it.

use std::time::Duration;

use super::{
    Steward,
    planner::{self, Plan},
};
use crate::{
    node::{Leading, MemberOverview, NodePort, Overview, OwnOverview},
    raft::PeerProgress,
};

impl<N: NodePort> Steward<N> {
    /// `now` is the time of day.
    pub(super) fn overview(&self, now: Duration) -> Overview {
        let (raft, leadership) = (&self.raft, self.raft.leadership());
        let roster = raft.view().roster();
        let situation = self.situation();
        let (last, progress) = (raft.last_index().unwrap_or(0), raft.progress());
        let leads = leadership.is_mine();
        let lag = |at: &PeerProgress| last.saturating_sub(at.matched.unwrap_or(0));
        let member = |member: &planner::Member| {
            let id = member.place.member;
            let said = roster.members.get(&id).cloned().unwrap_or_default();
            let behind = match id == leadership.me {
                true => Some(0),
                // Nothing was heard of it yet.
                false => progress
                    .iter()
                    .find(|at| at.member == id)
                    .map_or(Some(last), |at| Some(lag(at))),
            };
            MemberOverview {
                place: member.place,
                name: said.name,
                peer_urls: said.peer_urls,
                client_urls: said.client_urls,
                boot: said.boot,
                votes: member.old_voter,
                will_vote: member.new_voter,
                in_contact: leads.then_some(member.in_contact),
                lag: behind.filter(|_| leads),
            }
        };
        let mut members: Vec<MemberOverview> = situation.members.iter().map(member).collect();
        members.sort_by_key(|m| (m.place.ordinal, m.place.member));
        let leading = leads.then(|| Leading {
            waits_for: match self.plan() {
                Plan::Wait(waiting) => Some(waiting.to_string()),
                Plan::Settled | Plan::Do(_) => None,
            },
            tolerates: planner::tolerates(&situation),
        });
        Overview {
            cluster: self.cluster,
            me: leadership.me,
            leader: leadership.leader.map(|leader| leader.member),
            term: leadership.term,
            desired: roster.desired.clone(),
            follows_pods: self.follows_pods(),
            members,
            leading,
            own: OwnOverview {
                now,
                fsync_p99: raft.log().metrics().sync.percentile(99),
                volume_full: raft.log_is_short(),
            },
        }
    }
}

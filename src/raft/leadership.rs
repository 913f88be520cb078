//! Leadership: the leader that proposals go to, the leader that is shown, and leadership transfer.
//!
//! Raft has two questions, and one answer does not fit both:
//!
//! - *Which member receives a proposal?* The leader of the current term ([`Raft::leadership`]). Raft
//!   names it until another one is elected, even when it is dead or isolated: no better candidate
//!   exists then, and the attempt decides.
//! - *Is there a leader?* Only an *active* leader counts ([`Raft::active_leadership`]): the leader of
//!   the current term, if a quorum was in contact with it within one election timeout (etcd:
//!   CheckQuorum). Everything that shows a leader, mirrors it or refuses requests without one uses
//!   this notion: Status, metrics, the Cluster call, the Lease, `hasleader`, recovery.
//!
//! Every member decides on its own, also in a partition: the leader knows when a quorum last
//! acknowledged it, and its messages carry that age to the followers (see `quorum_contact`). So one
//! election timeout after the majority is lost, no member names a leader.

use std::{collections::BTreeSet, time::Duration};

use openraft::{
    RaftMetrics,
    async_runtime::watch::WatchReceiver as _,
    type_config::alias::{StoredMembershipOf, WatchReceiverOf},
};

use super::{
    convert::leader_ref, handle::Raft, quorum_contact::QuorumContact, timing::Timing,
    type_config::Types,
};
use crate::types::{MemberId, MemberRef, Term};

/// The leader, as this member sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Leadership {
    pub term: Term,
    pub leader: Option<MemberRef>,
    pub me: MemberId,
}

impl Leadership {
    pub fn is_mine(&self) -> bool {
        self.leader.is_some_and(|l| l.member == self.me)
    }
}

/// Watches [`Raft::leadership`].
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

/// Watches [`Raft::active_leadership`].
///
/// Quorum contact expires without an event. So the watch also checks once per heartbeat interval.
#[derive(Clone)]
pub struct ActiveLeadershipWatch {
    changes: LeadershipWatch,
    raft: WatchReceiverOf<Types, RaftMetrics<Types>>,
    quorum: QuorumContact,
    timing: Timing,
    seen: Leadership,
}

impl std::fmt::Debug for ActiveLeadershipWatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ActiveLeadershipWatch").field(&self.seen).finish()
    }
}

impl ActiveLeadershipWatch {
    pub fn now(&mut self) -> Leadership {
        self.seen = active(&self.raft.borrow_watched(), &self.quorum, self.timing);
        self.seen
    }

    /// Waits until the active leader differs from the last result of [`ActiveLeadershipWatch::now`];
    /// `None` once Raft has stopped.
    pub async fn changed(&mut self) -> Option<Leadership> {
        loop {
            let before = self.seen;
            let now = self.now();
            if now != before {
                return Some(now);
            }
            tokio::select! {
                changed = self.changes.changed() => { changed?; }
                () = tokio::time::sleep(self.timing.heartbeat) => {}
            }
        }
    }
}

impl Raft {
    /// The leader of the current term, active or not: the destination of proposals.
    pub fn leadership(&self) -> Leadership {
        leadership(&self.raft.server_metrics().borrow_watched())
    }

    /// The active leader, for every place that shows a leader or requires one.
    pub fn active_leadership(&self) -> Leadership {
        active(&self.raft.metrics().borrow_watched(), &self.quorum, self.timing())
    }

    /// Reports each change of [`Raft::active_leadership`] within a heartbeat interval.
    pub fn watch_active_leadership(&self) -> ActiveLeadershipWatch {
        ActiveLeadershipWatch {
            changes: self.watch_leadership(),
            raft: self.raft.metrics(),
            quorum: self.quorum.clone(),
            timing: self.timing(),
            seen: self.active_leadership(),
        }
    }

    /// Reports each change of [`Raft::leadership`].
    pub fn watch_leadership(&self) -> LeadershipWatch {
        LeadershipWatch(self.raft.server_metrics())
    }

    /// As the leader: transfers leadership to the most up-to-date voter that is in contact and not in
    /// `excluded`, and waits until another member leads or `timeout` has passed. On other members:
    /// does nothing.
    pub async fn transfer_leadership(&self, excluded: &BTreeSet<MemberId>, timeout: Duration) {
        let now = self.leadership();
        if !now.is_mine() {
            return;
        }
        let voters: BTreeSet<MemberId> =
            self.members().into_iter().filter(|m| m.voter).map(|m| m.member_ref.member).collect();
        let successor = self
            .progress()
            .into_iter()
            .filter(|p| p.member != self.me && !excluded.contains(&p.member))
            .filter(|p| voters.contains(&p.member))
            .filter(|p| p.silent_for.is_some_and(|t| t < self.timing().election_timeout))
            .max_by_key(|p| p.matched);
        if let Some(successor) = successor {
            self.transfer_leadership_to(successor.member, timeout).await;
        }
    }

    /// As the leader: transfers leadership to this voter. See [`Raft::transfer_leadership`].
    pub async fn transfer_leadership_to(&self, successor: MemberId, timeout: Duration) {
        tracing::info!(to = %successor, "transferring leadership");
        if self.raft.trigger().transfer_leader(successor).await.is_err() {
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
        if tokio::time::timeout(timeout, changed).await.is_err() {
            tracing::warn!(to = %successor, "leadership transfer timed out");
        }
    }
}

fn leadership(m: &openraft::metrics::RaftServerMetrics<Types>) -> Leadership {
    let leader = m.current_leader.and_then(|id| leader(id, &m.membership_config));
    Leadership { term: Term(m.vote.leader_id.term), leader, me: m.id }
}

/// The only place that decides whether there is a leader.
fn active(m: &RaftMetrics<Types>, quorum: &QuorumContact, timing: Timing) -> Leadership {
    let in_contact = quorum.age_of_leader(m).is_some_and(|age| age < timing.election_timeout);
    let named = m.current_leader.filter(|_| in_contact);
    let leader = named.and_then(|id| leader(id, &m.membership_config));
    Leadership { term: Term(m.vote.leader_id.term), leader, me: m.id }
}

fn leader(id: MemberId, members: &StoredMembershipOf<Types>) -> Option<MemberRef> {
    leader_ref(Some(id), members.membership().get_node(&id).copied())
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use openraft::{
        ServerState,
        async_runtime::watch::WatchSender as _,
        metrics::RaftServerMetrics,
        type_config::{TypeConfigExt as _, alias::WatchSenderOf},
    };
    use tokio::time::{Instant, timeout};

    use super::*;
    use crate::{
        raft::convert::{Membership, StoredMembership},
        types::{Ordinal, Vote},
    };

    const ME: MemberId = MemberId(1);
    const OTHER: MemberId = MemberId(2);
    const SECOND: Timing =
        Timing { heartbeat: Duration::from_millis(100), election_timeout: Duration::from_secs(1) };

    /// Metrics without a change of leader: only quorum contact comes or expires.
    fn initial_metrics() -> RaftServerMetrics<Types> {
        let initial = RaftMetrics::<Types>::new_initial(ME);
        RaftServerMetrics {
            id: ME,
            vote: initial.vote,
            state: initial.state,
            current_leader: None,
            membership_config: initial.membership_config,
            committed_membership_config: initial.committed_membership_config,
        }
    }

    /// openraft's metrics of this member, and the watch under test.
    struct FakeMember {
        raft: WatchSenderOf<Types, RaftMetrics<Types>>,
        _changes: WatchSenderOf<Types, RaftServerMetrics<Types>>,
        watch: ActiveLeadershipWatch,
    }

    impl FakeMember {
        fn new(timing: Timing) -> FakeMember {
            let (raft, now) = Types::watch_channel(RaftMetrics::new_initial(ME));
            let (_changes, changed) = Types::watch_channel(initial_metrics());
            let quorum = QuorumContact::default();
            quorum.follow(now.clone());
            let (changes, seen) = (LeadershipWatch(changed), Leadership::default());
            let watch = ActiveLeadershipWatch { changes, raft: now, quorum, timing, seen };
            let member = FakeMember { raft, _changes, watch };
            member.voters(&[1, 2, 3]);
            member
        }

        fn change(&self, change: impl FnOnce(&mut RaftMetrics<Types>)) {
            self.raft.send_if_modified(|now| {
                change(now);
                true
            });
        }

        fn voters(&self, ids: &[u64]) {
            let nodes: BTreeMap<_, _> =
                ids.iter().map(|id| (MemberId(*id), Ordinal(*id as u32))).collect();
            let membership = Membership::new(vec![nodes.keys().copied().collect()], nodes).unwrap();
            let stored = StoredMembership::new(None, membership);
            self.change(|now| now.membership_config = Arc::new(stored));
        }

        fn follows(&self, leader: MemberId, term: u64) {
            self.change(|now| {
                now.state = ServerState::Follower;
                now.current_leader = Some(leader);
                now.current_term = term;
                now.vote = openraft::Vote::new_committed(term, leader);
            });
        }

        fn leads(&self, term: u64) {
            self.follows(ME, term);
            self.change(|now| now.state = ServerState::Leader);
        }

        fn acknowledged(&self, age_ms: u64) {
            let at = Types::now() - Duration::from_millis(age_ms);
            self.change(|now| now.last_quorum_acked = Some(at.into()));
        }

        fn hears(&self, leader: MemberId, term: u64, age_ms: u64) {
            let vote = Vote { term: Term(term), voted_for: Some(leader), committed: true };
            self.watch.quorum.record_message(vote, Some(age_ms), None);
        }

        fn leader(&mut self) -> Option<MemberId> {
            self.watch.now().leader.map(|leader| leader.member)
        }
    }

    #[tokio::test]
    async fn a_follower_names_its_leader_as_long_as_a_quorum_follows_that() {
        let mut member = FakeMember::new(SECOND);
        assert_eq!(member.leader(), None);
        member.follows(OTHER, 2);
        assert_eq!(member.leader(), None, "no message of it has arrived");
        member.hears(OTHER, 2, 1000);
        assert_eq!(member.leader(), None, "its contact is too old");
        member.hears(OTHER, 2, 200);
        assert_eq!(member.leader(), Some(OTHER));
        member.hears(OTHER, 2, 900);
        assert_eq!(member.leader(), Some(OTHER), "an older message takes nothing back");
    }

    #[tokio::test]
    async fn a_contact_of_one_leader_is_none_of_the_next() {
        let mut member = FakeMember::new(SECOND);
        member.follows(OTHER, 2);
        member.hears(OTHER, 2, 0);
        member.follows(MemberId(3), 3);
        assert_eq!(member.leader(), None, "the contact is one of the leader before");
        member.hears(OTHER, 2, 0);
        assert_eq!(member.leader(), None, "a deposed leader's message");
        member.hears(MemberId(3), 3, 1500);
        assert_eq!(member.leader(), None, "the contact before was younger");
        member.hears(MemberId(3), 3, 0);
        assert_eq!(member.leader(), Some(MemberId(3)));
        // openraft knows the leader before it has synced the vote, which is still the previous one.
        member.hears(OTHER, 4, 0);
        member.change(|now| now.current_leader = Some(OTHER));
        assert_eq!(member.leader(), Some(OTHER));
    }

    #[tokio::test]
    async fn an_election_is_a_contact_for_the_leader_and_its_followers() {
        let (mut leader, mut follower) = (FakeMember::new(SECOND), FakeMember::new(SECOND));
        leader.hears(OTHER, 2, 900);
        // The first message goes out even before openraft shows that this member leads.
        let age = leader.watch.quorum.age_as_leader(Term(3));
        assert!(age < Duration::from_millis(900), "{age:?} is of the leader before");
        leader.leads(3);
        assert_eq!(leader.leader(), Some(ME));
        follower.follows(OTHER, 3);
        follower.hears(OTHER, 3, age.as_millis() as u64);
        assert_eq!(follower.leader(), Some(OTHER));
    }

    #[tokio::test]
    async fn a_leader_without_a_quorum_does_not_name_itself() {
        let mut member = FakeMember::new(SECOND);
        member.leads(3);
        assert_eq!(member.leader(), None, "no quorum has acknowledged it yet");
        member.acknowledged(1000);
        assert_eq!(member.leader(), None);
        member.acknowledged(200);
        assert_eq!(member.leader(), Some(ME));
        // After a restart its vote still names it, but it does not lead.
        member.change(|now| now.state = ServerState::Follower);
        assert_eq!(member.leader(), None);
    }

    #[tokio::test]
    async fn a_single_voter_is_in_contact_with_itself() {
        let mut member = FakeMember::new(SECOND);
        member.voters(&[1]);
        member.leads(1);
        assert_eq!(member.leader(), Some(ME));
        assert_eq!(member.watch.quorum.age_as_leader(Term(1)).as_millis(), 0);
    }

    /// openraft emits no event when the majority goes away.
    #[tokio::test]
    async fn a_contact_that_grows_old_is_a_change_of_leader() {
        let mut member = FakeMember::new(Timing::with_election_timeout(Duration::from_millis(300)));
        member.leads(3);
        member.acknowledged(0);
        let began = Instant::now();
        let named = member.watch.changed().await.unwrap();
        assert!(named.is_mine(), "{named:?}");
        let limit = Duration::from_secs(10);
        let lost = timeout(limit, member.watch.changed()).await.unwrap().unwrap();
        assert_eq!((lost.leader, lost.term), (None, Term(3)));
        assert!(began.elapsed() >= Duration::from_millis(300));
        member.acknowledged(0);
        let back = timeout(limit, member.watch.changed()).await.unwrap().unwrap();
        assert!(back.is_mine(), "{back:?}");
    }
}

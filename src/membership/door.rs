//! The leader's side of joining: hands out ids, adds learners.
//!
//! An id is assigned, synced by whoever got it, then *admitted* through the log, which uses it up, and
//! added to the membership as a learner. So no id is added twice, and one that was removed never comes
//! back: it is dead.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::standing;
use crate::{
    node::{NodeError, NodePort},
    proto::peer::{self, join_reply},
    raft::{Raft, RaftMembership},
    types::{ClusterId, Command, CommandError, MemberId, Ordinal, PeerPlace, Reply, Term},
};

/// Whoever acknowledged something within so many election timeouts lives.
const ALIVE_TIMEOUTS: u32 = 3;
/// So long an admitted member is tried to be added, while another change is under way.
const ADDING: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_millis(20);

/// Lets members in, one after the other.
#[derive(Debug, Default)]
pub struct Door {
    one_at_a_time: tokio::sync::Mutex<()>,
    /// When somebody knocked first in the present term.
    since: Mutex<Option<(Term, Instant)>>,
}

/// Where a member comes to.
#[derive(Debug, Clone, Copy)]
pub struct House<'a> {
    pub cluster: ClusterId,
    pub home: &'a str,
    /// Whether there is an address of this ordinal.
    pub dialable: bool,
}

impl Door {
    /// Answers a member that asks whether it still is one.
    pub async fn handle_standing(
        &self,
        request: peer::StandingRequest,
        cluster: ClusterId,
        raft: &Raft,
    ) -> peer::StandingReply {
        let _nobody_comes_in = self.one_at_a_time.lock().await;
        standing::judge(request, cluster, raft).await
    }

    /// Answers a member that wants to join. Only the leader decides; others say who leads.
    pub async fn handle_join<N: NodePort>(
        &self,
        request: peer::JoinRequest,
        house: House<'_>,
        raft: &Raft,
        node: &N,
    ) -> peer::JoinReply {
        let result = self.decide(request, house, raft, node).await;
        peer::JoinReply { result: Some(result) }
    }

    async fn decide<N: NodePort>(
        &self,
        request: peer::JoinRequest,
        house: House<'_>,
        raft: &Raft,
        node: &N,
    ) -> join_reply::Result {
        if let Some(refused) = refuse(&request, house) {
            return refused;
        }
        let now = raft.leadership();
        match now.leader {
            None => return join_reply::Result::NoLeader(peer::NoLeader {}),
            Some(leader) if !now.is_mine() => {
                return join_reply::Result::LeaderAt(peer::LeaderAt { ordinal: leader.ordinal.0 });
            }
            Some(_) => {}
        }
        let ordinal = Ordinal(request.ordinal);
        let joined = |member: MemberId| {
            join_reply::Result::Joined(peer::Joined {
                cluster_id: house.cluster.0,
                member_id: member.0,
            })
        };
        if raft.membership().has(MemberId(request.member_id)) {
            return joined(MemberId(request.member_id));
        }
        if let Some(desired) = &raft.view().roster().desired
            && !desired.wants(ordinal)
        {
            let (start, replicas) = (desired.start, desired.replicas);
            return join_reply::Result::Wait(format!(
                "ordinal {ordinal} is not wanted: the StatefulSet asks for {replicas} from {start} on"
            ));
        }
        if let Some(member) = self.lives_at(ordinal, raft) {
            return join_reply::Result::OccupiedBy(peer::Taken {
                cluster_id: house.cluster.0,
                member_id: member.0,
            });
        }
        if request.member_id == 0 {
            return match assign(ordinal, request.nonce, node).await {
                Ok(member) => joined(member),
                Err(_) => join_reply::Result::NoLeader(peer::NoLeader {}),
            };
        }
        let place = PeerPlace { member: MemberId(request.member_id), ordinal };
        let _one_at_a_time = self.one_at_a_time.lock().await;
        if raft.membership().has(place.member) {
            return joined(place.member);
        }
        match node.propose(Command::AdmitMember(place.member)).await {
            Ok(_) => {}
            Err(NodeError::Command(CommandError::DeadMember)) => {
                return join_reply::Result::Dead(peer::Dead {});
            }
            Err(_) => return join_reply::Result::NoLeader(peer::NoLeader {}),
        }
        match tokio::time::timeout(ADDING, add(place, raft)).await {
            Ok(true) => joined(place.member),
            // It asks again: it was added, or is dead.
            Ok(false) | Err(_) => join_reply::Result::NoLeader(peer::NoLeader {}),
        }
    }
}

impl Door {
    /// A member at this ordinal that has answered lately. (One that is dead may be replaced.) A new
    /// leader has to listen for a while before it can tell.
    fn lives_at(&self, ordinal: Ordinal, raft: &Raft) -> Option<MemberId> {
        let recently = raft.timing().election_timeout * ALIVE_TIMEOUTS;
        let now = raft.leadership();
        let listened = {
            let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
            match *since {
                Some((term, at)) if term == now.term => at.elapsed() >= recently,
                _ => {
                    *since = Some((now.term, Instant::now()));
                    false
                }
            }
        };
        let progress = raft.progress();
        let lives = |member: MemberId| {
            let silent = progress.iter().find(|p| p.member == member).and_then(|p| p.silent_for);
            member == now.me || silent.map_or(!listened, |silent| silent < recently)
        };
        let members = raft.membership().members.into_iter().map(|m| m.place);
        let here = members.filter(|place| place.ordinal == ordinal);
        here.map(|place| place.member).find(|member| lives(*member))
    }
}

/// What no leader would let in.
fn refuse(request: &peer::JoinRequest, house: House<'_>) -> Option<join_reply::Result> {
    let House { cluster, home, dialable } = house;
    if request.home != home {
        return Some(join_reply::Result::Refused(format!(
            "this is {home:?}, not {:?}",
            request.home
        )));
    }
    if request.member_id != 0 && request.cluster_id != cluster.0 {
        let other = ClusterId(request.cluster_id);
        return Some(join_reply::Result::Refused(format!(
            "this is cluster {cluster}, not {other}"
        )));
    }
    if !dialable {
        return Some(join_reply::Result::Refused(format!(
            "the members have no address of ordinal {}: it is not in their --peers",
            request.ordinal
        )));
    }
    None
}

pub(super) async fn assign<N: NodePort>(
    ordinal: Ordinal,
    nonce: u64,
    node: &N,
) -> Result<MemberId, NodeError> {
    match node.propose(Command::AssignMember { ordinal, nonce }).await?.reply {
        Reply::Assigned(member) => Ok(member),
        _ => Err(NodeError::Corrupt),
    }
}

/// Adds a learner, after whatever other change is under way. False: this member leads no more.
pub(super) async fn add(place: PeerPlace, raft: &Raft) -> bool {
    loop {
        let membership: RaftMembership = raft.membership();
        if membership.has(place.member) {
            return true;
        }
        if !raft.leadership().is_mine() {
            return false;
        }
        if raft.committed_membership().at == membership.at {
            match raft.add_learner(place, &membership).await {
                Ok(()) => return true,
                Err(e) => tracing::debug!(member = %place.member, error = %e, "not added yet"),
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}

//! The leader's side of joining: assigns ids and adds learners.
//!
//! The leader assigns an id through the log, the volume syncs it, and the leader *admits* it through the
//! log, which uses it up, and adds it as a learner. So no id is added twice, and a removed id never
//! returns.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::removal;
use crate::{
    node::{NodeError, NodePort},
    proto::peer::{self, join_reply},
    raft::{Raft, RaftMembership},
    types::{
        ClusterId, Command, CommandError, DesiredReplicas, MemberId, MemberRef, Ordinal, Reply,
        Term,
    },
};

/// A member is live if it answered within this many election timeouts.
const LIVE_ELECTION_TIMEOUTS: u32 = 3;
/// Limit on adding an admitted member while another change is uncommitted.
const ADD_TIMEOUT: Duration = Duration::from_secs(1);
/// A quorum contact in this time outlasts an election.
const RECENT_QUORUM: Duration = Duration::from_secs(10);
const RETRY_INTERVAL: Duration = Duration::from_millis(20);

/// Admits members, one after the other.
#[derive(Debug, Default)]
pub struct JoinService {
    one_at_a_time: tokio::sync::Mutex<()>,
    /// The time of the first join request in the current term.
    first_request: Mutex<Option<(Term, Instant)>>,
}

/// The facts about this cluster that a join request is checked against.
#[derive(Debug, Clone, Copy)]
pub struct JoinContext<'a> {
    pub cluster: ClusterId,
    pub home: &'a str,
    /// Whether the members know an address of the joining ordinal.
    pub dialable: bool,
}

impl JoinService {
    /// Answers a member that asks whether it still is one.
    pub async fn handle_member_status(
        &self,
        request: peer::StandingRequest,
        cluster: ClusterId,
        raft: &Raft,
    ) -> peer::StandingReply {
        let _no_joins = self.one_at_a_time.lock().await;
        removal::check_member(request, cluster, raft).await
    }

    /// Answers a joining volume. Only the leader decides; other members answer with the leader.
    pub async fn handle_join<N: NodePort>(
        &self,
        request: peer::JoinRequest,
        context: JoinContext<'_>,
        raft: &Raft,
        node: &N,
    ) -> peer::JoinReply {
        let result = self.decide(request, context, raft, node).await;
        let has_quorum = raft.quorum_age().is_some_and(|age| age < RECENT_QUORUM);
        peer::JoinReply { result: Some(result), has_quorum }
    }

    async fn decide<N: NodePort>(
        &self,
        request: peer::JoinRequest,
        context: JoinContext<'_>,
        raft: &Raft,
        node: &N,
    ) -> join_reply::Result {
        if let Some(refused) = refuse(&request, context) {
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
                cluster_id: context.cluster.0,
                member_id: member.0,
            })
        };
        if raft.membership().has(MemberId(request.member_id)) {
            return joined(MemberId(request.member_id));
        }
        if let Some(desired) = &raft.view().roster().desired
            && let Some(reason) = not_desired(&request, desired)
        {
            return join_reply::Result::Wait(reason);
        }
        if let Some(member) = self.live_member_at(ordinal, raft) {
            return join_reply::Result::OccupiedBy(peer::Taken {
                cluster_id: context.cluster.0,
                member_id: member.0,
            });
        }
        if request.member_id == 0 {
            return match assign(ordinal, request.nonce, node).await {
                Ok(member) => joined(member),
                Err(_) => join_reply::Result::NoLeader(peer::NoLeader {}),
            };
        }
        let member_ref = MemberRef { member: MemberId(request.member_id), ordinal };
        let _one_at_a_time = self.one_at_a_time.lock().await;
        if raft.membership().has(member_ref.member) {
            return joined(member_ref.member);
        }
        match node.propose(Command::AdmitMember(member_ref.member)).await {
            Ok(_) => {}
            Err(NodeError::Command(CommandError::MemberIdUsed)) => {
                return join_reply::Result::Dead(peer::Dead {});
            }
            Err(_) => return join_reply::Result::NoLeader(peer::NoLeader {}),
        }
        match tokio::time::timeout(ADD_TIMEOUT, add(member_ref, raft)).await {
            Ok(true) => joined(member_ref.member),
            // The volume asks again, and then is a member, or dead.
            Ok(false) | Err(_) => join_reply::Result::NoLeader(peer::NoLeader {}),
        }
    }
}

impl JoinService {
    /// A live member at this ordinal; a dead one may be replaced. A new leader considers a member live
    /// until it has listened for a while.
    fn live_member_at(&self, ordinal: Ordinal, raft: &Raft) -> Option<MemberId> {
        let limit = raft.timing().election_timeout * LIVE_ELECTION_TIMEOUTS;
        let now = raft.leadership();
        let listened = {
            let mut first = self.first_request.lock().unwrap_or_else(PoisonError::into_inner);
            match *first {
                Some((term, at)) if term == now.term => at.elapsed() >= limit,
                _ => {
                    *first = Some((now.term, Instant::now()));
                    false
                }
            }
        };
        let progress = raft.progress();
        let is_live = |member: MemberId| {
            let silent = progress.iter().find(|p| p.member == member).and_then(|p| p.silent_for);
            member == now.me || silent.map_or(!listened, |silent| silent < limit)
        };
        let members = raft.membership().members.into_iter().map(|m| m.member_ref);
        let here = members.filter(|member_ref| member_ref.ordinal == ordinal);
        here.map(|member_ref| member_ref.member).find(|member| is_live(*member))
    }
}

/// Refuses a request that no leader may accept.
fn refuse(request: &peer::JoinRequest, context: JoinContext<'_>) -> Option<join_reply::Result> {
    let JoinContext { cluster, home, dialable } = context;
    if request.home != home {
        return Some(join_reply::Result::Refused(format!(
            "this cluster is {home:?}, not {:?}",
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
            "the members know no address of ordinal {}: it is missing in their --peers",
            request.ordinal
        )));
    }
    None
}

/// The reason why the StatefulSet that the leader has read does not ask for this volume, or not yet.
///
/// A set with another uid is a set of the same name in another Kubernetes cluster, where DNS is shared, or
/// one that was recreated and that the leader has not read yet.
fn not_desired(request: &peer::JoinRequest, desired: &DesiredReplicas) -> Option<String> {
    let DesiredReplicas { set, start, replicas, .. } = desired;
    if !request.set.is_empty() && !set.is_empty() && request.set != *set {
        return Some(format!(
            "this pod is of the StatefulSet with uid {}, the members follow the one with uid {set}: if both \
             exist, in two Kubernetes clusters, their pods must not resolve each other's names",
            request.set
        ));
    }
    let ordinal = Ordinal(request.ordinal);
    let excluded = !desired.includes(ordinal);
    excluded.then(|| {
        format!(
            "the StatefulSet excludes ordinal {ordinal}: it has replicas={replicas} from ordinal {start} on"
        )
    })
}

pub async fn assign<N: NodePort>(
    ordinal: Ordinal,
    nonce: u64,
    node: &N,
) -> Result<MemberId, NodeError> {
    match node.propose(Command::AssignMember { ordinal, nonce }).await?.reply {
        Reply::Assigned(member) => Ok(member),
        _ => Err(NodeError::Corrupt),
    }
}

/// Adds a learner once the previous change is committed. False: this member does not lead any more.
pub async fn add(member_ref: MemberRef, raft: &Raft) -> bool {
    loop {
        let membership: RaftMembership = raft.membership();
        if membership.has(member_ref.member) {
            return true;
        }
        if !raft.leadership().is_mine() {
            return false;
        }
        if raft.committed_membership().at == membership.at {
            match raft.add_learner(member_ref, &membership).await {
                Ok(()) => return true,
                Err(e) => {
                    tracing::debug!(member = %member_ref.member, error = %e, "member not added yet");
                }
            }
        }
        tokio::time::sleep(RETRY_INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(ordinal: u32, set: &str, leaders_set: &str) -> Option<String> {
        let request = peer::JoinRequest { ordinal, set: set.into(), ..Default::default() };
        let set = leaders_set.into();
        not_desired(&request, &DesiredReplicas { set, generation: 4, start: 0, replicas: 3 })
    }

    #[test]
    fn a_pod_of_another_statefulset_waits_and_learns_both_uids() {
        let waits = answer(1, "uid-of-theirs", "uid-of-ours").unwrap();
        assert!(waits.contains("uid-of-theirs") && waits.contains("uid-of-ours"), "{waits}");
    }

    #[test]
    fn a_pod_of_the_same_statefulset_may_join() {
        assert_eq!(answer(1, "uid-of-ours", "uid-of-ours"), None);
        assert!(answer(3, "uid-of-ours", "uid-of-ours").unwrap().contains("excludes ordinal 3"));
    }

    #[test]
    fn an_older_version_that_sends_no_uid_may_join() {
        assert_eq!(answer(1, "", "uid-of-ours"), None);
        assert_eq!(answer(1, "uid-of-theirs", ""), None);
    }
}

//! The leader's side of joining: hands out ids, adds learners.

use crate::{
    node::{NodeError, NodePort},
    proto::peer::{self, join_reply},
    raft::Raft,
    types::{ClusterId, Command, MemberId, Ordinal, PeerPlace, Reply},
};

/// Answers a member that wants to join. Only the leader decides; others say who leads.
pub async fn handle_join<N: NodePort>(
    request: peer::JoinRequest,
    (cluster, home): (ClusterId, &str),
    raft: &Raft,
    node: &N,
) -> peer::JoinReply {
    let result = decide(request, (cluster, home), raft, node).await;
    peer::JoinReply { result: Some(result) }
}

async fn decide<N: NodePort>(
    request: peer::JoinRequest,
    (cluster, home): (ClusterId, &str),
    raft: &Raft,
    node: &N,
) -> join_reply::Result {
    if request.home != home {
        return join_reply::Result::Refused(format!("this is {home:?}, not {:?}", request.home));
    }
    if request.member_id != 0 && request.cluster_id != cluster.0 {
        let other = ClusterId(request.cluster_id);
        return join_reply::Result::Refused(format!("this is cluster {cluster}, not {other}"));
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
        join_reply::Result::Joined(peer::Joined { cluster_id: cluster.0, member_id: member.0 })
    };
    let membership = raft.membership();
    match membership.members.iter().find(|m| m.place.ordinal == ordinal) {
        Some(m) if m.place.member.0 == request.member_id => return joined(m.place.member),
        Some(m) => {
            return join_reply::Result::OccupiedBy(peer::Taken {
                cluster_id: cluster.0,
                member_id: m.place.member.0,
            });
        }
        None => {}
    }
    if request.member_id == 0 {
        return match assign(ordinal, request.nonce, node).await {
            Ok(member) => joined(member),
            Err(_) => join_reply::Result::NoLeader(peer::NoLeader {}),
        };
    }
    let place = PeerPlace { member: MemberId(request.member_id), ordinal };
    match raft.add_learner(place, &membership).await {
        Ok(()) => joined(place.member),
        // It asks again in a moment, and then finds itself there or not.
        Err(e) => {
            tracing::warn!(member = %place.member, error = %e, "a learner was not added");
            join_reply::Result::NoLeader(peer::NoLeader {})
        }
    }
}

async fn assign<N: NodePort>(
    ordinal: Ordinal,
    nonce: u64,
    node: &N,
) -> Result<MemberId, NodeError> {
    match node.propose(Command::AssignMember { ordinal, nonce }).await?.reply {
        Reply::Assigned(member) => Ok(member),
        _ => Err(NodeError::Corrupt),
    }
}

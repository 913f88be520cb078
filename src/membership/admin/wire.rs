//! Results of membership commands as peer messages.

use crate::{
    node::{MembershipError, NodeError},
    proto::peer::{
        ChangeMembersReply, ChangeRefused, change_members_reply::Result as Wire,
        change_refused::Kind,
    },
    types::MemberId,
};

pub fn to_wire(done: Result<MemberId, MembershipError>) -> ChangeMembersReply {
    let refused = |kind: Kind, why: String| Wire::Refused(ChangeRefused { kind: kind.into(), why });
    let result = match done {
        Ok(member) => Wire::MemberId(member.0),
        Err(e) => {
            let kind = match &e {
                MembershipError::NotLeader => Kind::NotLeader,
                MembershipError::NotFound => Kind::NotFound,
                MembershipError::OrdinalTaken => Kind::PlaceTaken,
                MembershipError::NotLearner => Kind::NotLearner,
                MembershipError::NotInSync => Kind::NotInSync,
                MembershipError::NotEnoughStarted => Kind::NotEnoughStarted,
                MembershipError::BadTransferee => Kind::BadTransferee,
                MembershipError::TransferTimedOut => Kind::TransferTimedOut,
                MembershipError::Refused(why) => {
                    return ChangeMembersReply { result: Some(refused(Kind::Other, why.clone())) };
                }
                MembershipError::BadUrls | MembershipError::OtherCluster(_) => Kind::Other,
                MembershipError::Node(_) => Kind::Unknown,
            };
            refused(kind, e.to_string())
        }
    };
    ChangeMembersReply { result: Some(result) }
}

pub fn from_wire(reply: ChangeMembersReply) -> Result<MemberId, MembershipError> {
    let refused = match reply.result {
        Some(Wire::MemberId(member)) => return Ok(MemberId(member)),
        Some(Wire::Refused(refused)) => refused,
        None => return Err(NodeError::LeaderChanged.into()),
    };
    Err(match refused.kind() {
        Kind::Unknown => NodeError::Timeout.into(),
        Kind::NotLeader => MembershipError::NotLeader,
        Kind::NotFound => MembershipError::NotFound,
        Kind::PlaceTaken => MembershipError::OrdinalTaken,
        Kind::NotLearner => MembershipError::NotLearner,
        Kind::NotInSync => MembershipError::NotInSync,
        Kind::NotEnoughStarted => MembershipError::NotEnoughStarted,
        Kind::BadTransferee => MembershipError::BadTransferee,
        Kind::TransferTimedOut => MembershipError::TransferTimedOut,
        Kind::Other => MembershipError::Refused(refused.why),
    })
}

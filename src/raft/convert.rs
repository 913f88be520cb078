//! Conversions between openraft's types, the domain types and protobuf. Members store and send only
//! our own protobuf, because openraft's layouts change between versions.

use std::collections::{BTreeMap, BTreeSet};

use openraft::{
    EntryPayload,
    entry::RaftEntry,
    raft::{AppendEntriesRequest, StreamAppendError, StreamAppendResult},
    type_config::alias::{EntryOf, LogIdOf, StoredMembershipOf, VoteOf},
    vote::leader_id_std::CommittedLeaderId,
};
use prost::Message;

use super::type_config::{EncodedCommands, Types};
use crate::{
    proto::peer::{self, append_reply},
    types::{EntryKind, LogEntry, LogPosition, MemberId, MemberRef, Ordinal, Term, Vote},
};

pub type Entry = EntryOf<Types>;
pub type LogId = LogIdOf<Types>;
pub type RaftVote = VoteOf<Types>;
pub type StoredMembership = StoredMembershipOf<Types>;
pub type Membership = openraft::Membership<MemberId, Ordinal>;

/// A message that no member of this version sends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unreadable {0}")]
pub struct InvalidMessage(pub &'static str);

pub fn log_id(position: LogPosition) -> LogId {
    LogId { leader_id: CommittedLeaderId { term: position.term.0 }, index: position.index }
}

pub fn position(log_id: &LogId) -> LogPosition {
    LogPosition { term: Term(log_id.leader_id.term), index: log_id.index }
}

pub fn log_id_to_wire(log_id: Option<LogId>) -> Option<peer::LogPosition> {
    log_id.map(|id| position(&id).into())
}

pub fn log_id_from_wire(wire: Option<peer::LogPosition>) -> Option<LogId> {
    wire.map(|p| log_id(p.into()))
}

pub fn vote_to_domain(vote: &RaftVote) -> Vote {
    Vote {
        term: Term(vote.leader_id.term),
        voted_for: Some(vote.leader_id.voted_for),
        committed: vote.committed,
    }
}

pub fn vote_from_domain(vote: Vote) -> RaftVote {
    let node = vote.voted_for.unwrap_or_default();
    let mut raft = RaftVote::new(vote.term.0, node);
    raft.committed = vote.committed;
    raft
}

pub fn vote_to_wire(vote: &RaftVote) -> peer::Vote {
    vote_to_domain(vote).into()
}

pub fn vote_from_wire(wire: Option<peer::Vote>) -> Result<RaftVote, InvalidMessage> {
    Ok(vote_from_domain(wire.ok_or(InvalidMessage("vote"))?.into()))
}

/// An entry in the WAL's form. Encodes only memberships; commands are bytes already.
pub fn entry_to_domain(entry: Entry) -> LogEntry {
    let position = position(&entry.log_id());
    let (kind, data) = match entry.payload {
        EntryPayload::Blank => (EntryKind::Blank, bytes::Bytes::new()),
        EntryPayload::Normal(EncodedCommands(data)) => (EntryKind::Commands, data),
        EntryPayload::Membership(m) => {
            (EntryKind::Membership, membership_to_wire(&m).encode_to_vec().into())
        }
    };
    LogEntry { position, kind, data }
}

pub fn entry_from_domain(entry: LogEntry) -> Result<Entry, InvalidMessage> {
    let payload = match entry.kind {
        EntryKind::Blank => EntryPayload::Blank,
        EntryKind::Commands => EntryPayload::Normal(EncodedCommands(entry.data)),
        EntryKind::Membership => {
            let wire = peer::Membership::decode(entry.data)
                .map_err(|_| InvalidMessage("membership entry"))?;
            EntryPayload::Membership(membership_from_wire(wire)?)
        }
    };
    Ok(Entry::new(log_id(entry.position), payload))
}

pub fn entry_to_wire(entry: Entry) -> peer::Entry {
    entry_to_domain(entry).into()
}

pub fn entry_from_wire(mut wire: peer::Entry) -> Result<Entry, InvalidMessage> {
    // The bytes are a slice of a message with many entries. In the log's tail cache, the slice would
    // keep the whole message alive.
    wire.data = bytes::Bytes::copy_from_slice(&wire.data);
    entry_from_domain(wire.try_into().map_err(|_| InvalidMessage("entry"))?)
}

/// The vote of an elected leader.
pub fn leader_vote_from_wire(wire: Option<peer::Vote>) -> Result<RaftVote, InvalidMessage> {
    let vote = vote_from_wire(wire)?;
    if vote.committed { Ok(vote) } else { Err(InvalidMessage("vote of a leader")) }
}

/// Rejects entries that no leader sends. openraft's log would take them for a bug of this member and
/// end the process.
pub fn append_request_from_wire(
    wire: peer::AppendRequest,
) -> Result<AppendEntriesRequest<Types>, InvalidMessage> {
    let vote = leader_vote_from_wire(wire.vote)?;
    let mut last = wire.previous;
    for entry in &wire.entries {
        let next = last.map_or(Some(0), |last| last.index.checked_add(1));
        let terms = last.map_or(0, |last| last.term)..=vote.leader_id.term;
        if next != Some(entry.index) || !terms.contains(&entry.term) {
            return Err(InvalidMessage("order of entries"));
        }
        last = Some(peer::LogPosition { term: entry.term, index: entry.index });
    }
    Ok(AppendEntriesRequest {
        vote,
        prev_log_id: log_id_from_wire(wire.previous),
        entries: wire.entries.into_iter().map(entry_from_wire).collect::<Result<_, _>>()?,
        leader_commit: log_id_from_wire(wire.committed),
    })
}

pub fn append_reply_to_wire(result: StreamAppendResult<Types>) -> peer::AppendReply {
    let result = match result {
        Ok(at) => append_reply::Result::Matched(peer::Matched { position: log_id_to_wire(at) }),
        Err(StreamAppendError::Conflict(at)) => append_reply::Result::Conflict(peer::LogPosition {
            term: at.leader_id.term,
            index: at.index,
        }),
        Err(StreamAppendError::HigherVote(vote)) => {
            append_reply::Result::HigherVote(vote_to_wire(&vote))
        }
    };
    peer::AppendReply { result: Some(result) }
}

pub fn append_reply_from_wire(
    reply: peer::AppendReply,
) -> Result<StreamAppendResult<Types>, InvalidMessage> {
    match reply.result.ok_or(InvalidMessage("append reply"))? {
        append_reply::Result::Matched(m) => Ok(Ok(log_id_from_wire(m.position))),
        append_reply::Result::Conflict(at) => match log_id_from_wire(Some(at)) {
            Some(at) => Ok(Err(StreamAppendError::Conflict(at))),
            None => Err(InvalidMessage("conflict")),
        },
        append_reply::Result::HigherVote(vote) => {
            Ok(Err(StreamAppendError::HigherVote(vote_from_wire(Some(vote))?)))
        }
    }
}

pub fn membership_to_wire(membership: &Membership) -> peer::Membership {
    let configs = membership.get_joint_config().iter();
    peer::Membership {
        configs: configs
            .map(|voters| peer::VoterSet { voters: voters.iter().map(|v| v.0).collect() })
            .collect(),
        members: membership
            .nodes()
            .map(|(id, ordinal)| peer::MemberPlace { member_id: id.0, ordinal: ordinal.0 })
            .collect(),
    }
}

pub fn membership_from_wire(wire: peer::Membership) -> Result<Membership, InvalidMessage> {
    let configs: Vec<BTreeSet<MemberId>> = wire
        .configs
        .into_iter()
        .map(|set| set.voters.into_iter().map(MemberId).collect())
        .collect();
    let nodes: BTreeMap<MemberId, Ordinal> =
        wire.members.into_iter().map(|m| (MemberId(m.member_id), Ordinal(m.ordinal))).collect();
    if configs.is_empty() && nodes.is_empty() {
        return Ok(Membership::default());
    }
    Membership::new(configs, nodes).map_err(|_| InvalidMessage("membership"))
}

pub fn stored_membership_to_wire(stored: &StoredMembership) -> peer::StoredMembership {
    peer::StoredMembership {
        position: log_id_to_wire(*stored.log_id()),
        membership: Some(membership_to_wire(stored.membership())),
    }
}

pub fn stored_membership_from_wire(
    wire: peer::StoredMembership,
) -> Result<StoredMembership, InvalidMessage> {
    let membership = membership_from_wire(wire.membership.unwrap_or_default())?;
    Ok(StoredMembership::new(log_id_from_wire(wire.position), membership))
}

/// A member, if both its id and its ordinal are known.
pub fn leader_ref(id: Option<MemberId>, node: Option<Ordinal>) -> Option<MemberRef> {
    Some(MemberRef { member: id?, ordinal: node? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn membership() -> Membership {
        let voters = |ids: &[u64]| ids.iter().map(|&i| MemberId(i)).collect::<BTreeSet<_>>();
        let nodes: BTreeMap<_, _> =
            (1..=4).map(|i| (MemberId(i), Ordinal(u32::try_from(i).unwrap() - 1))).collect();
        Membership::new(vec![voters(&[1, 2, 3]), voters(&[2, 3, 4])], nodes).unwrap()
    }

    #[test]
    fn entries_come_back_from_the_log_as_they_were() {
        let at = log_id(LogPosition { term: Term(7), index: 9 });
        let payloads = [
            EntryPayload::Blank,
            EntryPayload::Normal(EncodedCommands(bytes::Bytes::from_static(b"put"))),
            EntryPayload::Membership(membership()),
        ];
        for payload in payloads {
            let entry = Entry::new(at, payload);
            let stored = entry_from_domain(entry_to_domain(entry.clone())).unwrap();
            assert_eq!(stored, entry);
            assert_eq!(entry_from_wire(entry_to_wire(entry.clone())).unwrap(), entry);
        }
    }

    #[test]
    fn votes_come_back_as_they_were() {
        let vote = RaftVote::new_committed(5, MemberId(3));
        assert_eq!(vote_from_domain(vote_to_domain(&vote)), vote);
        assert_eq!(vote_from_wire(Some(vote_to_wire(&vote))).unwrap(), vote);
        assert!(vote_from_wire(None).is_err());
    }

    #[test]
    fn an_unknown_entry_kind_is_refused() {
        let wire = peer::Entry { kind: 77, ..Default::default() };
        assert_eq!(entry_from_wire(wire), Err(InvalidMessage("entry")));
    }
}

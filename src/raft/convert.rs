//! Between openraft's types, ours, and the wire's. Everything stored or sent is our own protobuf,
//! because openraft's layouts change between versions.

use std::collections::{BTreeMap, BTreeSet};

use openraft::{
    EntryPayload,
    entry::RaftEntry,
    type_config::alias::{EntryOf, LogIdOf, StoredMembershipOf, VoteOf},
    vote::leader_id_std::CommittedLeaderId,
};
use prost::Message;

use super::{Commands, Types};
use crate::{
    proto::peer,
    types::{EntryKind, LogEntry, LogPosition, MemberId, Ordinal, Term, Vote},
};

pub(super) type Entry = EntryOf<Types>;
pub(super) type LogId = LogIdOf<Types>;
pub(super) type RaftVote = VoteOf<Types>;
pub(super) type StoredMembership = StoredMembershipOf<Types>;
pub(super) type Membership = openraft::Membership<MemberId, Ordinal>;

/// A message that says something no member of this version says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unreadable {0}")]
pub struct Unreadable(pub(super) &'static str);

pub(super) fn log_id(position: LogPosition) -> LogId {
    LogId { leader_id: CommittedLeaderId { term: position.term.0 }, index: position.index }
}

pub(super) fn position(log_id: &LogId) -> LogPosition {
    LogPosition { term: Term(log_id.leader_id.term), index: log_id.index }
}

pub(super) fn log_id_to_wire(log_id: Option<LogId>) -> Option<peer::LogPosition> {
    log_id.map(|id| position(&id).into())
}

pub(super) fn log_id_from_wire(wire: Option<peer::LogPosition>) -> Option<LogId> {
    wire.map(|p| log_id(p.into()))
}

pub(super) fn vote_to_domain(vote: &RaftVote) -> Vote {
    Vote {
        term: Term(vote.leader_id.term),
        voted_for: Some(vote.leader_id.voted_for),
        committed: vote.committed,
    }
}

pub(super) fn vote_from_domain(vote: Vote) -> RaftVote {
    let node = vote.voted_for.unwrap_or_default();
    let mut raft = RaftVote::new(vote.term.0, node);
    raft.committed = vote.committed;
    raft
}

pub(super) fn vote_to_wire(vote: &RaftVote) -> peer::Vote {
    vote_to_domain(vote).into()
}

pub(super) fn vote_from_wire(wire: Option<peer::Vote>) -> Result<RaftVote, Unreadable> {
    Ok(vote_from_domain(wire.ok_or(Unreadable("vote"))?.into()))
}

/// An entry as the WAL keeps it. Encodes only memberships; commands are bytes already.
pub(super) fn entry_to_domain(entry: Entry) -> LogEntry {
    let position = position(&entry.log_id());
    let (kind, data) = match entry.payload {
        EntryPayload::Blank => (EntryKind::Blank, bytes::Bytes::new()),
        EntryPayload::Normal(Commands(data)) => (EntryKind::Commands, data),
        EntryPayload::Membership(m) => {
            (EntryKind::Membership, membership_to_wire(&m).encode_to_vec().into())
        }
    };
    LogEntry { position, kind, data }
}

pub(super) fn entry_from_domain(entry: LogEntry) -> Result<Entry, Unreadable> {
    let payload = match entry.kind {
        EntryKind::Blank => EntryPayload::Blank,
        EntryKind::Commands => EntryPayload::Normal(Commands(entry.data)),
        EntryKind::Membership => {
            let wire =
                peer::Membership::decode(entry.data).map_err(|_| Unreadable("membership entry"))?;
            EntryPayload::Membership(membership_from_wire(wire)?)
        }
    };
    Ok(Entry::new(log_id(entry.position), payload))
}

pub(super) fn entry_to_wire(entry: Entry) -> peer::Entry {
    entry_to_domain(entry).into()
}

pub(super) fn entry_from_wire(mut wire: peer::Entry) -> Result<Entry, Unreadable> {
    // The bytes came in a message that holds many entries; kept in the log's tail, a slice of it
    // would keep all of it.
    wire.data = bytes::Bytes::copy_from_slice(&wire.data);
    entry_from_domain(wire.try_into().map_err(|_| Unreadable("entry"))?)
}

pub(super) fn membership_to_wire(membership: &Membership) -> peer::Membership {
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

pub(super) fn membership_from_wire(wire: peer::Membership) -> Result<Membership, Unreadable> {
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
    Membership::new(configs, nodes).map_err(|_| Unreadable("membership"))
}

pub(super) fn stored_membership_to_wire(stored: &StoredMembership) -> peer::StoredMembership {
    peer::StoredMembership {
        position: log_id_to_wire(*stored.log_id()),
        membership: Some(membership_to_wire(stored.membership())),
    }
}

pub(super) fn stored_membership_from_wire(
    wire: peer::StoredMembership,
) -> Result<StoredMembership, Unreadable> {
    let membership = membership_from_wire(wire.membership.unwrap_or_default())?;
    Ok(StoredMembership::new(log_id_from_wire(wire.position), membership))
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
            EntryPayload::Normal(Commands(bytes::Bytes::from_static(b"put"))),
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
        assert_eq!(entry_from_wire(wire), Err(Unreadable("entry")));
    }
}

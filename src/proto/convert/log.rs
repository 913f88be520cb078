//! Log entries, positions and votes, as peers exchange them.

use super::error::WireError;
use crate::{
    proto::peer::{self, entry},
    types::{EntryKind, LogEntry, LogPosition, MemberId, Term, Vote},
};

impl From<LogPosition> for peer::LogPosition {
    fn from(position: LogPosition) -> peer::LogPosition {
        peer::LogPosition { term: position.term.0, index: position.index }
    }
}

impl From<peer::LogPosition> for LogPosition {
    fn from(wire: peer::LogPosition) -> LogPosition {
        LogPosition { term: Term(wire.term), index: wire.index }
    }
}

impl From<Vote> for peer::Vote {
    fn from(vote: Vote) -> peer::Vote {
        peer::Vote {
            term: vote.term.0,
            voted_for: vote.voted_for.map_or(0, |member| member.0),
            committed: vote.committed,
        }
    }
}

impl From<peer::Vote> for Vote {
    fn from(wire: peer::Vote) -> Vote {
        Vote {
            term: Term(wire.term),
            voted_for: (wire.voted_for != 0).then_some(MemberId(wire.voted_for)),
            committed: wire.committed,
        }
    }
}

impl From<LogEntry> for peer::Entry {
    fn from(entry: LogEntry) -> peer::Entry {
        let kind = match entry.kind {
            EntryKind::Blank => entry::Kind::Blank,
            EntryKind::Commands => entry::Kind::Commands,
            EntryKind::Membership => entry::Kind::Membership,
        };
        peer::Entry {
            term: entry.position.term.0,
            index: entry.position.index,
            kind: kind.into(),
            data: entry.data,
        }
    }
}

impl TryFrom<peer::Entry> for LogEntry {
    type Error = WireError;

    fn try_from(wire: peer::Entry) -> Result<LogEntry, WireError> {
        let kind = match entry::Kind::try_from(wire.kind) {
            Ok(entry::Kind::Blank) => EntryKind::Blank,
            Ok(entry::Kind::Commands) => EntryKind::Commands,
            Ok(entry::Kind::Membership) => EntryKind::Membership,
            Err(_) => {
                return Err(WireError::UnknownValue { field: "Entry.kind", value: wire.kind });
            }
        };
        let position = LogPosition { term: Term(wire.term), index: wire.index };
        Ok(LogEntry { position, kind, data: wire.data })
    }
}

//! Going on alone, after the other voters are lost for good: the last resort, ordered by a person.
//!
//! A membership of this one voter is appended to the log as an entry of a new term. Everything before it
//! is committed with it, also what the lost majority may never have seen: more is kept than was promised,
//! never less of what this volume has.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use prost::Message;
use tokio::sync::oneshot;

use super::convert::{Membership, membership_to_wire};
use crate::{
    types::{EntryKind, LogEntry, LogPosition, PeerPlace, Term, Vote},
    wal::{Log, WalError},
};

/// Why the log could not be made its only voter's.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    #[error(transparent)]
    Wal(#[from] WalError),
    #[error("the log is empty: there is nothing to recover")]
    Empty,
    #[error("the log has ended")]
    Ended,
}

/// Makes `me` the only voter of the log. To be called before Raft runs on it; doing it twice does no harm.
pub async fn go_on_alone(log: &Log, me: PeerPlace) -> Result<(), RecoverError> {
    let last = log.last().ok_or(RecoverError::Empty)?;
    let voted = log.hard_state().vote.map_or(Term(0), |vote| vote.term);
    let term = Term(last.term.max(voted).0 + 1);
    // First the vote: no entry may be of a later term than it.
    let vote = Vote { term, voted_for: Some(me.member), committed: false };
    done(|done| log.save_vote(vote, done)).await?;
    let entry = LogEntry {
        position: LogPosition { term, index: last.index + 1 },
        kind: EntryKind::Membership,
        data: only(me),
    };
    done(|done| log.append(vec![entry], done)).await
}

fn only(me: PeerPlace) -> Bytes {
    let nodes = BTreeMap::from([(me.member, me.ordinal)]);
    let membership = Membership::new(vec![BTreeSet::from([me.member])], nodes)
        .expect("the one voter is among the nodes");
    membership_to_wire(&membership).encode_to_vec().into()
}

type Done = Box<dyn FnOnce(Result<(), WalError>) + Send>;

async fn done(change: impl FnOnce(Done)) -> Result<(), RecoverError> {
    let (tell, told) = oneshot::channel();
    // Nobody waits any more only if this member stops.
    change(Box::new(move |result| drop(tell.send(result))));
    Ok(told.await.map_err(|_| RecoverError::Ended)??)
}

//! Disaster recovery: a new cluster of one voter, after an operator has given up the other voters
//! (etcd: `--force-new-cluster`).
//!
//! A membership of this single voter is appended to the log as an entry of a new term, and commits all
//! entries before it, including entries that the lost majority may never have seen. So the new cluster
//! keeps at least everything that was acknowledged and is on this volume.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use prost::Message;
use tokio::sync::oneshot;

use super::convert::{Membership, membership_to_wire};
use crate::{
    types::{EntryKind, LogEntry, LogPosition, MemberRef, Term, Vote},
    wal::{Log, WalError},
};

/// Why this member could not become the only voter.
#[derive(Debug, thiserror::Error)]
pub enum ForceNewClusterError {
    #[error(transparent)]
    Wal(#[from] WalError),
    #[error("the log is empty: there is nothing to recover")]
    Empty,
    #[error("the log has ended")]
    Ended,
}

/// Makes `me` the only voter of the log. Must be called before Raft runs on it. Idempotent.
pub async fn force_new_cluster(log: &Log, me: MemberRef) -> Result<(), ForceNewClusterError> {
    let last = log.last().ok_or(ForceNewClusterError::Empty)?;
    let voted = log.hard_state().vote.map_or(Term(0), |vote| vote.term);
    let term = Term(last.term.max(voted).0 + 1);
    // The vote comes first: no entry may have a later term.
    let vote = Vote { term, voted_for: Some(me.member), committed: false };
    done(|done| log.save_vote(vote, done)).await?;
    let entry = LogEntry {
        position: LogPosition { term, index: last.index + 1 },
        kind: EntryKind::Membership,
        data: single_voter(me),
    };
    done(|done| log.append(vec![entry], done)).await
}

fn single_voter(me: MemberRef) -> Bytes {
    let nodes = BTreeMap::from([(me.member, me.ordinal)]);
    let membership = Membership::new(vec![BTreeSet::from([me.member])], nodes)
        .expect("the one voter is among the nodes");
    membership_to_wire(&membership).encode_to_vec().into()
}

type Done = Box<dyn FnOnce(Result<(), WalError>) + Send>;

async fn done(change: impl FnOnce(Done)) -> Result<(), ForceNewClusterError> {
    let (tx, rx) = oneshot::channel();
    // The receiver is gone only if this member stops.
    change(Box::new(move |result| drop(tx.send(result))));
    Ok(rx.await.map_err(|_| ForceNewClusterError::Ended)??)
}

//! The words of the domain: numbers with a meaning, log entries, and the commands of the store.
//!
//! A leaf: it imports nothing of ours, and everything above speaks in these types. Numbers that
//! could be mixed up are newtypes; each says what its zero means.

mod id;
mod kv;
mod log;

pub use id::{ClusterId, LeaseId, MemberId, Ordinal, PeerPlace, RecordId, Revision, Term};
pub use kv::{
    AlarmKind, Command, CommandError, Compare, CompareOp, CompareTarget, DeleteRange,
    DeleteRangeReply, Desired, KeyRange, KeyValue, Lease, LeaseAt, LeaseCheckpoint,
    MemberAttributes, OpReply, Put, PutReply, Range, RangeReply, Reply, SortOrder, SortTarget, Txn,
    TxnOp, TxnReply,
};
pub use log::{EntryKind, HardState, LogEntry, LogPosition, Vote};

//! The words of the domain: numbers with a meaning, log entries, commands and replies.
//!
//! A leaf: it imports no other module, and all modules above use these types. Numbers that could be
//! confused are newtypes; each documents the meaning of its zero.

mod command;
mod id;
mod kv;
mod lease;
mod log;
mod member;

pub use command::{AlarmKind, Command, CommandError, Reply};
pub use id::{ClusterId, LeaseId, MemberId, MemberRef, Ordinal, RecordId, Revision, Term};
pub use kv::{
    Compare, CompareOp, CompareTarget, DeleteRange, DeleteRangeReply, KeyRange, KeyValue, OpReply,
    Put, PutReply, Range, RangeReply, SortOrder, SortTarget, Txn, TxnOp, TxnReply,
};
pub use lease::{Lease, LeaseCheckpoint, LeaseRef};
pub use log::{EntryKind, HardState, LogEntry, LogPosition, Vote};
pub use member::{DesiredReplicas, MemberAttributes};

//! etcd's KV model in domain types: reads, writes, transactions and their replies.

use bytes::Bytes;

use super::id::{LeaseId, Revision};

/// One version of one key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeyValue {
    pub key: Bytes,
    pub value: Bytes,
    /// The revision that created the key, by the first put after it did not exist.
    pub create_revision: Revision,
    /// The revision that wrote this version.
    pub mod_revision: Revision,
    /// 1 for the version that created the key. Each put increments it.
    pub version: i64,
    pub lease: LeaseId,
}

/// Keys from `start` up to, and without, `end`.
///
/// etcd's wire form: an empty `range_end` is one key; `\0` alone is "all keys from `start` on".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyRange {
    One(Bytes),
    /// Empty if `end <= start`, which is not an error.
    Span {
        start: Bytes,
        end: Bytes,
    },
    From(Bytes),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SortOrder {
    /// By key, ascending; etcd also sorts ascending when a target other than the key is named.
    #[default]
    None,
    Ascend,
    Descend,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SortTarget {
    #[default]
    Key,
    Version,
    Create,
    Mod,
    Value,
}

/// A read. Every bound of zero means "no bound".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    pub keys: KeyRange,
    /// Maximum number of keys; zero or less: all.
    pub limit: i64,
    /// The revision to read at; zero or less: the current one.
    pub revision: Revision,
    pub sort_order: SortOrder,
    pub sort_target: SortTarget,
    pub keys_only: bool,
    pub count_only: bool,
    pub min_mod_revision: Revision,
    pub max_mod_revision: Revision,
    pub min_create_revision: Revision,
    pub max_create_revision: Revision,
}

impl Range {
    /// A plain read of these keys at the current revision.
    pub fn of(keys: KeyRange) -> Range {
        Range {
            keys,
            limit: 0,
            revision: Revision::ZERO,
            sort_order: SortOrder::None,
            sort_target: SortTarget::Key,
            keys_only: false,
            count_only: false,
            min_mod_revision: Revision::ZERO,
            max_mod_revision: Revision::ZERO,
            min_create_revision: Revision::ZERO,
            max_create_revision: Revision::ZERO,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RangeReply {
    pub kvs: Vec<KeyValue>,
    /// Whether `limit` truncated the result.
    pub more: bool,
    /// Number of keys in the range, regardless of the limit and, as in etcd, of the min/max revision
    /// filters.
    pub count: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Put {
    pub key: Bytes,
    pub value: Bytes,
    pub lease: LeaseId,
    pub prev_kv: bool,
    /// Keep the value the key has; `value` must be empty. An error if the key does not exist.
    pub ignore_value: bool,
    /// Keep the lease the key has; `lease` must be zero. An error if the key does not exist.
    pub ignore_lease: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PutReply {
    pub prev_kv: Option<KeyValue>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeleteRange {
    pub keys: KeyRange,
    pub prev_kv: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeleteRangeReply {
    pub deleted: i64,
    /// In key order; filled only on request.
    pub prev_kvs: Vec<KeyValue>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompareOp {
    Equal,
    Greater,
    Less,
    NotEqual,
}

/// The compared attribute, and its operand. A key that does not exist has version, create, mod and
/// lease 0 and no value: any comparison of its value is false.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CompareTarget {
    Version(i64),
    Create(Revision),
    Mod(Revision),
    Value(Bytes),
    Lease(LeaseId),
}

/// True if it holds for every key of the range. As in etcd, a range without keys is compared as one
/// key that does not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compare {
    pub keys: KeyRange,
    pub op: CompareOp,
    pub target: CompareTarget,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TxnOp {
    Range(Range),
    Put(Put),
    DeleteRange(DeleteRange),
    Txn(Box<Txn>),
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Txn {
    pub compare: Vec<Compare>,
    pub success: Vec<TxnOp>,
    pub failure: Vec<TxnOp>,
}

/// The reply of one operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpReply {
    Range(RangeReply),
    Put(PutReply),
    DeleteRange(DeleteRangeReply),
    Txn(TxnReply),
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TxnReply {
    pub succeeded: bool,
    pub responses: Vec<OpReply>,
    /// The revision in the headers of the responses of a nested transaction.
    pub revision: Revision,
}

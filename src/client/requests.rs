//! Builders for the common requests. Each becomes the message of the API; for all other fields, build the
//! message itself.

use std::time::Duration;

use bytes::Bytes;

use super::keys::{Keys, copy};
use crate::proto::etcdserverpb::{
    self as pb, DeleteRangeRequest, LeaseGrantRequest, PutRequest, RangeRequest, RequestOp,
    TxnRequest,
    compare::{CompareResult, CompareTarget, TargetUnion},
    range_request::SortOrder,
    request_op::Request,
};

/// A request to read keys, in order.
#[derive(Debug, Clone, PartialEq)]
pub struct Get(RangeRequest);

impl Get {
    pub fn new(keys: impl Into<Keys>) -> Get {
        let (key, range_end) = keys.into().bounds();
        Get(RangeRequest { key, range_end, ..RangeRequest::default() })
    }

    /// The maximum number of keys. The response's `more` is set if there are others.
    pub fn limit(mut self, keys: u32) -> Get {
        self.0.limit = keys.into();
        self
    }

    /// Reads the store as of this revision.
    pub fn at_revision(mut self, revision: i64) -> Get {
        self.0.revision = revision;
        self
    }

    /// Reads the answering member's state, which may be behind: faster, and works without a quorum.
    pub fn serializable(mut self) -> Get {
        self.0.serializable = true;
        self
    }

    /// Returns the last key first.
    pub fn descending(mut self) -> Get {
        self.0.sort_order = SortOrder::Descend.into();
        self
    }

    /// Omits the values.
    pub fn keys_only(mut self) -> Get {
        self.0.keys_only = true;
        self
    }

    /// Returns only the `count`.
    pub fn count_only(mut self) -> Get {
        self.0.count_only = true;
        self
    }
}

impl From<Get> for RangeRequest {
    fn from(get: Get) -> RangeRequest {
        get.0
    }
}

impl From<Keys> for RangeRequest {
    fn from(keys: Keys) -> RangeRequest {
        Get::new(keys).into()
    }
}

/// A request to write a key.
#[derive(Debug, Clone, PartialEq)]
pub struct Put(PutRequest);

impl Put {
    pub fn new(key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Put {
        Put(PutRequest { key: copy(key), value: copy(value), ..PutRequest::default() })
    }

    /// Attaches the key to a lease, whose end deletes the key.
    pub fn lease(mut self, id: i64) -> Put {
        self.0.lease = id;
        self
    }

    /// Returns the previous value.
    pub fn with_prev_kv(mut self) -> Put {
        self.0.prev_kv = true;
        self
    }
}

impl From<Put> for PutRequest {
    fn from(put: Put) -> PutRequest {
        put.0
    }
}

/// A request to delete keys.
#[derive(Debug, Clone, PartialEq)]
pub struct Delete(DeleteRangeRequest);

impl Delete {
    pub fn new(keys: impl Into<Keys>) -> Delete {
        let (key, range_end) = keys.into().bounds();
        Delete(DeleteRangeRequest { key, range_end, prev_kv: false })
    }

    /// Returns the previous value.
    pub fn with_prev_kv(mut self) -> Delete {
        self.0.prev_kv = true;
        self
    }
}

impl From<Delete> for DeleteRangeRequest {
    fn from(delete: Delete) -> DeleteRangeRequest {
        delete.0
    }
}

impl From<Keys> for DeleteRangeRequest {
    fn from(keys: Keys) -> DeleteRangeRequest {
        Delete::new(keys).into()
    }
}

/// A lease with an ID that the member chooses. Fractions of a second are rounded up.
impl From<Duration> for LeaseGrantRequest {
    fn from(ttl: Duration) -> LeaseGrantRequest {
        let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
        LeaseGrantRequest { ttl: i64::try_from(seconds).unwrap_or(i64::MAX), id: 0 }
    }
}

/// A transaction: applies the `then` operations if all comparisons hold, otherwise the `otherwise`
/// operations.
///
/// ```
/// use ordinal::client::{Compare, Get, Put, Txn};
/// let take_the_lock = Txn::new()
///     .when(Compare::version("lock").equals(0))
///     .then(Put::new("lock", "me"))
///     .otherwise(Get::new("lock"));
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Txn(TxnRequest);

impl Txn {
    pub fn new() -> Txn {
        Txn::default()
    }

    pub fn when(mut self, compare: Compare) -> Txn {
        self.0.compare.push(compare.0);
        self
    }

    pub fn then(mut self, operation: impl Into<Operation>) -> Txn {
        self.0.success.push(operation.into().0);
        self
    }

    pub fn otherwise(mut self, operation: impl Into<Operation>) -> Txn {
        self.0.failure.push(operation.into().0);
        self
    }
}

impl From<Txn> for TxnRequest {
    fn from(txn: Txn) -> TxnRequest {
        txn.0
    }
}

/// An operation of a transaction.
#[derive(Debug, Clone, PartialEq)]
pub struct Operation(RequestOp);

impl From<Get> for Operation {
    fn from(get: Get) -> Operation {
        Operation(RequestOp { request: Some(Request::RequestRange(get.0)) })
    }
}

impl From<Put> for Operation {
    fn from(put: Put) -> Operation {
        Operation(RequestOp { request: Some(Request::RequestPut(put.0)) })
    }
}

impl From<Delete> for Operation {
    fn from(delete: Delete) -> Operation {
        Operation(RequestOp { request: Some(Request::RequestDeleteRange(delete.0)) })
    }
}

/// A nested transaction: its comparisons are evaluated when it runs.
impl From<Txn> for Operation {
    fn from(txn: Txn) -> Operation {
        Operation(RequestOp { request: Some(Request::RequestTxn(txn.0)) })
    }
}

/// A condition on a key. A key that does not exist has version, revisions and lease 0; comparisons of its
/// value fail.
#[derive(Debug, Clone, PartialEq)]
pub struct Compare(pb::Compare);

/// A comparison that lacks the operator and the number.
#[derive(Debug, Clone)]
pub struct CompareBuilder {
    key: Bytes,
    target: CompareTarget,
    union: fn(i64) -> TargetUnion,
}

impl Compare {
    /// The number of writes since the key was created.
    pub fn version(key: impl AsRef<[u8]>) -> CompareBuilder {
        CompareBuilder {
            key: copy(key),
            target: CompareTarget::Version,
            union: TargetUnion::Version,
        }
    }

    pub fn create_revision(key: impl AsRef<[u8]>) -> CompareBuilder {
        let (target, union) = (CompareTarget::Create, TargetUnion::CreateRevision);
        CompareBuilder { key: copy(key), target, union }
    }

    pub fn mod_revision(key: impl AsRef<[u8]>) -> CompareBuilder {
        CompareBuilder {
            key: copy(key),
            target: CompareTarget::Mod,
            union: TargetUnion::ModRevision,
        }
    }

    /// The ID of the key's lease.
    pub fn lease(key: impl AsRef<[u8]>) -> CompareBuilder {
        CompareBuilder { key: copy(key), target: CompareTarget::Lease, union: TargetUnion::Lease }
    }

    pub fn value_equals(key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Compare {
        Compare::with(
            copy(key),
            CompareTarget::Value,
            CompareResult::Equal,
            TargetUnion::Value(copy(value)),
        )
    }

    fn with(key: Bytes, target: CompareTarget, result: CompareResult, with: TargetUnion) -> Self {
        Compare(pb::Compare {
            result: result.into(),
            target: target.into(),
            key,
            range_end: Bytes::new(),
            target_union: Some(with),
        })
    }
}

impl CompareBuilder {
    pub fn equals(self, number: i64) -> Compare {
        self.is(CompareResult::Equal, number)
    }

    pub fn differs_from(self, number: i64) -> Compare {
        self.is(CompareResult::NotEqual, number)
    }

    pub fn is_more_than(self, number: i64) -> Compare {
        self.is(CompareResult::Greater, number)
    }

    pub fn is_less_than(self, number: i64) -> Compare {
        self.is(CompareResult::Less, number)
    }

    fn is(self, result: CompareResult, number: i64) -> Compare {
        Compare::with(self.key, self.target, result, (self.union)(number))
    }
}

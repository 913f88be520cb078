//! Requests, from clients and inside the commands of the log.

use bytes::Bytes;

use super::error::WireError;
use crate::{
    proto::etcdserverpb::{
        CompactionRequest, Compare as WireCompare, DeleteRangeRequest, PutRequest, RangeRequest,
        RequestOp, TxnRequest,
        compare::{CompareResult, CompareTarget as WireTarget, TargetUnion},
        range_request::{SortOrder as WireOrder, SortTarget as WireSortTarget},
        request_op::Request,
    },
    types::{
        Compare, CompareOp, CompareTarget, DeleteRange, KeyRange, LeaseId, Put, Range, Revision,
        SortOrder, SortTarget, Txn, TxnOp,
    },
};

/// The `range_end` that means "every key from `key` on".
const NO_END: &[u8] = b"\0";

/// etcd's `(key, range_end)`. Total: any two byte strings are a range.
impl From<(Bytes, Bytes)> for KeyRange {
    fn from((key, range_end): (Bytes, Bytes)) -> KeyRange {
        if range_end.is_empty() {
            KeyRange::One(key)
        } else if range_end == NO_END {
            KeyRange::From(key)
        } else {
            KeyRange::Span { start: key, end: range_end }
        }
    }
}

impl From<KeyRange> for (Bytes, Bytes) {
    fn from(keys: KeyRange) -> (Bytes, Bytes) {
        match keys {
            KeyRange::One(key) => (key, Bytes::new()),
            KeyRange::Span { start, end } => (start, end),
            KeyRange::From(start) => (start, Bytes::from_static(NO_END)),
        }
    }
}

/// `serializable` is not part of a [`Range`]: it selects a consistency level, not the result.
impl TryFrom<RangeRequest> for Range {
    type Error = WireError;

    fn try_from(wire: RangeRequest) -> Result<Range, WireError> {
        Ok(Range {
            sort_order: sort_order(wire.sort_order)?,
            sort_target: sort_target(wire.sort_target)?,
            keys: (wire.key, wire.range_end).into(),
            limit: wire.limit,
            revision: Revision(wire.revision),
            keys_only: wire.keys_only,
            count_only: wire.count_only,
            min_mod_revision: Revision(wire.min_mod_revision),
            max_mod_revision: Revision(wire.max_mod_revision),
            min_create_revision: Revision(wire.min_create_revision),
            max_create_revision: Revision(wire.max_create_revision),
        })
    }
}

impl From<Range> for RangeRequest {
    fn from(range: Range) -> RangeRequest {
        let sort_order = match range.sort_order {
            SortOrder::None => WireOrder::None,
            SortOrder::Ascend => WireOrder::Ascend,
            SortOrder::Descend => WireOrder::Descend,
        };
        let sort_target = match range.sort_target {
            SortTarget::Key => WireSortTarget::Key,
            SortTarget::Version => WireSortTarget::Version,
            SortTarget::Create => WireSortTarget::Create,
            SortTarget::Mod => WireSortTarget::Mod,
            SortTarget::Value => WireSortTarget::Value,
        };
        let (key, range_end) = range.keys.into();
        RangeRequest {
            key,
            range_end,
            limit: range.limit,
            revision: range.revision.0,
            sort_order: sort_order.into(),
            sort_target: sort_target.into(),
            serializable: false,
            keys_only: range.keys_only,
            count_only: range.count_only,
            min_mod_revision: range.min_mod_revision.0,
            max_mod_revision: range.max_mod_revision.0,
            min_create_revision: range.min_create_revision.0,
            max_create_revision: range.max_create_revision.0,
        }
    }
}

fn sort_order(value: i32) -> Result<SortOrder, WireError> {
    match WireOrder::try_from(value) {
        Ok(WireOrder::None) => Ok(SortOrder::None),
        Ok(WireOrder::Ascend) => Ok(SortOrder::Ascend),
        Ok(WireOrder::Descend) => Ok(SortOrder::Descend),
        Err(_) => Err(WireError::UnknownValue { field: "RangeRequest.sort_order", value }),
    }
}

fn sort_target(value: i32) -> Result<SortTarget, WireError> {
    match WireSortTarget::try_from(value) {
        Ok(WireSortTarget::Key) => Ok(SortTarget::Key),
        Ok(WireSortTarget::Version) => Ok(SortTarget::Version),
        Ok(WireSortTarget::Create) => Ok(SortTarget::Create),
        Ok(WireSortTarget::Mod) => Ok(SortTarget::Mod),
        Ok(WireSortTarget::Value) => Ok(SortTarget::Value),
        Err(_) => Err(WireError::UnknownValue { field: "RangeRequest.sort_target", value }),
    }
}

impl From<PutRequest> for Put {
    fn from(wire: PutRequest) -> Put {
        Put {
            key: wire.key,
            value: wire.value,
            lease: LeaseId(wire.lease),
            prev_kv: wire.prev_kv,
            ignore_value: wire.ignore_value,
            ignore_lease: wire.ignore_lease,
        }
    }
}

impl From<Put> for PutRequest {
    fn from(put: Put) -> PutRequest {
        PutRequest {
            key: put.key,
            value: put.value,
            lease: put.lease.0,
            prev_kv: put.prev_kv,
            ignore_value: put.ignore_value,
            ignore_lease: put.ignore_lease,
        }
    }
}

impl From<DeleteRangeRequest> for DeleteRange {
    fn from(wire: DeleteRangeRequest) -> DeleteRange {
        DeleteRange { keys: (wire.key, wire.range_end).into(), prev_kv: wire.prev_kv }
    }
}

impl From<DeleteRange> for DeleteRangeRequest {
    fn from(delete: DeleteRange) -> DeleteRangeRequest {
        let (key, range_end) = delete.keys.into();
        DeleteRangeRequest { key, range_end, prev_kv: delete.prev_kv }
    }
}

/// `physical` is not in the log: the client waits for the freed space, which does not affect applying.
impl From<Revision> for CompactionRequest {
    fn from(revision: Revision) -> CompactionRequest {
        CompactionRequest { revision: revision.0, physical: false }
    }
}

impl TryFrom<TxnRequest> for Txn {
    type Error = WireError;

    fn try_from(wire: TxnRequest) -> Result<Txn, WireError> {
        Ok(Txn {
            compare: wire.compare.into_iter().map(Compare::try_from).collect::<Result<_, _>>()?,
            success: wire.success.into_iter().map(TxnOp::try_from).collect::<Result<_, _>>()?,
            failure: wire.failure.into_iter().map(TxnOp::try_from).collect::<Result<_, _>>()?,
        })
    }
}

impl From<Txn> for TxnRequest {
    fn from(txn: Txn) -> TxnRequest {
        TxnRequest {
            compare: txn.compare.into_iter().map(Into::into).collect(),
            success: txn.success.into_iter().map(Into::into).collect(),
            failure: txn.failure.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<RequestOp> for TxnOp {
    type Error = WireError;

    fn try_from(wire: RequestOp) -> Result<TxnOp, WireError> {
        match wire.request.ok_or(WireError::Missing("RequestOp.request"))? {
            Request::RequestRange(range) => Ok(TxnOp::Range(range.try_into()?)),
            Request::RequestPut(put) => Ok(TxnOp::Put(put.into())),
            Request::RequestDeleteRange(delete) => Ok(TxnOp::DeleteRange(delete.into())),
            Request::RequestTxn(txn) => Ok(TxnOp::Txn(Box::new(txn.try_into()?))),
        }
    }
}

impl From<TxnOp> for RequestOp {
    fn from(op: TxnOp) -> RequestOp {
        let request = match op {
            TxnOp::Range(range) => Request::RequestRange(range.into()),
            TxnOp::Put(put) => Request::RequestPut(put.into()),
            TxnOp::DeleteRange(delete) => Request::RequestDeleteRange(delete.into()),
            TxnOp::Txn(txn) => Request::RequestTxn((*txn).into()),
        };
        RequestOp { request: Some(request) }
    }
}

impl TryFrom<WireCompare> for Compare {
    type Error = WireError;

    fn try_from(wire: WireCompare) -> Result<Compare, WireError> {
        Ok(Compare {
            op: compare_op(wire.result)?,
            target: compare_target(wire.target, wire.target_union)?,
            keys: (wire.key, wire.range_end).into(),
        })
    }
}

fn compare_op(value: i32) -> Result<CompareOp, WireError> {
    match CompareResult::try_from(value) {
        Ok(CompareResult::Equal) => Ok(CompareOp::Equal),
        Ok(CompareResult::Greater) => Ok(CompareOp::Greater),
        Ok(CompareResult::Less) => Ok(CompareOp::Less),
        Ok(CompareResult::NotEqual) => Ok(CompareOp::NotEqual),
        Err(_) => Err(WireError::UnknownValue { field: "Compare.result", value }),
    }
}

/// As in etcd, `target` selects the compared attribute. An operand that is absent or belongs to
/// another target counts as zero.
fn compare_target(value: i32, operand: Option<TargetUnion>) -> Result<CompareTarget, WireError> {
    let target = WireTarget::try_from(value)
        .map_err(|_| WireError::UnknownValue { field: "Compare.target", value })?;
    Ok(match (target, operand) {
        (WireTarget::Version, Some(TargetUnion::Version(n))) => CompareTarget::Version(n),
        (WireTarget::Version, _) => CompareTarget::Version(0),
        (WireTarget::Create, Some(TargetUnion::CreateRevision(n))) => {
            CompareTarget::Create(Revision(n))
        }
        (WireTarget::Create, _) => CompareTarget::Create(Revision::ZERO),
        (WireTarget::Mod, Some(TargetUnion::ModRevision(n))) => CompareTarget::Mod(Revision(n)),
        (WireTarget::Mod, _) => CompareTarget::Mod(Revision::ZERO),
        (WireTarget::Value, Some(TargetUnion::Value(bytes))) => CompareTarget::Value(bytes),
        (WireTarget::Value, _) => CompareTarget::Value(Bytes::new()),
        (WireTarget::Lease, Some(TargetUnion::Lease(n))) => CompareTarget::Lease(LeaseId(n)),
        (WireTarget::Lease, _) => CompareTarget::Lease(LeaseId(0)),
    })
}

impl From<Compare> for WireCompare {
    fn from(compare: Compare) -> WireCompare {
        let result = match compare.op {
            CompareOp::Equal => CompareResult::Equal,
            CompareOp::Greater => CompareResult::Greater,
            CompareOp::Less => CompareResult::Less,
            CompareOp::NotEqual => CompareResult::NotEqual,
        };
        let (target, operand) = match compare.target {
            CompareTarget::Version(n) => (WireTarget::Version, TargetUnion::Version(n)),
            CompareTarget::Create(n) => (WireTarget::Create, TargetUnion::CreateRevision(n.0)),
            CompareTarget::Mod(n) => (WireTarget::Mod, TargetUnion::ModRevision(n.0)),
            CompareTarget::Value(bytes) => (WireTarget::Value, TargetUnion::Value(bytes)),
            CompareTarget::Lease(n) => (WireTarget::Lease, TargetUnion::Lease(n.0)),
        };
        let (key, range_end) = compare.keys.into();
        WireCompare {
            result: result.into(),
            target: target.into(),
            key,
            range_end,
            target_union: Some(operand),
        }
    }
}

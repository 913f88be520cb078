//! Validates requests by themselves, in etcd's order of checks.

use prost::Message;

use super::errors::ValidationError;
use crate::{
    node::NodeError,
    proto::etcdserverpb::{
        DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
        range_request::{SortOrder, SortTarget},
        request_op::Request,
    },
};

/// The maximum nesting of transactions. etcd has no such bound. Ours keeps every command, and every reply
/// between members, within the protobuf decoder's depth of 100 messages: a member must be able to read
/// every accepted command from the log.
const TXN_DEPTH_MAX: usize = 32;

pub fn range(request: &RangeRequest) -> Result<(), ValidationError> {
    if request.key.is_empty() {
        return Err(ValidationError::EmptyKey);
    }
    if SortOrder::try_from(request.sort_order).is_err()
        || SortTarget::try_from(request.sort_target).is_err()
    {
        return Err(ValidationError::InvalidSortOption);
    }
    Ok(())
}

/// A stream sends keys in key order as it reads them. Orders and filters that need all keys first are
/// refused.
pub fn range_stream(request: &RangeRequest) -> Result<(), ValidationError> {
    range(request)?;
    let key_order = match request.sort_order() {
        SortOrder::None => true,
        SortOrder::Ascend => request.sort_target() == SortTarget::Key,
        SortOrder::Descend => false,
    };
    if !key_order {
        return Err(ValidationError::StreamSorted);
    }
    let filters = [
        request.min_mod_revision,
        request.max_mod_revision,
        request.min_create_revision,
        request.max_create_revision,
    ];
    if filters.iter().any(|filter| *filter != 0) {
        return Err(ValidationError::StreamFiltered);
    }
    Ok(())
}

pub fn put(request: &PutRequest) -> Result<(), ValidationError> {
    if request.key.is_empty() {
        return Err(ValidationError::EmptyKey);
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(ValidationError::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(ValidationError::LeaseProvided);
    }
    Ok(())
}

pub fn delete_range(request: &DeleteRangeRequest) -> Result<(), ValidationError> {
    if request.key.is_empty() {
        return Err(ValidationError::EmptyKey);
    }
    Ok(())
}

/// All checks except overlaps: [`super::overlap`] checks those after this function has bounded the number
/// of operations.
pub fn txn(request: &TxnRequest, max_ops: usize) -> Result<(), ValidationError> {
    nested_txn(request, max_ops, TXN_DEPTH_MAX)
}

/// `ops_left` and `depth_left` are what the enclosing transactions leave.
fn nested_txn(
    request: &TxnRequest,
    ops_left: usize,
    depth_left: usize,
) -> Result<(), ValidationError> {
    let depth_left = depth_left.checked_sub(1).ok_or(ValidationError::TooManyOperations)?;
    let ops = request.compare.len().max(request.success.len()).max(request.failure.len());
    let ops_left = ops_left.checked_sub(ops).ok_or(ValidationError::TooManyOperations)?;

    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(ValidationError::EmptyKey);
    }
    request
        .success
        .iter()
        .chain(&request.failure)
        .try_for_each(|op| operation(op, ops_left, depth_left))
}

fn operation(op: &RequestOp, ops_left: usize, depth_left: usize) -> Result<(), ValidationError> {
    match &op.request {
        Some(Request::RequestRange(request)) => range(request),
        Some(Request::RequestPut(request)) => put(request),
        Some(Request::RequestDeleteRange(request)) => delete_range(request),
        Some(Request::RequestTxn(request)) => nested_txn(request, ops_left, depth_left),
        None => Err(ValidationError::EmptyOperation),
    }
}

/// Only writes are bounded: reads do not go through the log.
pub fn size(request: &impl Message, max_bytes: usize) -> Result<(), NodeError> {
    if request.encoded_len() > max_bytes { Err(NodeError::RequestTooLarge) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        proto::{
            convert::{decode_commands, encode_commands},
            peer,
        },
        types::{
            Command, KeyRange, KeyValue, OpReply, Range, RangeReply, Reply, Revision, Txn, TxnOp,
            TxnReply,
        },
    };

    /// The deepest accepted transaction, and its reply.
    fn deepest() -> (Txn, TxnReply) {
        let read = TxnOp::Range(Range::of(KeyRange::One(Bytes::from_static(b"k"))));
        let kvs = vec![KeyValue { key: Bytes::from_static(b"k"), ..KeyValue::default() }];
        let reply = OpReply::Range(RangeReply { kvs, more: false, count: 1 });

        let txn = |op| Txn { success: vec![op], ..Txn::default() };
        let txn_reply =
            |op| TxnReply { succeeded: true, responses: vec![op], revision: Revision(2) };
        (1..TXN_DEPTH_MAX).fold((txn(read), txn_reply(reply)), |(inner, reply), _| {
            (txn(TxnOp::Txn(Box::new(inner))), txn_reply(OpReply::Txn(reply)))
        })
    }

    #[test]
    fn the_deepest_accepted_transaction_can_be_decoded_with_its_reply() {
        let (txn, reply) = deepest();
        assert_eq!(super::txn(&txn.clone().into(), TXN_DEPTH_MAX), Ok(()));

        let commands = vec![Command::Txn(txn)];
        assert_eq!(decode_commands(encode_commands(commands.clone())), Ok(commands));

        let reply = Ok(Reply::Txn { revision: Revision(2), reply });
        let forwarded = peer::ForwardReply {
            id: 1,
            result: Some(peer::forward_reply::Result::Proposed(peer::Proposed {
                position: None,
                replies: vec![reply.into()],
            })),
        };
        let received = peer::ForwardReply::decode(Bytes::from(forwarded.encode_to_vec()));
        assert_eq!(received, Ok(forwarded));
    }
}

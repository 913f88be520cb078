//! What is wrong with a request by itself, in the order in which etcd finds it.

use prost::Message;

use super::errors::Refusal;
use crate::{
    node::NodeError,
    proto::etcdserverpb::{
        DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
        range_request::{SortOrder, SortTarget},
        request_op::Request,
    },
};

/// How deep transactions may nest. etcd has no such bound of its own; ours keeps every command, and
/// every answer on its way between members, within the depth (100 messages) to which protobuf is
/// decoded: what is accepted here must be readable from the log.
pub(super) const TXN_DEPTH_MAX: usize = 32;

pub(super) fn range(request: &RangeRequest) -> Result<(), Refusal> {
    if request.key.is_empty() {
        return Err(Refusal::EmptyKey);
    }
    if SortOrder::try_from(request.sort_order).is_err()
        || SortTarget::try_from(request.sort_target).is_err()
    {
        return Err(Refusal::InvalidSortOption);
    }
    Ok(())
}

/// A stream gives the keys as they come: whatever needs all of them first is refused.
pub(super) fn range_stream(request: &RangeRequest) -> Result<(), Refusal> {
    range(request)?;
    let key_order = match request.sort_order() {
        SortOrder::None => true,
        SortOrder::Ascend => request.sort_target() == SortTarget::Key,
        SortOrder::Descend => false,
    };
    if !key_order {
        return Err(Refusal::StreamSorted);
    }
    let filters = [
        request.min_mod_revision,
        request.max_mod_revision,
        request.min_create_revision,
        request.max_create_revision,
    ];
    if filters.iter().any(|filter| *filter != 0) {
        return Err(Refusal::StreamFiltered);
    }
    Ok(())
}

pub(super) fn put(request: &PutRequest) -> Result<(), Refusal> {
    if request.key.is_empty() {
        return Err(Refusal::EmptyKey);
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(Refusal::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(Refusal::LeaseProvided);
    }
    Ok(())
}

pub(super) fn delete_range(request: &DeleteRangeRequest) -> Result<(), Refusal> {
    if request.key.is_empty() {
        return Err(Refusal::EmptyKey);
    }
    Ok(())
}

/// All but the overlaps, which [`super::overlap`] checks once the number of operations is known to be
/// bounded.
pub(super) fn txn(request: &TxnRequest, max_ops: usize) -> Result<(), Refusal> {
    nested_txn(request, max_ops, TXN_DEPTH_MAX)
}

/// `ops_left` is what the transactions around this one leave it.
fn nested_txn(request: &TxnRequest, ops_left: usize, depth_left: usize) -> Result<(), Refusal> {
    let depth_left = depth_left.checked_sub(1).ok_or(Refusal::TooManyOperations)?;
    let ops = request.compare.len().max(request.success.len()).max(request.failure.len());
    let ops_left = ops_left.checked_sub(ops).ok_or(Refusal::TooManyOperations)?;

    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(Refusal::EmptyKey);
    }
    request
        .success
        .iter()
        .chain(&request.failure)
        .try_for_each(|op| operation(op, ops_left, depth_left))
}

fn operation(op: &RequestOp, ops_left: usize, depth_left: usize) -> Result<(), Refusal> {
    match &op.request {
        Some(Request::RequestRange(request)) => range(request),
        Some(Request::RequestPut(request)) => put(request),
        Some(Request::RequestDeleteRange(request)) => delete_range(request),
        Some(Request::RequestTxn(request)) => nested_txn(request, ops_left, depth_left),
        None => Err(Refusal::EmptyOperation),
    }
}

/// Only writes are bounded: a read does not go through the log.
pub(super) fn size(request: &impl Message, max_bytes: usize) -> Result<(), NodeError> {
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

    /// The deepest transaction with an operation in it, and what it answers.
    fn deepest() -> (Txn, TxnReply) {
        let read = TxnOp::Range(Range::of(KeyRange::One(Bytes::from_static(b"k"))));
        let kvs = vec![KeyValue { key: Bytes::from_static(b"k"), ..KeyValue::default() }];
        let answer = OpReply::Range(RangeReply { kvs, more: false, count: 1 });

        let txn = |op| Txn { success: vec![op], ..Txn::default() };
        let reply = |op| TxnReply { succeeded: true, responses: vec![op], revision: Revision(2) };
        (1..TXN_DEPTH_MAX).fold((txn(read), reply(answer)), |(inner, answer), _| {
            (txn(TxnOp::Txn(Box::new(inner))), reply(OpReply::Txn(answer)))
        })
    }

    #[test]
    fn what_is_accepted_can_be_read_from_the_log_and_answered_through_a_peer() {
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

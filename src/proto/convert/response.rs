//! Responses to clients, with the headers that etcd fills.
//!
//! The caller makes the header of a whole response. Inside a transaction etcd fills only the revision:
//! the transaction's for the first write and all later operations, the previous one for operations
//! before the first write, and none for a nested transaction.

use crate::{
    proto::{
        etcdserverpb::{
            self as pb, AlarmType, DeleteRangeResponse, PutResponse, RangeResponse, ResponseHeader,
            ResponseOp, TxnResponse, response_op::Response,
        },
        mvccpb,
    },
    types::{
        AlarmKind, DeleteRangeReply, KeyValue, LeaseId, OpReply, PutReply, RangeReply, Revision,
        TxnReply,
    },
};

pub fn range(header: ResponseHeader, reply: RangeReply) -> RangeResponse {
    RangeResponse {
        header: Some(header),
        kvs: key_values(reply.kvs),
        more: reply.more,
        count: reply.count,
    }
}

pub fn put(header: ResponseHeader, reply: PutReply) -> PutResponse {
    PutResponse { header: Some(header), prev_kv: reply.prev_kv.map(Into::into) }
}

pub fn delete_range(header: ResponseHeader, reply: DeleteRangeReply) -> DeleteRangeResponse {
    DeleteRangeResponse {
        header: Some(header),
        deleted: reply.deleted,
        prev_kvs: key_values(reply.prev_kvs),
    }
}

/// `header.revision` is the store's revision after the transaction. The headers of its operations are
/// derived from it.
pub fn txn(header: ResponseHeader, reply: TxnReply) -> TxnResponse {
    let after = Revision(header.revision);
    let before = if writes(&reply) { Revision(after.0 - 1) } else { after };
    TxnParts { now: before, after }.txn(header, reply)
}

/// Whether the transaction changed something, and so made a revision.
fn writes(reply: &TxnReply) -> bool {
    reply.responses.iter().any(|op| match op {
        OpReply::Range(_) => false,
        OpReply::Put(_) => true,
        OpReply::DeleteRange(delete) => delete.deleted > 0,
        OpReply::Txn(txn) => writes(txn),
    })
}

/// Walks the replies of a transaction in the order of execution.
struct TxnParts {
    /// The revision that a read at this point saw.
    now: Revision,
    after: Revision,
}

impl TxnParts {
    fn txn(&mut self, header: ResponseHeader, reply: TxnReply) -> TxnResponse {
        TxnResponse {
            header: Some(header),
            succeeded: reply.succeeded,
            responses: reply
                .responses
                .into_iter()
                .map(|op| ResponseOp { response: Some(self.op(op)) })
                .collect(),
        }
    }

    fn op(&mut self, reply: OpReply) -> Response {
        match reply {
            OpReply::Range(reply) => Response::ResponseRange(range(self.header(), reply)),
            OpReply::Put(reply) => {
                self.now = self.after;
                Response::ResponsePut(put(self.header(), reply))
            }
            OpReply::DeleteRange(reply) => {
                if reply.deleted > 0 {
                    self.now = self.after;
                }
                Response::ResponseDeleteRange(delete_range(self.header(), reply))
            }
            OpReply::Txn(reply) => {
                Response::ResponseTxn(self.txn(ResponseHeader::default(), reply))
            }
        }
    }

    fn header(&self) -> ResponseHeader {
        ResponseHeader { revision: self.now.0, ..ResponseHeader::default() }
    }
}

pub fn key_values(kvs: Vec<KeyValue>) -> Vec<mvccpb::KeyValue> {
    kvs.into_iter().map(Into::into).collect()
}

impl From<KeyValue> for mvccpb::KeyValue {
    fn from(kv: KeyValue) -> mvccpb::KeyValue {
        mvccpb::KeyValue {
            key: kv.key,
            value: kv.value,
            create_revision: kv.create_revision.0,
            mod_revision: kv.mod_revision.0,
            version: kv.version,
            lease: kv.lease.0,
        }
    }
}

impl From<mvccpb::KeyValue> for KeyValue {
    fn from(wire: mvccpb::KeyValue) -> KeyValue {
        KeyValue {
            key: wire.key,
            value: wire.value,
            create_revision: Revision(wire.create_revision),
            mod_revision: Revision(wire.mod_revision),
            version: wire.version,
            lease: LeaseId(wire.lease),
        }
    }
}

impl From<AlarmKind> for AlarmType {
    fn from(kind: AlarmKind) -> pb::AlarmType {
        match kind {
            AlarmKind::NoSpace => AlarmType::Nospace,
            AlarmKind::Corrupt => AlarmType::Corrupt,
        }
    }
}

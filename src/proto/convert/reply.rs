//! Replies that a leader sends to the member that forwarded the command.
//!
//! The header of a reply carries its revision. Replies inside a transaction have no header, except
//! nested transactions.

use super::{error::WireError, response::key_values};
use crate::{
    proto::{
        etcdserverpb::{
            CompactionResponse, DeleteRangeResponse, LeaseGrantResponse, LeaseRevokeResponse,
            PutResponse, RangeResponse, ResponseHeader, ResponseOp, TxnResponse,
            response_op::Response,
        },
        peer::{
            self, CommandFailure, CommandReply, command_failure::Kind, command_reply::Reply as Wire,
        },
    },
    types::{
        CommandError, DeleteRangeReply, MemberId, OpReply, PutReply, RangeReply, Reply, Revision,
        TxnReply,
    },
};

impl From<Result<Reply, CommandError>> for CommandReply {
    fn from(reply: Result<Reply, CommandError>) -> CommandReply {
        let wire = match reply {
            Ok(Reply::Put { revision, reply }) => {
                Wire::Put(PutResponse { header: Some(header(revision)), ..put_body(reply) })
            }
            Ok(Reply::DeleteRange { revision, reply }) => Wire::DeleteRange(DeleteRangeResponse {
                header: Some(header(revision)),
                ..delete_range_body(reply)
            }),
            Ok(Reply::Txn { revision, reply }) => {
                Wire::Txn(TxnResponse { header: Some(header(revision)), ..txn_body(reply) })
            }
            Ok(Reply::Compact { revision }) => {
                Wire::Compaction(CompactionResponse { header: Some(header(revision)) })
            }
            Ok(Reply::MembersUpdated) => Wire::Described(peer::Described {}),
            Ok(Reply::Assigned(member)) => {
                Wire::AssignedMember(peer::AssignedMember { member_id: member.0 })
            }
            Ok(Reply::LeaseGrant { revision, ttl }) => Wire::LeaseGrant(LeaseGrantResponse {
                header: Some(header(revision)),
                ttl,
                ..LeaseGrantResponse::default()
            }),
            Ok(Reply::LeaseRevoke { revision }) => {
                Wire::LeaseRevoke(LeaseRevokeResponse { header: Some(header(revision)) })
            }
            Ok(Reply::LeasesUpdated) => Wire::LeasesUpdated(peer::LeasesUpdated {}),
            Err(error) => Wire::Failure(CommandFailure { kind: Kind::from(error).into() }),
        };
        CommandReply { reply: Some(wire) }
    }
}

impl TryFrom<CommandReply> for Result<Reply, CommandError> {
    type Error = WireError;

    fn try_from(wire: CommandReply) -> Result<Result<Reply, CommandError>, WireError> {
        Ok(Ok(match wire.reply.ok_or(WireError::Missing("CommandReply.reply"))? {
            Wire::Put(put) => Reply::Put { revision: revision(put.header)?, reply: put.into() },
            Wire::DeleteRange(delete) => {
                Reply::DeleteRange { revision: revision(delete.header)?, reply: delete.into() }
            }
            Wire::Txn(txn) => {
                let reply = TxnReply::try_from(txn)?;
                Reply::Txn { revision: reply.revision, reply }
            }
            Wire::Compaction(CompactionResponse { header }) => {
                Reply::Compact { revision: revision(header)? }
            }
            Wire::Described(peer::Described {}) => Reply::MembersUpdated,
            Wire::AssignedMember(peer::AssignedMember { member_id }) => {
                Reply::Assigned(MemberId(member_id))
            }
            Wire::LeaseGrant(LeaseGrantResponse { header, ttl, .. }) => {
                Reply::LeaseGrant { revision: revision(header)?, ttl }
            }
            Wire::LeaseRevoke(LeaseRevokeResponse { header }) => {
                Reply::LeaseRevoke { revision: revision(header)? }
            }
            Wire::LeasesUpdated(peer::LeasesUpdated {}) => Reply::LeasesUpdated,
            Wire::Failure(CommandFailure { kind }) => return Ok(Err(failure(kind)?)),
        }))
    }
}

fn header(revision: Revision) -> ResponseHeader {
    ResponseHeader { revision: revision.0, ..ResponseHeader::default() }
}

fn revision(header: Option<ResponseHeader>) -> Result<Revision, WireError> {
    header.map(|header| Revision(header.revision)).ok_or(WireError::Missing("a reply's header"))
}

impl From<CommandError> for Kind {
    fn from(error: CommandError) -> Kind {
        match error {
            CommandError::Compacted => Kind::Compacted,
            CommandError::FutureRevision => Kind::FutureRevision,
            CommandError::KeyNotFound => Kind::KeyNotFound,
            CommandError::LeaseNotFound => Kind::LeaseNotFound,
            CommandError::LeaseExists => Kind::LeaseExists,
            CommandError::LeaseTtlTooLarge => Kind::LeaseTtlTooLarge,
            CommandError::NoSpace => Kind::NoSpace,
            CommandError::StaleTerm => Kind::OtherTerm,
            CommandError::MemberIdUsed => Kind::DeadMember,
        }
    }
}

fn failure(value: i32) -> Result<CommandError, WireError> {
    match Kind::try_from(value) {
        Ok(Kind::Compacted) => Ok(CommandError::Compacted),
        Ok(Kind::FutureRevision) => Ok(CommandError::FutureRevision),
        Ok(Kind::KeyNotFound) => Ok(CommandError::KeyNotFound),
        Ok(Kind::LeaseNotFound) => Ok(CommandError::LeaseNotFound),
        Ok(Kind::LeaseExists) => Ok(CommandError::LeaseExists),
        Ok(Kind::LeaseTtlTooLarge) => Ok(CommandError::LeaseTtlTooLarge),
        Ok(Kind::NoSpace) => Ok(CommandError::NoSpace),
        Ok(Kind::OtherTerm) => Ok(CommandError::StaleTerm),
        Ok(Kind::DeadMember) => Ok(CommandError::MemberIdUsed),
        Ok(Kind::Unknown) | Err(_) => {
            Err(WireError::UnknownValue { field: "CommandFailure.kind", value })
        }
    }
}

fn range_body(reply: RangeReply) -> RangeResponse {
    RangeResponse { header: None, kvs: key_values(reply.kvs), more: reply.more, count: reply.count }
}

fn put_body(reply: PutReply) -> PutResponse {
    PutResponse { header: None, prev_kv: reply.prev_kv.map(Into::into) }
}

fn delete_range_body(reply: DeleteRangeReply) -> DeleteRangeResponse {
    DeleteRangeResponse {
        header: None,
        deleted: reply.deleted,
        prev_kvs: key_values(reply.prev_kvs),
    }
}

fn txn_body(reply: TxnReply) -> TxnResponse {
    TxnResponse {
        header: Some(header(reply.revision)),
        succeeded: reply.succeeded,
        responses: reply.responses.into_iter().map(op_body).collect(),
    }
}

fn op_body(reply: OpReply) -> ResponseOp {
    let response = match reply {
        OpReply::Range(reply) => Response::ResponseRange(range_body(reply)),
        OpReply::Put(reply) => Response::ResponsePut(put_body(reply)),
        OpReply::DeleteRange(reply) => Response::ResponseDeleteRange(delete_range_body(reply)),
        OpReply::Txn(reply) => Response::ResponseTxn(txn_body(reply)),
    };
    ResponseOp { response: Some(response) }
}

impl From<RangeResponse> for RangeReply {
    fn from(wire: RangeResponse) -> RangeReply {
        RangeReply {
            kvs: wire.kvs.into_iter().map(Into::into).collect(),
            more: wire.more,
            count: wire.count,
        }
    }
}

impl From<PutResponse> for PutReply {
    fn from(wire: PutResponse) -> PutReply {
        PutReply { prev_kv: wire.prev_kv.map(Into::into) }
    }
}

impl From<DeleteRangeResponse> for DeleteRangeReply {
    fn from(wire: DeleteRangeResponse) -> DeleteRangeReply {
        DeleteRangeReply {
            deleted: wire.deleted,
            prev_kvs: wire.prev_kvs.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<TxnResponse> for TxnReply {
    type Error = WireError;

    fn try_from(wire: TxnResponse) -> Result<TxnReply, WireError> {
        Ok(TxnReply {
            revision: revision(wire.header)?,
            succeeded: wire.succeeded,
            responses: wire
                .responses
                .into_iter()
                .map(OpReply::try_from)
                .collect::<Result<_, _>>()?,
        })
    }
}

impl TryFrom<ResponseOp> for OpReply {
    type Error = WireError;

    fn try_from(wire: ResponseOp) -> Result<OpReply, WireError> {
        Ok(match wire.response.ok_or(WireError::Missing("ResponseOp.response"))? {
            Response::ResponseRange(range) => OpReply::Range(range.into()),
            Response::ResponsePut(put) => OpReply::Put(put.into()),
            Response::ResponseDeleteRange(delete) => OpReply::DeleteRange(delete.into()),
            Response::ResponseTxn(txn) => OpReply::Txn(txn.try_into()?),
        })
    }
}

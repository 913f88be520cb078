//! Commands, in the log and in forwarded proposals.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message as _;

use super::error::WireError;
use crate::{
    proto::{
        etcdserverpb::{LeaseGrantRequest, LeaseRevokeRequest},
        peer::{self, CommandBatch, command::Command as Wire},
    },
    types::{
        Command, DesiredReplicas, LeaseCheckpoint, LeaseId, LeaseRef, MemberAttributes, MemberId,
        Ordinal, Revision, Term,
    },
};

/// Field 1, length-delimited: the tag of each command in a `CommandBatch`.
const COMMAND_TAG: u8 = 1 << 3 | 2;

/// Appends one command to an encoded `CommandBatch`. An empty buffer is an empty batch, and encoded
/// batches may be concatenated.
pub fn append_command(batch: &mut BytesMut, command: Command) {
    let wire = peer::Command::from(command);
    let bytes = wire.encoded_len();
    // The tag, and a length of at most ten bytes.
    batch.reserve(1 + 10 + bytes);
    batch.put_u8(COMMAND_TAG);
    wire.encode_length_delimited(batch).expect("a BytesMut grows on demand");
}

/// An encoded `CommandBatch` of these commands.
pub fn encode_commands(commands: impl IntoIterator<Item = Command>) -> Bytes {
    let mut batch = BytesMut::new();
    for command in commands {
        append_command(&mut batch, command);
    }
    batch.freeze()
}

/// Decodes the commands of a `CommandBatch`; their keys and values are slices of it.
///
/// # Errors
/// A batch with an unknown command of a newer version is refused as a whole: skipping a command would
/// make this member diverge from the others.
pub fn decode_commands(batch: Bytes) -> Result<Vec<Command>, WireError> {
    CommandBatch::decode(batch)?.commands.into_iter().map(Command::try_from).collect()
}

impl From<Command> for peer::Command {
    fn from(command: Command) -> peer::Command {
        let wire = match command {
            Command::Put(put) => Wire::Put(put.into()),
            Command::DeleteRange(delete) => Wire::DeleteRange(delete.into()),
            Command::Txn(txn) => Wire::Txn(txn.into()),
            Command::Compact(revision) => Wire::Compaction(revision.into()),
            Command::SetMemberAttributes(attributes) => Wire::Describe(attributes.into()),
            Command::AssignMember { ordinal, nonce } => {
                Wire::AssignMember(peer::AssignMember { ordinal: ordinal.0, nonce })
            }
            Command::AdmitMember(member) => {
                Wire::AdmitMember(peer::AdmitMember { member_id: member.0 })
            }
            Command::SetDesiredReplicas(DesiredReplicas { set, generation, start, replicas }) => {
                Wire::Desire(peer::Desired { set, generation, start, replicas })
            }
            Command::LeaseGrant { id, ttl } => {
                Wire::LeaseGrant(LeaseGrantRequest { id: id.0, ttl })
            }
            Command::LeaseRevoke(id) => Wire::LeaseRevoke(LeaseRevokeRequest { id: id.0 }),
            Command::LeaseExpire { term, leases } => Wire::LeaseExpire(peer::LeaseExpire {
                term: term.0,
                leases: leases.into_iter().map(Into::into).collect(),
            }),
            Command::LeaseCheckpoint { term, checkpoints } => {
                Wire::LeaseCheckpoint(peer::LeaseCheckpoints {
                    term: term.0,
                    checkpoints: checkpoints.into_iter().map(Into::into).collect(),
                })
            }
            Command::LeaseRenew { term, leases } => Wire::LeaseRenew(peer::LeaseRenewals {
                term: term.0,
                leases: leases.into_iter().map(lease_id_to_wire).collect(),
            }),
        };
        peer::Command { command: Some(wire) }
    }
}

impl TryFrom<peer::Command> for Command {
    type Error = WireError;

    fn try_from(wire: peer::Command) -> Result<Command, WireError> {
        Ok(match wire.command.ok_or(WireError::Missing("Command.command"))? {
            Wire::Put(put) => Command::Put(put.into()),
            Wire::DeleteRange(delete) => Command::DeleteRange(delete.into()),
            Wire::Txn(txn) => Command::Txn(txn.try_into()?),
            Wire::Compaction(compaction) => Command::Compact(Revision(compaction.revision)),
            Wire::Describe(attributes) => Command::SetMemberAttributes(attributes.into()),
            Wire::AssignMember(peer::AssignMember { ordinal, nonce }) => {
                Command::AssignMember { ordinal: Ordinal(ordinal), nonce }
            }
            Wire::AdmitMember(peer::AdmitMember { member_id }) => {
                Command::AdmitMember(MemberId(member_id))
            }
            Wire::Desire(peer::Desired { set, generation, start, replicas }) => {
                Command::SetDesiredReplicas(DesiredReplicas { set, generation, start, replicas })
            }
            Wire::LeaseGrant(LeaseGrantRequest { id, ttl }) => {
                Command::LeaseGrant { id: LeaseId(id), ttl }
            }
            Wire::LeaseRevoke(LeaseRevokeRequest { id }) => Command::LeaseRevoke(LeaseId(id)),
            Wire::LeaseExpire(peer::LeaseExpire { term, leases }) => Command::LeaseExpire {
                term: Term(term),
                leases: leases.into_iter().map(Into::into).collect(),
            },
            Wire::LeaseCheckpoint(peer::LeaseCheckpoints { term, checkpoints }) => {
                let checkpoints = checkpoints.into_iter().map(LeaseCheckpoint::try_from);
                Command::LeaseCheckpoint {
                    term: Term(term),
                    checkpoints: checkpoints.collect::<Result<_, _>>()?,
                }
            }
            Wire::LeaseRenew(peer::LeaseRenewals { term, leases }) => Command::LeaseRenew {
                term: Term(term),
                leases: leases.into_iter().map(lease_id_from_wire).collect(),
            },
        })
    }
}

/// Ids are random, so a fixed width is shorter than a varint.
pub fn lease_id_to_wire(id: LeaseId) -> u64 {
    id.0.cast_unsigned()
}

pub fn lease_id_from_wire(bits: u64) -> LeaseId {
    LeaseId(bits.cast_signed())
}

impl From<LeaseRef> for peer::LeaseAt {
    fn from(lease: LeaseRef) -> peer::LeaseAt {
        peer::LeaseAt { id: lease_id_to_wire(lease.id), epoch: lease.epoch }
    }
}

impl From<peer::LeaseAt> for LeaseRef {
    fn from(wire: peer::LeaseAt) -> LeaseRef {
        LeaseRef { id: lease_id_from_wire(wire.id), epoch: wire.epoch }
    }
}

impl From<LeaseCheckpoint> for peer::LeaseCheckpoint {
    fn from(checkpoint: LeaseCheckpoint) -> peer::LeaseCheckpoint {
        let LeaseCheckpoint { lease, remaining } = checkpoint;
        peer::LeaseCheckpoint { lease: Some(lease.into()), remaining }
    }
}

impl TryFrom<peer::LeaseCheckpoint> for LeaseCheckpoint {
    type Error = WireError;

    fn try_from(wire: peer::LeaseCheckpoint) -> Result<LeaseCheckpoint, WireError> {
        let lease = wire.lease.ok_or(WireError::Missing("LeaseCheckpoint.lease"))?.into();
        Ok(LeaseCheckpoint { lease, remaining: wire.remaining })
    }
}

impl From<MemberAttributes> for peer::MemberAttributes {
    fn from(attributes: MemberAttributes) -> peer::MemberAttributes {
        peer::MemberAttributes {
            member_id: attributes.member.0,
            ordinal: attributes.ordinal.0,
            name: attributes.name,
            peer_urls: attributes.peer_urls,
            client_urls: attributes.client_urls,
            boot: attributes.boot,
        }
    }
}

impl From<peer::MemberAttributes> for MemberAttributes {
    fn from(wire: peer::MemberAttributes) -> MemberAttributes {
        MemberAttributes {
            member: MemberId(wire.member_id),
            ordinal: Ordinal(wire.ordinal),
            name: wire.name,
            peer_urls: wire.peer_urls,
            client_urls: wire.client_urls,
            boot: wire.boot,
        }
    }
}

//! Errors of the transport and of replies, in openraft's terms.

use openraft::errors::{NetworkError, RPCError, StreamingError, Unreachable};

use super::{convert::InvalidMessage, transport::TransportError, type_config::Types};
use crate::types::MemberRef;

pub type Rpc = RPCError<Types>;

pub fn rpc_error(e: TransportError) -> Rpc {
    match e {
        TransportError::Unreachable(..) => Rpc::Unreachable(Unreachable::new(&e)),
        TransportError::Broken(..) => Rpc::Network(NetworkError::new(&e)),
    }
}

pub fn invalid(e: InvalidMessage) -> Rpc {
    Rpc::Network(NetworkError::new(&e))
}

pub fn broken_snapshot(to: MemberRef, reason: impl Into<String>) -> StreamingError<Types> {
    StreamingError::Network(NetworkError::new(&TransportError::Broken(to.member, reason.into())))
}

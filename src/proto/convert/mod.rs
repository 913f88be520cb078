//! The one place that maps protobuf to [`crate::types`] and back.
//!
//! Conversions take their argument by value and move its [`bytes::Bytes`]: nothing is copied, so what
//! is decoded shares the buffer it came in. Whoever keeps a piece of it for long copies that piece.
//!
//! What comes off a wire or a disk may be anything: it converts with `TryFrom` and a [`WireError`],
//! never a panic. What we made converts with `From`. There are two forms of an answer:
//!
//! - for clients ([`response`]): with the headers that etcd fills;
//! - for peers (`reply`): one header with the revision, and no more than is needed to make the
//!   first form of it.

mod command;
mod event;
mod log;
mod reply;
mod request;
pub mod response;

pub use command::{
    append_command, decode_commands, encode_commands, lease_id_from_wire, lease_id_to_wire,
};
pub use event::encode_event;

/// Bytes that are not what their reader expects.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("malformed protobuf: {0}")]
    Malformed(#[from] prost::DecodeError),
    /// A part without which the message has no meaning; an unknown member of a `oneof`, which a newer
    /// version may send, looks the same.
    #[error("{0} is missing or unknown")]
    Missing(&'static str),
    #[error("{field}: {value} is not a value we know")]
    UnknownValue { field: &'static str, value: i32 },
}

#[cfg(test)]
mod tests;

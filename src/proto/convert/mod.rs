//! The only place that maps protobuf to [`crate::types`] and back.
//!
//! Conversions take their argument by value and move its [`bytes::Bytes`] without copying, so decoded
//! values share their receive buffer. Code that keeps such a value for long must copy it.
//!
//! Input from a wire or a disk may be anything: it converts with `TryFrom` and a [`WireError`], never a
//! panic. Our own values convert with `From`. A reply has two forms:
//!
//! - for clients ([`response`]): with the headers that etcd fills;
//! - for peers (`reply`): one header with the revision, and just enough to build the first form.

mod command;
mod error;
mod event;
mod log;
mod reply;
mod request;
pub mod response;

pub use command::{decode_commands, encode_commands, lease_id_from_wire, lease_id_to_wire};
pub use error::WireError;
pub use event::encode_event;

#[cfg(test)]
mod tests;

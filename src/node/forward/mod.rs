//! Forwarding: a member sends requests to the leader over one stream, and the leader answers them.
//!
//! ```text
//! proposals, reads, leases ─▶ client ─── LeaderLink (peer) ───▶ server, on the leader
//! ```
//!
//! Each request has an id: a stream carries many requests at once, and answers may overtake each other.

mod client;
mod link;
mod server;

pub use client::{ForwardCall, ForwardOutcome, run_client};
pub use link::{ForwardReplies, LEADER_RETRY_INTERVAL, LeaderLink, LinkError};

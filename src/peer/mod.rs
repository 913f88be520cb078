//! The network between members: the only tonic peer server and client.
//!
//! Implements the ports of `raft`, `node` and `membership` over gRPC. Every call and stream opens with a
//! hello (sender, addressee, cluster, boot counter); a mismatch is refused before Raft sees a byte of the
//! call. The hello also carries the sender's address: a restarted pod is dialed there while DNS still gives
//! its old one.

mod address;
mod channels;
mod client;
mod dial_hints;
mod dialer;
mod hello;
mod metrics;
mod peer_link;
mod server;

pub use address::PeerAddresses;
pub use client::PeerClient;
pub use hello::PeerIdentity;
pub use metrics::{PeerMetrics, PeerTraffic};
pub use server::{PeerService, RunningMember};

//! The network between members: the only tonic peer server and client.
//!
//! Below, `raft`, `node` and `membership` say what they need as ports; here they meet gRPC. Every
//! call and stream opens with a hello (who, for whom, of which cluster, which boot); a mismatch is
//! refused before Raft sees a byte of it.

mod address;
mod client;
mod hello;
mod metrics;
mod server;

pub use address::{AddressError, PeerAddresses};
pub use client::PeerClient;
pub use hello::Me;
pub use metrics::{PeerMetrics, PeerTraffic};
pub use server::{PeerService, Running};

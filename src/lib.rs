//! Ordinal: a replicated key-value store that is at home in a Kubernetes StatefulSet.
//!
//! A put comes in at [`api`], goes down [`node`] → [`raft`] → [`state`], and is kept by [`wal`] and
//! [`storage`]. `ARCHITECTURE.md` has the map; `tests/architecture.rs` keeps it true. Only
//! [`server`] knows how the parts are put together.
//!
//! The crate publishes only the client library, the wire types, and the parts of its binaries.

pub mod client;
pub mod config;
pub mod ctl;
pub mod proto;
pub mod server;

mod api;
mod clock;
mod disk;
mod fault;
#[cfg(feature = "k8s")]
mod k8s;
mod lane;
mod membership;
mod metrics;
mod node;
mod peer;
mod raft;
mod rng;
mod shutdown;
mod state;
mod storage;
mod types;
mod wal;
mod watch;

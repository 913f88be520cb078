//! Ordinal: a replicated key-value store that is at home in a Kubernetes StatefulSet.
//!
//! A put comes in at [`api`], goes down [`node`] → [`raft`] → [`state`], and is kept by [`wal`] and
//! [`storage`]. `ARCHITECTURE.md` has the map; `tests/architecture.rs` keeps it true. Only
//! [`server`] knows how the parts are put together.

pub mod api;
pub mod client;
pub mod clock;
pub mod config;
pub mod ctl;
pub mod disk;
pub mod fault;
#[cfg(feature = "k8s")]
pub mod k8s;
pub mod lane;
pub mod membership;
pub mod metrics;
pub mod node;
pub mod peer;
pub mod proto;
pub mod raft;
pub mod rng;
pub mod server;
pub mod state;
pub mod stop;
pub mod storage;
pub mod types;
pub mod wal;
pub mod watch;

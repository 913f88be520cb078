//! The composition root: wires the layers together, and defines the order of start and stop.
//!
//! ```text
//! start (boot.rs):     listeners → data directory → peer and admin servers → bootstrap → wal → storage
//!                      → raft → watches → node → bootstrap complete → a leader, or five seconds without
//!                      → client server → ready → background tasks
//! stop (lifecycle.rs): permission to stop, or leadership transferred → not ready → client server drains
//!                      → removed, if the member leaves → background tasks → node → watches → raft
//!                      → peer and admin servers drain → storage → wal
//! ```
//!
//! A founder whose founding is not confirmed yet answers Raft's messages only once it is. Every other
//! member answers them as soon as its node has started. A fault ends the process at any point, without
//! this order: the member recovers at its next start.

mod admin;
mod boot;
mod connections;
mod context;
mod dev;
mod grpc;
mod lifecycle;
mod listen;
mod member_config;
#[cfg(feature = "otlp")]
mod otlp;
mod panics;
#[cfg(feature = "k8s")]
mod pod;
#[cfg(not(feature = "k8s"))]
#[path = "no_pod.rs"]
mod pod;
mod pod_creation;
mod readiness;
mod removal;
mod scrape;
mod serve;
mod servers;
mod signals;
mod sizing;
mod stack;
mod stateful_pod;
mod storage_adapter;
mod tasks;
mod telemetry;

pub use member_config::{MemberConfig, PodContext};
pub use panics::end_process_on_panic;
pub use servers::Ports;
pub use telemetry::{Telemetry, init as init_telemetry};

use futures_util::future::LocalBoxFuture;

use crate::config;

/// Runs a whole cluster on loopback until Ctrl-C. Boxed, so that the server is compiled here, in parallel,
/// and not again in each program.
pub fn dev(args: config::Dev) -> LocalBoxFuture<'static, anyhow::Result<()>> {
    Box::pin(dev::dev(args))
}

/// Runs one member until SIGTERM or SIGINT.
pub fn serve(args: config::Serve) -> LocalBoxFuture<'static, anyhow::Result<()>> {
    Box::pin(serve::serve(args))
}

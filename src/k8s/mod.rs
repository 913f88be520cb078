//! Kubernetes: what membership asks it, and what it is told. The only importer of its client.
//!
//! ```text
//! StatefulSet  ── read ──▶ intent: how many members, or none      objects.rs
//! ConfigMap    ◀─ swap ──▶ claim: who founded the cluster          objects.rs
//! Lease        ◀─ swap ─── the leader's pod, term and cluster      naming.rs, mirror.rs
//! Service      ◀─ swap ─── a selector of the leader's pod          naming.rs, mirror.rs
//! Event        ◀─ create ─ what a member waits for, joined, left   events.rs
//! ```
//!
//! Invariants:
//! - Nothing here is on the path of data. Each call has a limit; whoever waits for one is membership.
//! - Objects are read anew before each decision, and written only as they were read: a merge patch
//!   that names their `resourceVersion`. It leaves fields alone that are not ours, which a whole
//!   object through types of an older API would lose.
//! - Nothing is created but Events: the other objects come with the manifests, so that a pod may touch
//!   these by name and no others.
//! - Only a `NotFound` of the API server about the very object counts as its absence, for absence means
//!   "stop" to a member.
//! - An object names one leader for a term, and never an earlier term than it named before.

mod connection;
mod events;
mod kubernetes;
mod metrics;
mod mirror;
mod naming;
mod objects;
mod outage;
#[cfg(test)]
mod tests;

pub use connection::ConnectError;
pub use kubernetes::{Kubernetes, KubernetesOptions};
pub use metrics::KubernetesMetrics;
pub use mirror::{Mirror, MirrorOptions};

//! Kubernetes as the orchestrator. The only module that imports its client.
//!
//! ```text
//! StatefulSet  ── read ──▶ intent: the desired replicas            objects.rs
//! Pod          ── read ──▶ the grace period                        termination.rs
//! Endpoints    ── list ──▶ whether clients are sent to the pod     termination.rs
//! ConfigMap    ◀─ swap ──▶ the bootstrap record                    objects.rs
//! Claims       ── list ──▶ volumes of a former cluster             claims.rs
//! Lease        ◀─ swap ─── the leader's pod, term and cluster      leader_annotations.rs, mirror.rs
//! Service      ◀─ swap ─── a selector of the leader's pod          leader_annotations.rs, mirror.rs
//! Event        ◀─ create ─ waiting, joined, left members           events.rs
//! ```
//!
//! Invariants:
//! - No read or write of a client depends on this module. Each call has a time limit.
//! - Each decision reads its object from the store, and writes with a merge patch that names the
//!   `resourceVersion` it has read. A merge patch preserves the fields of other owners; replacing the
//!   object through the types of an older API would lose them.
//! - A pod creates Events only. The manifests create the other objects, so the role allows a pod to
//!   change these by name and no others.
//! - Only a `NotFound` of the API server about the object itself counts as its absence, because a
//!   member stops when the StatefulSet is absent.
//! - Only an API server that knows its roles can forbid the read of the StatefulSet, for the same reason.
//! - An object names one leader per term, and never an earlier term than before.

mod claims;
mod connection;
mod events;
mod kubernetes;
mod leader_annotations;
mod metrics;
mod mirror;
mod objects;
mod outage;
mod recent_events;
mod termination;
#[cfg(test)]
mod tests;

pub use kubernetes::{Kubernetes, KubernetesOptions};
pub use mirror::{Mirror, MirrorOptions};

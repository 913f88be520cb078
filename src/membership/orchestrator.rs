//! The port to the orchestrator of the pods. `k8s` implements it.
//!
//! No read or write of a client depends on it. While the orchestrator does not answer, the membership
//! stays the same, and clients notice nothing.

use std::{collections::BTreeSet, fmt, time::Duration};

use futures_util::future::BoxFuture;

use crate::types::{ClusterId, DesiredReplicas, MemberId, Ordinal, Term};

/// The orchestrator: it decides the number of pods.
pub trait Orchestrator: Send + Sync + fmt::Debug {
    /// Reads the current intent, never a cached one. An orchestrator that does not know its permissions
    /// yet is unreachable; it forbids nothing.
    fn intent(&self) -> BoxFuture<'_, Result<Intent, OrchestratorError>>;

    /// Reads the current bootstrap record. `None`: its object is missing.
    fn bootstrap_record(&self) -> BoxFuture<'_, Result<Option<StoredRecord>, OrchestratorError>>;

    /// Writes the bootstrap record if it still has `version`. False: it has changed.
    fn write_bootstrap_record<'a>(
        &'a self,
        record: BootstrapRecord,
        version: &'a str,
    ) -> BoxFuture<'a, Result<bool, OrchestratorError>>;

    /// Creates the object of a deleted bootstrap record with this one. An existing object stays as it is.
    fn create_bootstrap_record(
        &self,
        record: BootstrapRecord,
    ) -> BoxFuture<'_, Result<(), OrchestratorError>>;

    /// The claims of this set of pods that may hold the data of a former cluster, of every ordinal, desired
    /// or not. Never cached.
    fn former_claims(&self) -> BoxFuture<'_, Result<Vec<FormerClaim>, OrchestratorError>>;

    /// Stores an operator's order in the bootstrap record, if that still has `version`. The next `formed` or
    /// empty record ends the order. False: the record has changed.
    fn order_founding<'a>(
        &'a self,
        order: &'a FoundingOrder,
        version: &'a str,
    ) -> BoxFuture<'a, Result<bool, OrchestratorError>>;

    /// The last published leader, if leaders are published. It may have stopped long ago.
    fn last_leader(&self) -> BoxFuture<'_, Result<Option<Ordinal>, OrchestratorError>>;

    /// Whether the orchestrator still sends clients to this pod: no endpoint of it is withdrawn yet.
    fn endpoint_published(&self) -> BoxFuture<'_, Result<bool, OrchestratorError>>;

    /// The termination of this pod, as the orchestrator plans it now. `None`: it knows no such pod.
    fn termination(&self) -> BoxFuture<'_, Result<Option<Termination>, OrchestratorError>>;

    /// Reads how many pods exist, if the orchestrator creates them one after the other, each once all
    /// before it are ready. `None`: all pods exist, or they are created in parallel.
    fn pod_creation(&self) -> BoxFuture<'_, Result<Option<PodCreation>, OrchestratorError>> {
        Box::pin(async { Ok(None) })
    }

    /// Publishes an Event, best effort, without waiting for its delivery.
    fn emit(&self, event: ClusterEvent);
}

/// The orchestrator's request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Intent {
    Scale(DesiredReplicas),
    /// The set is scaled to zero, or deleted: all members stop and keep their data.
    Hibernate,
}

/// An ordered creation of pods that is not complete: the next pod waits until all others are ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PodCreation {
    pub first: Ordinal,
    /// The pods that exist.
    pub created: u32,
    pub replicas: u32,
}

impl PodCreation {
    /// Whether the pod exists already.
    pub fn has_created(&self, ordinal: Ordinal) -> bool {
        ordinal.0.checked_sub(self.first.0).is_some_and(|nth| nth < self.created)
    }
}

/// How a pod terminates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Termination {
    /// The time from the termination signal to the kill.
    pub grace: Duration,
    /// The pod is being deleted, so its endpoints are withdrawn. Otherwise only its readiness does that: its
    /// node shuts down, or a probe has failed.
    pub is_deleted: bool,
}

/// The single record of the cluster's founder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootstrapRecord {
    /// No founder yet.
    Empty,
    /// This member is founding the cluster.
    Claimed { cluster: ClusterId, member: MemberId, ordinal: Ordinal },
    /// The cluster exists. Final.
    Formed { cluster: ClusterId },
}

/// A bootstrap record as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRecord {
    pub record: BootstrapRecord,
    /// The object's version; opaque.
    pub version: String,
    /// The time from the creation of the set of pods to that of the object. A large one means that the
    /// object was deleted and recreated.
    pub younger_by: Duration,
    pub order: Option<FoundingOrder>,
}

/// An operator's order to found a cluster, despite these former claims and no others: volumes that appear
/// later are not among them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FoundingOrder {
    pub despite: BTreeSet<String>,
}

impl FoundingOrder {
    pub fn new<'a>(claims: impl IntoIterator<Item = &'a FormerClaim>) -> FoundingOrder {
        FoundingOrder { despite: claims.into_iter().map(|claim| claim.name.clone()).collect() }
    }

    /// Reads `despite CLAIM,CLAIM`, which a person may have written. `None`: no order.
    #[cfg(any(test, feature = "k8s"))]
    pub fn parse(text: &str) -> Option<FoundingOrder> {
        let names = text.trim().strip_prefix(DESPITE)?;
        if names.starts_with(|c: char| !c.is_whitespace()) {
            return None;
        }
        let names = names.split(|c: char| c == ',' || c.is_whitespace());
        let despite = names.filter(|name| !name.is_empty()).map(str::to_string).collect();
        Some(FoundingOrder { despite })
    }
}

impl fmt::Display for FoundingOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(DESPITE)?;
        for (i, name) in self.despite.iter().enumerate() {
            write!(f, "{}{name}", if i == 0 { ' ' } else { ',' })?;
        }
        Ok(())
    }
}

const DESPITE: &str = "despite";

/// The claim of a volume that may hold the data of a former cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormerClaim {
    pub name: String,
    pub ordinal: Ordinal,
    pub origin: ClaimOrigin,
}

/// The origin that makes a claim suspicious: a new cluster has claims that are younger than its set and its
/// record, and empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimOrigin {
    OlderThanSet,
    /// The record was deleted and recreated.
    OlderThanRecord,
    /// From a data source: a volume snapshot, or another volume.
    Restored,
    /// It named its volume, or selected it by labels, before the orchestrator bound it: volumes that were
    /// made by hand, or that a backup restored.
    Prebound,
    /// The asking pod's own volume was replaced, while the record was emptied by hand.
    OlderThanOwn,
}

impl fmt::Display for ClaimOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ClaimOrigin::OlderThanSet => "is older than the StatefulSet",
            ClaimOrigin::OlderThanRecord => "is older than the bootstrap record",
            ClaimOrigin::Restored => "was restored from a data source",
            ClaimOrigin::Prebound => "was given its volume by a person or a restore",
            ClaimOrigin::OlderThanOwn => "is much older than the claim of this pod",
        })
    }
}

/// A call to the orchestrator failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OrchestratorError {
    #[error("Kubernetes is unreachable: {0}")]
    Unreachable(String),
    #[error("Kubernetes refuses the request: {0}")]
    Refused(String),
    /// The pod lacks the permission, or its token is not valid: it never was permitted, or no longer is.
    #[error(
        "Kubernetes forbids the request: {0} (the manifests have the ServiceAccount, Role and \
         RoleBinding of the pod)"
    )]
    Forbidden(String),
    #[error("{object} is malformed: {why}")]
    Malformed { object: String, why: String },
}

/// An event for operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterEvent {
    /// One CamelCase word: `Waiting`, `Joined`, `Replaced`, `Left`, `Formed`, `Refused`, `Fenced`,
    /// `Restored`.
    pub reason: &'static str,
    pub message: String,
    /// Whether an operator must act.
    pub warning: bool,
    /// Whether the event concerns the whole set instead of this pod.
    pub of_set: bool,
}

impl ClusterEvent {
    /// An event of this pod.
    pub fn of_pod(reason: &'static str, message: String) -> ClusterEvent {
        ClusterEvent { reason, message, warning: false, of_set: false }
    }

    /// An event of the whole set.
    pub fn of_set(reason: &'static str, message: String) -> ClusterEvent {
        ClusterEvent { of_set: true, ..ClusterEvent::of_pod(reason, message) }
    }

    /// A warning of this pod.
    pub fn warning(reason: &'static str, message: String) -> ClusterEvent {
        ClusterEvent { warning: true, ..ClusterEvent::of_pod(reason, message) }
    }

    /// A warning of the whole set.
    pub fn set_warning(reason: &'static str, message: String) -> ClusterEvent {
        ClusterEvent { of_set: true, ..ClusterEvent::warning(reason, message) }
    }
}

/// The active leader, for publication. A leader without a quorum is not active.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LeaderUpdate {
    pub cluster: ClusterId,
    pub term: Term,
    pub leader: Option<Ordinal>,
    /// Whether this member is the leader.
    pub is_me: bool,
}

/// The last published leader. An unreachable API server counts as none.
pub async fn last_leader(pods: &dyn Orchestrator) -> Option<Ordinal> {
    match pods.last_leader().await {
        Ok(leader) => leader,
        Err(e) => {
            tracing::debug!(error = %e, "last leader unknown");
            None
        }
    }
}

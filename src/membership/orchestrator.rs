//! What membership asks of whoever runs the pods: the port that `k8s` implements.
//!
//! Nothing here is on the path of data. Where the orchestrator does not answer, membership stays as it
//! is and clients notice nothing.

use std::{fmt, time::Duration};

use futures_util::future::BoxFuture;

use crate::types::{ClusterId, Desired, MemberId, Ordinal, Term};

/// Whoever decides how many pods there are.
pub trait Orchestrator: Send + Sync + fmt::Debug {
    /// Asks anew, never a cache.
    fn intent(&self) -> BoxFuture<'_, Result<Intent, OrchestratorError>>;

    /// The one claim of who founds the cluster, as of now.
    fn claim(&self) -> BoxFuture<'_, Result<Option<Claimed>, OrchestratorError>>;

    /// Writes the claim if it still is at `version`. False: somebody else was faster.
    fn write_claim<'a>(
        &'a self,
        claim: Claim,
        version: &'a str,
    ) -> BoxFuture<'a, Result<bool, OrchestratorError>>;

    /// Who was told to lead last, where that is told: whom to ask if nobody known answers. It may be
    /// long gone.
    fn last_leader(&self) -> BoxFuture<'_, Result<Option<Ordinal>, OrchestratorError>>;

    /// Tells people (an Event), best effort: whoever says it does not wait to hear that it was said.
    fn say(&self, news: News);
}

/// What is to become of the pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Intent {
    /// So many pods are wanted.
    Scale(Desired),
    /// The set is gone or going, or scaled to nothing: all stop, and keep their data.
    Hibernate,
}

/// Who may found the cluster, and who did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// Nobody yet.
    Empty,
    /// This member is about to.
    Claimed { cluster: ClusterId, member: MemberId, ordinal: Ordinal },
    /// It did: there is such a cluster, for ever.
    Formed { cluster: ClusterId },
}

/// A claim as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    pub claim: Claim,
    /// Of the object; opaque.
    pub version: String,
    /// How much younger the object is than the set of pods: somebody may have deleted it and made a new one.
    pub younger_by: Duration,
}

/// Why the orchestrator gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OrchestratorError {
    #[error("Kubernetes does not answer: {0}")]
    Unreachable(String),
    #[error("Kubernetes refuses: {0}")]
    Refused(String),
    #[error("{what} cannot be understood: {why}")]
    Unreadable { what: String, why: String },
}

/// Something that people who look at the pods should see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// One CamelCase word: `Waiting`, `Joined`, `Replaced`, `Left`, `Formed`, `Refused`.
    pub reason: &'static str,
    pub message: String,
    /// Whether it needs somebody's attention.
    pub warning: bool,
    /// About the whole set, not this pod alone.
    pub of_set: bool,
}

impl News {
    /// About this pod.
    pub fn of_pod(reason: &'static str, message: String) -> News {
        News { reason, message, warning: false, of_set: false }
    }

    /// About all of them.
    pub fn of_set(reason: &'static str, message: String) -> News {
        News { of_set: true, ..News::of_pod(reason, message) }
    }

    /// About this pod, and somebody should look.
    pub fn warning(reason: &'static str, message: String) -> News {
        News { warning: true, ..News::of_pod(reason, message) }
    }
}

/// Who leads: what is mirrored where others look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LeaderNews {
    pub cluster: ClusterId,
    pub term: Term,
    pub leader: Option<Ordinal>,
    /// Whether it is this very member.
    pub is_me: bool,
}

/// Who led last, if it is told. An API server that is away hinders nobody.
pub async fn led_last(pods: &dyn Orchestrator) -> Option<Ordinal> {
    match pods.last_leader().await {
        Ok(told) => told,
        Err(e) => {
            tracing::debug!(error = %e, "who led last is not known");
            None
        }
    }
}

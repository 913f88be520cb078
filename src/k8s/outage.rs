//! An outage of one purpose of Kubernetes: logged once, with a backoff between retries.

use std::{mem, time::Duration};

use tokio::time::Instant;

use crate::membership::OrchestratorError;

/// The delays between retries.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    pub initial: Duration,
    /// The delay doubles up to this limit while Kubernetes is unreachable.
    pub max: Duration,
    /// The limit while Kubernetes refuses. A refusal may last until an operator acts, or for a second:
    /// a starting API server forbids everything until it has read its roles.
    pub max_refused: Duration,
}

/// The failures since the last success.
#[derive(Debug)]
pub struct Outage {
    /// The purpose of the failing calls, for the log.
    purpose: String,
    backoff: Backoff,
    failing: Option<Failing>,
}

#[derive(Debug)]
struct Failing {
    since: Instant,
    next_delay: Duration,
    kind: mem::Discriminant<OrchestratorError>,
}

impl Outage {
    pub fn new(purpose: String, backoff: Backoff) -> Outage {
        Outage { purpose, backoff, failing: None }
    }

    /// Records a failure, and returns the delay before the next try. Logs the first failure of each kind.
    pub fn failed(&mut self, error: &OrchestratorError) -> Duration {
        let kind = mem::discriminant(error);
        let initial = self.backoff.initial;
        let is_new = self.failing.as_ref().is_none_or(|failing| failing.kind != kind);
        let first = || Failing { since: Instant::now(), next_delay: initial, kind };
        let failing = self.failing.get_or_insert_with(first);
        if is_new {
            tracing::warn!(%error, purpose = self.purpose, "Kubernetes calls fail, retrying");
            (failing.kind, failing.next_delay) = (kind, initial);
        }
        let max = match error {
            OrchestratorError::Unreachable(_) => self.backoff.max,
            OrchestratorError::Refused(_)
            | OrchestratorError::Forbidden(_)
            | OrchestratorError::Malformed { .. } => self.backoff.max_refused,
        };
        let delay = failing.next_delay;
        failing.next_delay = (delay * 2).min(max);
        delay
    }

    /// Records a success.
    pub fn recovered(&mut self) {
        if let Some(failing) = self.failing.take() {
            let lasted = failing.since.elapsed();
            tracing::info!(?lasted, purpose = self.purpose, "Kubernetes calls succeed again");
        }
    }
}

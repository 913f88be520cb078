//! A stretch of time in which Kubernetes does not do what it is asked: said once, and how long to wait.

use std::{mem, time::Duration};

use tokio::time::Instant;

use crate::membership::OrchestratorError;

/// The pauses between tries.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pauses {
    pub first: Duration,
    /// They double up to this, while Kubernetes does not answer.
    pub longest: Duration,
    /// The same where it answers "no". That may be for good, until somebody changes something; or for a
    /// second: an API server that starts forbids all, until it has read its roles.
    pub longest_refused: Duration,
}

/// What went wrong since the last success, if anything did.
#[derive(Debug)]
pub(super) struct Outage {
    /// What does not work meanwhile, for the log.
    what: String,
    pauses: Pauses,
    since: Option<Began>,
}

#[derive(Debug)]
struct Began {
    at: Instant,
    next_pause: Duration,
    kind: mem::Discriminant<OrchestratorError>,
}

impl Outage {
    pub(super) fn new(what: String, pauses: Pauses) -> Outage {
        Outage { what, pauses, since: None }
    }

    /// A try failed. Gives the pause before the next one. Logs the first one, and the first of another kind.
    pub(super) fn failed(&mut self, error: &OrchestratorError) -> Duration {
        let kind = mem::discriminant(error);
        let first = self.pauses.first;
        let fresh = || Began { at: Instant::now(), next_pause: first, kind };
        let news = self.since.as_ref().is_none_or(|began| began.kind != kind);
        let began = self.since.get_or_insert_with(fresh);
        if news {
            tracing::warn!(%error, "{}: does not work; tried again until it does", self.what);
            (began.kind, began.next_pause) = (kind, first);
        }
        let longest = match error {
            OrchestratorError::Unreachable(_) => self.pauses.longest,
            OrchestratorError::Refused(_) | OrchestratorError::Unreadable { .. } => {
                self.pauses.longest_refused
            }
        };
        let pause = began.next_pause;
        began.next_pause = (pause * 2).min(longest);
        pause
    }

    /// A try succeeded.
    pub(super) fn over(&mut self) {
        if let Some(began) = self.since.take() {
            let lasted = began.at.elapsed();
            tracing::info!(?lasted, "{}: works again", self.what);
        }
    }
}

//! Reads the StatefulSet of a pod that terminates, and detects that its manifests are being deleted.
//!
//! `kubectl delete -k` deletes the ServiceAccount and the Role before the StatefulSet. When the pods receive
//! SIGTERM, they can no longer read the StatefulSet that is gone. So during a shutdown the API server's
//! refusal of a permission that this process had counts as the deletion of the StatefulSet.
//!
//! A starting API server forbids every request until it has read its roles. So the refusal must be of one
//! that knows its roles ([`Orchestrator::intent`]), and last for [`REVOKED_AFTER`], over several requests,
//! without another answer in between.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::decision::{Action, Observation, Request, Restarting, StopReason, next};
use crate::{
    membership::orchestrator::{Intent, Orchestrator, OrchestratorError},
    types::Ordinal,
};

/// A refusal counts as a deletion after this time.
const REVOKED_AFTER: Duration = Duration::from_secs(2);
/// The refusals that it takes at least: a process that was suspended saw nothing in between.
const REFUSALS_MIN: u32 = 5;
/// Interval of requests while the API server does not answer, or refuses.
pub const RETRY_INTERVAL: Duration = Duration::from_millis(100);
/// Interval of requests while a member waits for its stop.
pub const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Interval of requests of a running member that has not read its StatefulSet yet.
const FIRST_READ_INTERVAL: Duration = Duration::from_secs(10);

/// The StatefulSet of this pod.
#[derive(Debug)]
pub struct OwnSet {
    pods: Arc<dyn Orchestrator>,
    me: Ordinal,
    answers: Mutex<Answers>,
}

/// The answers so far, as far as they decide whether the permission is revoked.
#[derive(Debug, Default)]
struct Answers {
    /// The StatefulSet was read, so this process was permitted.
    was_permitted: bool,
    /// The uninterrupted refusals: since when, and how many.
    forbidden: Option<(Instant, u32)>,
}

impl Answers {
    /// Records an answer to a request that began at `asked`. Returns whether the permission is revoked.
    fn record(&mut self, answer: &Result<Intent, OrchestratorError>, asked: Instant) -> bool {
        match answer {
            Err(OrchestratorError::Forbidden(_)) => {
                let (since, count) = self.forbidden.get_or_insert((asked, 0));
                *count += 1;
                let lasts = asked.saturating_duration_since(*since) >= REVOKED_AFTER;
                self.was_permitted && lasts && *count >= REFUSALS_MIN
            }
            Ok(_) => {
                *self = Answers { was_permitted: true, forbidden: None };
                false
            }
            // The API server that returns after a failure may be one that has just started.
            Err(_) => {
                self.forbidden = None;
                false
            }
        }
    }
}

impl OwnSet {
    pub fn new(pods: Arc<dyn Orchestrator>, me: Ordinal) -> OwnSet {
        OwnSet { pods, me, answers: Mutex::default() }
    }

    pub fn pods(&self) -> &dyn Orchestrator {
        &*self.pods
    }

    /// Reads the StatefulSet once, while the member runs: otherwise a later refusal proves nothing.
    pub async fn learn_permission(&self) {
        while let (_, Err(error)) = self.read().await {
            tracing::debug!(%error, "own StatefulSet not read yet");
            tokio::time::sleep(FIRST_READ_INTERVAL).await;
        }
    }

    /// Reads the current request.
    pub async fn read(&self) -> (Request, Result<Intent, OrchestratorError>) {
        let asked = Instant::now();
        let answer = self.pods.intent().await;
        let is_revoked = self.answers().record(&answer, asked);
        let request = match &answer {
            Err(_) if is_revoked => Request::Revoked,
            Err(_) => Request::Unknown,
            Ok(Intent::Hibernate) => Request::Hibernate,
            Ok(Intent::Scale(desired)) if desired.includes(self.me) => Request::Included,
            Ok(Intent::Scale(_)) => Request::Excluded,
        };
        (request, answer)
    }

    /// The interval until the next request.
    pub fn interval(&self) -> Duration {
        if self.answers().forbidden.is_some() { RETRY_INTERVAL } else { POLL_INTERVAL }
    }

    /// Resolves once the StatefulSet asks a restarting member to stop at once.
    pub async fn hibernation(&self) -> StopReason {
        loop {
            tokio::time::sleep(self.interval()).await;
            let (request, _) = self.read().await;
            let observed = Restarting { request, ..Restarting::default() };
            if let Action::Stop(reason) = next(Observation::Restarting(observed)) {
                return reason;
            }
        }
    }

    fn answers(&self) -> std::sync::MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::DesiredReplicas;

    fn forbidden() -> Result<Intent, OrchestratorError> {
        Err(OrchestratorError::Forbidden("403".into()))
    }

    fn unreachable() -> Result<Intent, OrchestratorError> {
        Err(OrchestratorError::Unreachable("away".into()))
    }

    fn readable() -> Result<Intent, OrchestratorError> {
        let set = "a".into();
        Ok(Intent::Scale(DesiredReplicas { set, generation: 1, start: 0, replicas: 3 }))
    }

    /// The first moment, in milliseconds, at which the permission counts as revoked. One answer each 100 ms.
    fn revoked_at(
        was_permitted: bool,
        answer: impl Fn(u64) -> Result<Intent, OrchestratorError>,
    ) -> Option<u64> {
        let mut answers = Answers { was_permitted, forbidden: None };
        let start = Instant::now();
        let mut moments = (0..100).map(|i| i * 100);
        moments.find(|&ms| answers.record(&answer(ms), start + Duration::from_millis(ms)))
    }

    #[test]
    fn a_lasting_refusal_of_a_former_permission_is_a_revocation() {
        assert_eq!(revoked_at(true, |_| forbidden()), Some(2000));
        // A role that was never granted proves nothing.
        assert_eq!(revoked_at(false, |_| forbidden()), None);
        // The permission may be learned during the shutdown.
        let once = |ms| if ms == 500 { readable() } else { forbidden() };
        assert_eq!(revoked_at(false, once), Some(2600));
    }

    /// Otherwise a rolling update during a restart of the API server would stop members without a permit.
    #[test]
    fn a_starting_api_server_revokes_nothing() {
        let starts = |ms| match ms {
            0..3000 => unreachable(),
            3000..4900 => forbidden(),
            _ => readable(),
        };
        assert_eq!(revoked_at(true, starts), None);
        let flaps = |ms| if ms % 1900 < 100 { unreachable() } else { forbidden() };
        assert_eq!(revoked_at(true, flaps), None);
        let other = |ms| match ms % 200 {
            0 => forbidden(),
            _ => Err(OrchestratorError::Refused("422".into())),
        };
        assert_eq!(revoked_at(true, other), None);
    }

    #[test]
    fn a_suspended_process_needs_several_refusals() {
        let mut answers = Answers { was_permitted: true, forbidden: None };
        let start = Instant::now();
        let revoked: Vec<bool> = (0..6)
            .map(|i| answers.record(&forbidden(), start + Duration::from_secs(60) * i))
            .collect();
        assert_eq!(revoked, [false, false, false, false, true, true]);
    }
}

//! A running member and the bootstrap record: the record decides which cluster the pods belong to.
//!
//! | the record | the leader | any other member |
//! |---|---|---|
//! | is formed, of this cluster | continues | continues |
//! | is formed, of another cluster, in two reads | is fenced | is fenced |
//! | is empty or claimed | writes it again | continues |
//! | is deleted, in two checks in a row | creates it again | continues |
//! | is malformed, or cannot be read | continues | continues |
//!
//! A *fenced* member stops serving and ends, and its next start is refused. So of two clusters behind one
//! Service only one serves: a member that recovers alone writes the record before it serves
//! ([recover](super::bootstrap)).
//!
//! Invariants:
//! - A formed record of another cluster is never overwritten, and a deleted record is only created: leaders
//!   of two clusters cannot take turns.
//! - A pristine pod never creates the record: without a record no pod founds. A recovering member does.
//! - Without Kubernetes every member continues: no read or write of a client depends on it.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    identity::Identity,
    orchestrator::{BootstrapRecord, ClusterEvent, Orchestrator, OrchestratorError},
    other_formed::OtherFormed,
};
use crate::{
    raft::Raft,
    types::{Ordinal, Term},
};

/// Interval between two looks at the leadership.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// The leader reads the record at this interval, and at once when its leadership begins.
const LEADER_INTERVAL: Duration = Duration::from_secs(2);
/// Every other member: the leader may have no access to Kubernetes, and a minority has no leader.
const MEMBER_INTERVAL: Duration = Duration::from_secs(10);
/// Between the two reads that fence a member. An operator may correct the record meanwhile.
const CONFIRM_AFTER: Duration = Duration::from_millis(200);
/// A refusal that lasts this long needs an operator. A starting API server forbids everything until it has
/// read its roles.
const REFUSAL_LASTS_AFTER: Duration = Duration::from_secs(10);
/// Interval of retries then.
const REFUSED_RETRY_INTERVAL: Duration = Duration::from_secs(30);
/// The same problem is reported again after this time: Events expire.
const REPORT_AGAIN_AFTER: Duration = Duration::from_secs(600);

/// A member that must not serve, because the bootstrap record names another cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("ordinal {ordinal} stops serving: {record}")]
pub struct Fenced {
    pub ordinal: Ordinal,
    pub record: OtherFormed,
}

/// Resolves once the record fences this member.
pub async fn wait_until_fenced(
    me: &Identity,
    raft: &Raft,
    pods: Option<&dyn Orchestrator>,
) -> Fenced {
    let Some(pods) = pods else { return std::future::pending().await };
    let mut guard = RecordGuard::new(me);
    let mut schedule = Schedule::default();
    loop {
        let now = raft.leadership();
        let leads = now.is_mine().then_some(now.term);
        if schedule.is_due(leads, Instant::now())
            && let Some(fenced) = guard.check(pods, leads.is_some(), Instant::now()).await
        {
            return fenced;
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// The time of the next check.
#[derive(Debug, Default)]
struct Schedule {
    last: Option<Instant>,
    /// The term of the last check, if this member led then.
    led_in: Option<Term>,
}

impl Schedule {
    /// `leads`: the term that this member leads in.
    fn is_due(&mut self, leads: Option<Term>, now: Instant) -> bool {
        let interval = if leads.is_some() { LEADER_INTERVAL } else { MEMBER_INTERVAL };
        let begins = leads.is_some() && leads != self.led_in;
        let is_due = begins || self.last.is_none_or(|last| now.duration_since(last) >= interval);
        if is_due {
            (self.last, self.led_in) = (Some(now), leads);
        }
        is_due
    }
}

/// One member's checks of the record.
#[derive(Debug)]
pub struct RecordGuard {
    me: Identity,
    /// Normally [`CONFIRM_AFTER`].
    pub confirm_after: Duration,
    /// The last check of this leader found no record.
    was_missing: bool,
    /// The first and the last refusal of a write, without a success in between.
    refused: Option<(Instant, Instant)>,
    /// The last reported problem.
    reported: Option<(String, Instant)>,
}

impl RecordGuard {
    pub fn new(me: &Identity) -> RecordGuard {
        RecordGuard {
            me: me.clone(),
            confirm_after: CONFIRM_AFTER,
            was_missing: false,
            refused: None,
            reported: None,
        }
    }

    /// Reads the record; as the leader, also restores it.
    pub async fn check(
        &mut self,
        pods: &dyn Orchestrator,
        leads: bool,
        now: Instant,
    ) -> Option<Fenced> {
        let read = pods.bootstrap_record().await;
        let was_missing =
            std::mem::replace(&mut self.was_missing, leads && matches!(read, Ok(None)));
        match read {
            Ok(Some(stored)) => match stored.record {
                BootstrapRecord::Formed { cluster } if cluster == self.me.cluster => {
                    (self.refused, self.reported) = (None, None);
                }
                BootstrapRecord::Formed { .. } => {
                    tokio::time::sleep(self.confirm_after).await;
                    return self.confirm(pods).await;
                }
                // An empty record permits a second cluster.
                BootstrapRecord::Empty | BootstrapRecord::Claimed { .. } if leads => {
                    self.restore(pods, Some(stored.version), now).await;
                }
                BootstrapRecord::Empty | BootstrapRecord::Claimed { .. } => {}
            },
            // `kubectl delete -k` deletes the record before the StatefulSet.
            Ok(None) if leads && was_missing => self.restore(pods, None, now).await,
            Ok(None) => {}
            Err(error @ OrchestratorError::Malformed { .. }) if leads => {
                self.report(pods, error.to_string(), now);
            }
            Err(error) => tracing::debug!(%error, "bootstrap record not read"),
        }
        None
    }

    /// Reads the record once more.
    async fn confirm(&self, pods: &dyn Orchestrator) -> Option<Fenced> {
        let Ok(Some(stored)) = pods.bootstrap_record().await else { return None };
        let BootstrapRecord::Formed { cluster: formed } = stored.record else { return None };
        if formed == self.me.cluster {
            return None;
        }
        let record = OtherFormed::new(&self.me, formed);
        let fenced = Fenced { ordinal: self.me.ordinal, record };
        pods.emit(ClusterEvent::set_warning("Fenced", fenced.to_string()));
        Some(fenced)
    }

    /// Writes the record again: over this version, or as a new object.
    async fn restore(&mut self, pods: &dyn Orchestrator, version: Option<String>, now: Instant) {
        let since = |at: Instant| now.duration_since(at);
        let lasts = self.refused.is_some_and(|(first, _)| since(first) >= REFUSAL_LASTS_AFTER);
        if lasts && self.refused.is_some_and(|(_, last)| since(last) < REFUSED_RETRY_INTERVAL) {
            return;
        }
        let ours = BootstrapRecord::Formed { cluster: self.me.cluster };
        let written = match &version {
            Some(version) => pods.write_bootstrap_record(ours, version).await,
            // Another writer may have been faster: the next check reads the result.
            None => pods.create_bootstrap_record(ours).await.map(|()| true),
        };
        match written {
            Ok(true) => {
                tracing::warn!(cluster = %self.me.cluster, "lost bootstrap record restored");
            }
            Ok(false) => {}
            Err(error @ (OrchestratorError::Refused(_) | OrchestratorError::Forbidden(_))) => {
                let first = self.refused.map_or(now, |(first, _)| first);
                self.refused = Some((first, now));
                if since(first) < REFUSAL_LASTS_AFTER {
                    return;
                }
                let lost = if version.is_some() { "empty" } else { "missing" };
                let problem = format!(
                    "the bootstrap record is {lost}, and the leader cannot write it again: {error}. Apply \
                     the manifests again: the Role must permit to create and patch ConfigMaps"
                );
                self.report(pods, problem, now);
            }
            Err(error) => tracing::debug!(%error, "bootstrap record not restored yet"),
        }
    }

    /// Reports a problem, and again as long as it lasts.
    fn report(&mut self, pods: &dyn Orchestrator, problem: String, now: Instant) {
        let is_recent = |at: Instant| now.duration_since(at) < REPORT_AGAIN_AFTER;
        let reported = self.reported.as_ref();
        if reported.is_some_and(|(last, at)| *last == problem && is_recent(*at)) {
            return;
        }
        tracing::warn!(problem, "bootstrap record not in order");
        self.reported = Some((problem.clone(), now));
        pods.emit(ClusterEvent::set_warning("Refused", problem));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_leader_checks_at_once_and_others_now_and_then() {
        let (mut schedule, start) = (Schedule::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        let (first, second) = (Some(Term(1)), Some(Term(2)));
        for (leads, at, is_due) in [
            (None, 0, true),
            (None, 9, false),
            (first, 9, true),
            (first, 10, false),
            (first, 11, true),
            (second, 11, true),
            (None, 20, false),
            (None, 21, true),
            // Leads again, after a term in which another member led.
            (Some(Term(4)), 22, true),
        ] {
            assert_eq!(schedule.is_due(leads, after(at)), is_due, "{leads:?} after {at} s");
        }
    }
}

//! Mirrors the leader in a Lease, and in a Service that selects the leader's pod.
//!
//! Only the active leader writes: a leader in contact with a quorum. A leader that loses its quorum, or is
//! deposed, releases the Lease within one election timeout. (The Lease of a leader that crashed without
//! a successor expires.) The Service keeps selecting the pod: its selector is wrong only once another
//! member leads, and that member sets it. Meanwhile the pod serves like any member without a leader, and
//! clients reach the leader's pod as soon as the quorum returns.
//!
//! Each object has its own task, so that neither waits for the other. Raft does not depend on them: a
//! leader without access to the API server keeps leading.

use std::{convert::Infallible, future, sync::Arc, time::Duration};

use k8s_openapi::{
    api::{coordination::v1::Lease, core::v1::Service},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use serde_json::Value;
use tokio::{sync::watch, task::JoinSet};

use super::{
    connection::Connection,
    leader_annotations::{self, Decision, Leader},
    outage::{Backoff, Outage},
};
use crate::{
    clock::Clock,
    membership::{LeaderUpdate, OrchestratorError},
    shutdown::{Shutdown, ShutdownSignal},
};

/// The objects that name the leader.
#[derive(Debug, Clone, Default)]
pub struct MirrorOptions {
    /// The name of a Lease.
    pub lease: Option<String>,
    /// The name of a Service.
    pub service: Option<String>,
}

/// Intervals and time limits.
#[derive(Debug, Clone, Copy)]
pub struct MirrorTiming {
    /// The interval of renewals. Each also repairs the changes of others.
    pub renewal: Duration,
    pub backoff: Backoff,
    /// Limit on releasing the objects at the end.
    pub stop_limit: Duration,
}

/// A member that stops leading checks this often whether the Lease still names it: a write with a lost
/// answer may take effect after the first check.
const RELEASE_CHECKS: u32 = 2;

/// The running mirror. The owner must stop it.
#[derive(Debug)]
pub struct Mirror {
    stop: Shutdown,
    tasks: JoinSet<()>,
    stop_limit: Duration,
}

impl Mirror {
    pub fn start(
        options: MirrorOptions,
        connection: &Connection,
        clock: &Arc<dyn Clock>,
        pod: &str,
        leader: &watch::Receiver<LeaderUpdate>,
        timing: MirrorTiming,
    ) -> Mirror {
        let stop = Shutdown::default();
        let mut tasks = JoinSet::new();
        let targets = [options.lease.map(Target::Lease), options.service.map(Target::Service)];
        for target in targets.into_iter().flatten() {
            let publisher = Publisher {
                outage: Outage::new(target.purpose(), timing.backoff),
                target,
                connection: connection.clone(),
                clock: clock.clone(),
                pod: pod.to_string(),
                renewal: timing.renewal,
                yielded_to: None,
                release_checks: 0,
            };
            tasks.spawn(publisher.run(leader.clone(), stop.signal()));
        }
        Mirror { stop, tasks, stop_limit: timing.stop_limit }
    }

    /// Releases the Lease, within a few seconds. The caller must ensure that this member no longer leads.
    pub async fn stop(mut self) {
        self.stop.trigger();
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(self.stop_limit, ended).await.is_err() {
            tracing::warn!("leader mirror not released: objects may still name this member");
            self.tasks.shutdown().await;
        }
    }
}

#[derive(Debug)]
enum Target {
    Lease(String),
    Service(String),
}

impl Target {
    fn purpose(&self) -> String {
        match self {
            Target::Lease(name) => format!("mirroring the leader in Lease {name}"),
            Target::Service(name) => format!("selecting the leader in Service {name}"),
        }
    }
}

/// Publishes the leader in one object.
#[derive(Debug)]
struct Publisher {
    target: Target,
    connection: Connection,
    clock: Arc<dyn Clock>,
    /// This member's pod.
    pod: String,
    renewal: Duration,
    outage: Outage,
    /// The other leader that the object names; logged once.
    yielded_to: Option<Leader>,
    /// Completed checks since this member stopped leading.
    release_checks: u32,
}

impl Publisher {
    async fn run(
        mut self,
        mut leader: watch::Receiver<LeaderUpdate>,
        mut stopping: ShutdownSignal,
    ) {
        let mut now = *leader.borrow_and_update();
        loop {
            // `maintain` may be cancelled during a call: the next one reads the object again.
            tokio::select! {
                biased;
                () = stopping.wait() => break,
                next = next_update(&mut leader, now) => now = next,
                never = self.maintain(now) => match never {},
            }
        }
        if self.release_checks < RELEASE_CHECKS
            && let Err(error) = self.release(&self.me(now)).await
        {
            tracing::warn!(%error, purpose = self.target.purpose(), "leader mirror not released");
        }
    }

    /// Maintains the object while the leader stays the same.
    async fn maintain(&mut self, leader: LeaderUpdate) -> Infallible {
        let me = self.me(leader);
        self.release_checks = 0;
        while leader.is_me || self.release_checks < RELEASE_CHECKS {
            let done = if leader.is_me { self.publish(&me).await } else { self.release(&me).await };
            let delay = match done {
                Ok(()) => {
                    self.outage.recovered();
                    self.release_checks += u32::from(!leader.is_me);
                    self.renewal
                }
                Err(error) => self.outage.failed(&error),
            };
            tokio::time::sleep(delay).await;
        }
        future::pending().await
    }

    async fn publish(&mut self, me: &Leader) -> Result<(), OrchestratorError> {
        let mut decision = Decision::Unchanged;
        match &self.target {
            Target::Lease(name) => {
                let now = now(&*self.clock);
                let acquire = |lease: &Lease| {
                    patch_of(&mut decision, leader_annotations::acquire_lease(lease, me, &now))
                };
                self.connection.update(name, acquire).await?;
            }
            Target::Service(name) => {
                let select = |service: &Service| {
                    patch_of(&mut decision, leader_annotations::select_leader(service, me))
                };
                self.connection.update(name, select).await?;
            }
        }
        let other = if let Decision::Yield(other) = decision { Some(other) } else { None };
        if let Some(other) = other.as_ref().filter(|other| self.yielded_to.as_ref() != Some(other))
        {
            tracing::warn!(
                leader = other.pod, term = %other.term, ours = %me.term,
                purpose = self.target.purpose(), "object names another leader, not overwritten"
            );
        }
        self.yielded_to = other;
        Ok(())
    }

    async fn release(&self, me: &Leader) -> Result<(), OrchestratorError> {
        match &self.target {
            Target::Lease(name) => {
                let release = |lease: &Lease| leader_annotations::release_lease(lease, me);
                self.connection.update(name, release).await
            }
            // Any pod is better than none: members forward requests to the leader, and the next leader
            // sets the selector. See the module's head.
            Target::Service(_) => Ok(()),
        }
    }

    /// This member as a leader in the update's term.
    fn me(&self, update: LeaderUpdate) -> Leader {
        Leader { cluster: update.cluster, term: update.term, pod: self.pod.clone() }
    }
}

/// Records the decision, and returns its patch.
fn patch_of(recorded: &mut Decision, decision: Decision) -> Option<Value> {
    *recorded = decision.clone();
    if let Decision::Write(patch) = decision { Some(patch) } else { None }
}

async fn next_update(
    leader: &mut watch::Receiver<LeaderUpdate>,
    known: LeaderUpdate,
) -> LeaderUpdate {
    let next = leader.wait_for(|update| *update != known).await.ok().map(|next| *next);
    match next {
        Some(next) => next,
        // The sender is gone: the last update holds until the mirror is stopped.
        None => future::pending().await,
    }
}

fn now(clock: &dyn Clock) -> MicroTime {
    let since_epoch = i64::try_from(clock.now().as_micros()).unwrap_or(i64::MAX);
    MicroTime(Timestamp::from_microsecond(since_epoch).unwrap_or(Timestamp::MAX))
}

//! Follows who leads, and tells it where others look: a Lease, and a Service that selects the leader.
//!
//! Only the leader writes, and whoever it was until now takes its name back. One task for each object,
//! so that neither waits for the other. Nothing rests on what they say: a leader that cannot reach the
//! API server goes on leading.

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
    naming::{self, Leader, Step},
    outage::{Outage, Pauses},
};
use crate::{
    clock::Clock,
    membership::{LeaderNews, OrchestratorError},
    stop::{Stop, Stopping},
};

/// Where the leader is told.
#[derive(Debug, Clone, Default)]
pub struct MirrorOptions {
    /// The name of a Lease.
    pub lease: Option<String>,
    /// The name of a Service.
    pub service: Option<String>,
}

/// How often, and how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct MirrorPace {
    /// From one renewal to the next. Each also looks whether others changed the object.
    pub renewal: Duration,
    pub pauses: Pauses,
    /// For taking the names back at the end.
    pub stop_limit: Duration,
}

/// A member that stops leading looks so often whether an object still names it: a write whose answer
/// was lost may come to pass after the first look.
const RESIGN_LOOKS: u32 = 2;

/// The running mirror. Whoever holds it stops it.
#[derive(Debug)]
pub struct Mirror {
    stop: Stop,
    tasks: JoinSet<()>,
    stop_limit: Duration,
}

impl Mirror {
    pub(super) fn start(
        options: MirrorOptions,
        connection: &Connection,
        clock: &Arc<dyn Clock>,
        pod: &str,
        news: &watch::Receiver<LeaderNews>,
        pace: MirrorPace,
    ) -> Mirror {
        let stop = Stop::default();
        let mut tasks = JoinSet::new();
        let targets = [options.lease.map(Target::Lease), options.service.map(Target::Service)];
        for target in targets.into_iter().flatten() {
            let follower = Follower {
                outage: Outage::new(target.purpose(), pace.pauses),
                target,
                connection: connection.clone(),
                clock: clock.clone(),
                pod: pod.to_string(),
                renewal: pace.renewal,
                yielded_to: None,
                resigned: 0,
            };
            tasks.spawn(follower.follow(news.clone(), stop.stopping()));
        }
        Mirror { stop, tasks, stop_limit: pace.stop_limit }
    }

    /// Takes this member's name out of the Lease, within a few seconds. To be called once it does not
    /// lead any more, or when nobody will.
    pub async fn stop(mut self) {
        self.stop.stop();
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(self.stop_limit, ended).await.is_err() {
            tracing::warn!(
                "Kubernetes does not answer: it may go on to name this member as leader"
            );
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
            Target::Lease(name) => format!("keeping the leader's name in Lease {name}"),
            Target::Service(name) => format!("letting Service {name} select the leader"),
        }
    }
}

/// Follows the leader with one object.
#[derive(Debug)]
struct Follower {
    target: Target,
    connection: Connection,
    clock: Arc<dyn Clock>,
    /// This member's.
    pod: String,
    renewal: Duration,
    outage: Outage,
    /// Whom the object names instead of this leader: said once.
    yielded_to: Option<Leader>,
    /// So many looks since it does not lead, as far as this news goes.
    resigned: u32,
}

impl Follower {
    async fn follow(mut self, mut news: watch::Receiver<LeaderNews>, mut stopping: Stopping) {
        let mut now = *news.borrow_and_update();
        loop {
            // Tending is cancelled between, or in, calls: the next round reads anew what became of it.
            tokio::select! {
                biased;
                () = stopping.wait() => break,
                next = after(&mut news, now) => now = next,
                never = self.tend(now) => match never {},
            }
        }
        if self.resigned < RESIGN_LOOKS
            && let Err(error) = self.resign(&self.me(now)).await
        {
            tracing::warn!(%error, "{}: not taken back", self.target.purpose());
        }
    }

    /// Keeps the object as it should be while the news stays the same.
    async fn tend(&mut self, news: LeaderNews) -> Infallible {
        let me = self.me(news);
        self.resigned = 0;
        while news.is_me || self.resigned < RESIGN_LOOKS {
            let done = if news.is_me { self.lead(&me).await } else { self.resign(&me).await };
            let pause = match done {
                Ok(()) => {
                    self.outage.over();
                    self.resigned += u32::from(!news.is_me);
                    self.renewal
                }
                Err(error) => self.outage.failed(&error),
            };
            tokio::time::sleep(pause).await;
        }
        future::pending().await
    }

    async fn lead(&mut self, me: &Leader) -> Result<(), OrchestratorError> {
        let mut step = Step::Right;
        match &self.target {
            Target::Lease(name) => {
                let now = now(&*self.clock);
                let hold = |lease: &Lease| chosen(&mut step, naming::hold(lease, me, &now));
                self.connection.update(name, hold).await?;
            }
            Target::Service(name) => {
                let select = |service: &Service| chosen(&mut step, naming::select(service, me));
                self.connection.update(name, select).await?;
            }
        }
        let other = if let Step::Yield(other) = step { Some(other) } else { None };
        if let Some(other) = other.as_ref().filter(|other| self.yielded_to.as_ref() != Some(other))
        {
            tracing::warn!(
                leader = other.pod, term = %other.term, ours = %me.term,
                "{}: left alone, it names another leader", self.target.purpose()
            );
        }
        self.yielded_to = other;
        Ok(())
    }

    async fn resign(&self, me: &Leader) -> Result<(), OrchestratorError> {
        match &self.target {
            Target::Lease(name) => {
                self.connection.update(name, |lease: &Lease| naming::release(lease, me)).await
            }
            // Members forward what is the leader's, so any pod is better than none.
            Target::Service(_) => Ok(()),
        }
    }

    /// How objects name this member, if it is the one that the news is of.
    fn me(&self, news: LeaderNews) -> Leader {
        Leader { cluster: news.cluster, term: news.term, pod: self.pod.clone() }
    }
}

/// Notes the step, and gives what it writes.
fn chosen(noted: &mut Step, step: Step) -> Option<Value> {
    *noted = step.clone();
    if let Step::Write(patch) = step { Some(patch) } else { None }
}

/// The next news that is any.
async fn after(news: &mut watch::Receiver<LeaderNews>, known: LeaderNews) -> LeaderNews {
    let next = news.wait_for(|news| *news != known).await.ok().map(|next| *next);
    match next {
        Some(next) => next,
        // Nobody tells any more: what is known stays, until the mirror is stopped.
        None => future::pending().await,
    }
}

fn now(clock: &dyn Clock) -> MicroTime {
    let since_epoch = i64::try_from(clock.now().as_micros()).unwrap_or(i64::MAX);
    MicroTime(Timestamp::from_microsecond(since_epoch).unwrap_or(Timestamp::MAX))
}

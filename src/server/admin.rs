//! The admin port: `/livez` (the process works), `/readyz` (the member may serve clients), `/metrics`.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};
use tokio::time::Instant;

use super::{
    grpc::calls::CallMetrics,
    readiness::{self, MemberFacts, Ready},
    scrape::{self, MetricSources, PortCounters, Process, ProcessCounters},
};
use crate::{
    clock::{Clock, SystemClock},
    fault::Fault,
    lane::Lanes,
    membership::{Bootstrap, PodCreation},
    metrics::Exposition,
    raft::{PendingAge, Raft},
};

/// The health and the metrics of a member.
#[derive(Debug, Clone)]
pub struct MemberHealth {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    member: OnceLock<MetricSources>,
    started: Instant,
    bootstrap: OnceLock<Arc<Bootstrap>>,
    /// The volume belongs to a cluster: what is missing is recovery.
    formed: AtomicBool,
    stopping: AtomicBool,
    uncommitted: Mutex<PendingAge>,
    /// Pods that are being created, and the time since which the same ones exist.
    pod_creation: Mutex<Option<(PodCreation, Instant)>>,
    counters: ProcessCounters,
    lanes: Lanes,
    fault: Fault,
}

impl MemberHealth {
    pub fn new(lanes: Lanes, fault: Fault) -> MemberHealth {
        MemberHealth::since(Instant::now(), lanes, fault)
    }

    /// `started` is the start of this process.
    pub fn since(started: Instant, lanes: Lanes, fault: Fault) -> MemberHealth {
        let (member, counters) = (OnceLock::new(), ProcessCounters::default());
        let inner = Inner {
            member,
            started,
            bootstrap: OnceLock::new(),
            formed: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            uncommitted: Mutex::default(),
            pod_creation: Mutex::default(),
            counters,
            lanes,
            fault,
        };
        MemberHealth { inner: Arc::new(inner) }
    }

    /// Until this volume is a member, its readiness depends on the answers to its join requests. Called once.
    pub fn follow_bootstrap(&self, bootstrap: Arc<Bootstrap>) {
        assert!(self.inner.bootstrap.set(bootstrap).is_ok(), "a process has one bootstrap only");
    }

    /// Marks the volume as one with an identity in a cluster.
    pub fn set_formed(&self) {
        self.inner.formed.store(true, Ordering::Relaxed);
    }

    /// The pods that exist, while the orchestrator still creates pods in order, and the time since which
    /// these pods exist.
    pub fn set_pod_creation(&self, creation: Option<(PodCreation, Instant)>) {
        *lock(&self.inner.pod_creation) = creation;
    }

    /// Marks the member as running. Called once.
    pub fn set_running(&self, member: MetricSources) {
        assert!(self.inner.member.set(member).is_ok(), "a process is one member only");
    }

    pub fn note_rebuilt_tables(&self) {
        self.inner.counters.rebuilt_tables.increment();
    }

    /// The counters of client calls.
    pub fn calls(&self) -> &CallMetrics {
        &self.inner.counters.calls
    }

    /// The counters of each port's connections.
    pub fn connections(&self) -> &PortCounters {
        &self.inner.counters.connections
    }

    /// Marks the member as stopping, so that clients use other members.
    pub fn set_stopping(&self) {
        self.inner.stopping.store(true, Ordering::Relaxed);
    }

    fn live(&self) -> Result<(), &'static str> {
        if self.inner.fault.is_stopped() { Err("this member has stopped") } else { Ok(()) }
    }

    /// Whether this member is ready, or the reason why not.
    pub fn ready(&self) -> Result<Ready, String> {
        self.live()?;
        if self.inner.stopping.load(Ordering::Relaxed) {
            return Err("stopping".into());
        }
        let creation = *lock(&self.inner.pod_creation);
        let Some(member) = self.inner.member.get() else {
            return match self.inner.formed.load(Ordering::Relaxed) {
                true => Err("recovering".into()),
                false => self.pristine_readiness(creation.map(|(pods, _)| pods)),
            };
        };
        readiness::member_readiness(&self.facts(member.node.raft(), creation))
    }

    fn pristine_readiness(&self, creation: Option<PodCreation>) -> Result<Ready, String> {
        let answer_age = self.inner.bootstrap.get().and_then(|b| b.quorum_answer_age());
        readiness::pristine_readiness(creation, self.inner.started.elapsed(), answer_age)
    }

    fn facts(&self, raft: &Raft, creation: Option<(PodCreation, Instant)>) -> MemberFacts {
        let membership = raft.membership();
        let members = membership.members.iter().map(|m| m.member_ref);
        let (last, committed) = (raft.last_index(), raft.committed_index());
        MemberFacts {
            quorum_age: raft.quorum_age(),
            uncommitted_for: lock(&self.inner.uncommitted).observe(last, committed, Instant::now()),
            lag: raft.apply_lag(),
            initial_lag: raft.initial_lag(),
            log_writing_for: raft.log().metrics().writing_for(),
            uptime: self.inner.started.elapsed(),
            voters: readiness::voter_ordinals(&membership.voters, members),
            creation: creation.map(|(pods, _)| pods),
            creation_age: creation.map_or(Duration::ZERO, |(_, since)| since.elapsed()),
        }
    }

    /// Checks readiness for a probe, and counts the result.
    fn probe(&self) -> Result<Ready, String> {
        let ready = self.ready();
        let counters = &self.inner.counters;
        let counter =
            if ready.is_ok() { &counters.health_success } else { &counters.health_failures };
        counter.increment();
        ready
    }
}

fn answer(result: Result<(), impl Into<String>>) -> (StatusCode, String) {
    match result {
        Ok(()) => (StatusCode::OK, "ok\n".into()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", why.into())),
    }
}

async fn render(State(health): State<MemberHealth>) -> Result<impl IntoResponse, StatusCode> {
    let Inner { member, counters, lanes, .. } = &*health.inner;
    let failed = StatusCode::INTERNAL_SERVER_ERROR;
    let process = lanes.run("scrape", Process::read).await.map_err(|_| failed)?.ok_or(failed)?;
    let text = scrape::render(member.get(), counters, &process, SystemClock.now());
    Ok(([(CONTENT_TYPE, Exposition::CONTENT_TYPE)], text))
}

pub fn router(health: MemberHealth) -> Router {
    Router::new()
        .route(
            "/livez",
            get(|State(health): State<MemberHealth>| async move { answer(health.live()) }),
        )
        .route(
            "/readyz",
            get(|State(health): State<MemberHealth>| async move {
                match health.probe() {
                    Ok(Ready::AwaitingPods(reason)) => (StatusCode::OK, format!("{reason}\n")),
                    ready => answer(ready.map(drop)),
                }
            }),
        )
        .route("/metrics", get(render))
        .with_state(health)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

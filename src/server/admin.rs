//! The admin port: `/livez` (the process works), `/readyz` (the member may serve clients), `/metrics`.

use std::{
    sync::{
        Arc, OnceLock,
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

use super::{
    grpc::calls::CallMetrics,
    scrape::{self, MetricSources, PortCounters, Process, ProcessCounters},
};
use crate::{
    clock::{Clock, SystemClock},
    fault::Fault,
    lane::Lanes,
    metrics::Exposition,
};

/// A member without a quorum for this time is not ready.
const QUORUM_AGE_MAX: Duration = Duration::from_secs(10);
/// A member that is further behind the commit index is not ready: its serializable reads are too stale.
const LAG_ENTRIES_MAX: u64 = 1000;

/// The health and the metrics of a member.
#[derive(Debug, Clone)]
pub struct MemberHealth {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    member: OnceLock<MetricSources>,
    stopping: AtomicBool,
    counters: ProcessCounters,
    lanes: Lanes,
    fault: Fault,
}

impl MemberHealth {
    pub fn new(lanes: Lanes, fault: Fault) -> MemberHealth {
        let (member, counters) = (OnceLock::new(), ProcessCounters::default());
        let stopping = AtomicBool::new(false);
        MemberHealth { inner: Arc::new(Inner { member, stopping, counters, lanes, fault }) }
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

    fn ready(&self) -> Result<(), String> {
        self.live()?;
        if self.inner.stopping.load(Ordering::Relaxed) {
            return Err("stopping".into());
        }
        let Some(member) = self.inner.member.get() else {
            return Err("waiting to become a member: forming, joining or recovering".into());
        };
        let raft = member.node.raft();
        ready(raft.quorum_age(), raft.apply_lag())
    }

    /// Checks readiness for a probe, and counts the result.
    fn probe(&self) -> Result<(), String> {
        let ready = self.ready();
        let counters = &self.inner.counters;
        let counter =
            if ready.is_ok() { &counters.health_success } else { &counters.health_failures };
        counter.increment();
        ready
    }
}

fn ready(quorum_age: Option<Duration>, lag: u64) -> Result<(), String> {
    match quorum_age {
        Some(age) if age < QUORUM_AGE_MAX => {}
        Some(age) => return Err(format!("no quorum for {} s", age.as_secs())),
        None => return Err("no quorum yet".into()),
    }
    if lag > LAG_ENTRIES_MAX {
        return Err(format!("{lag} log entries behind"));
    }
    Ok(())
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
            get(|State(health): State<MemberHealth>| async move { answer(health.probe()) }),
        )
        .route("/metrics", get(render))
        .with_state(health)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_needs_a_quorum_and_little_lag() {
        let fresh = Some(Duration::from_secs(1));
        assert_eq!(ready(fresh, 5), Ok(()));
        assert!(ready(None, 0).is_err());
        assert!(ready(Some(Duration::from_secs(11)), 0).is_err());
        assert!(ready(fresh, 20_000).is_err());
    }
}

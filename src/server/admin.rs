//! The admin port: `/livez` (this process), `/readyz` (send me clients), `/metrics`.

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
    calls::Calls,
    scrape::{self, Process, ProcessCounts, Sources},
};
use crate::{
    clock::{Clock, SystemClock},
    fault::Fault,
    lane::Lanes,
    metrics::Exposition,
};

/// Without a quorum for so long, a member sends its clients elsewhere.
const QUORUM_AGE_MAX: Duration = Duration::from_secs(10);
/// So far behind what is committed, a member's serializable reads are too stale. An entry is a batch.
const LAG_ENTRIES_MAX: u64 = 1000;

/// What the admin port tells of a member.
#[derive(Debug, Clone)]
pub(super) struct Health {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    member: OnceLock<Sources>,
    stopping: AtomicBool,
    counts: ProcessCounts,
    lanes: Lanes,
    fault: Fault,
}

impl Health {
    pub(super) fn new(lanes: Lanes, fault: Fault) -> Health {
        let (member, counts) = (OnceLock::new(), ProcessCounts::default());
        let stopping = AtomicBool::new(false);
        Health { inner: Arc::new(Inner { member, stopping, counts, lanes, fault }) }
    }

    /// The member runs. Once.
    pub(super) fn run(&self, member: Sources) {
        assert!(self.inner.member.set(member).is_ok(), "a process is one member only");
    }

    pub(super) fn note_rebuilt_tables(&self) {
        self.inner.counts.rebuilt_tables.increment();
    }

    /// Where the calls of clients are counted.
    pub(super) fn calls(&self) -> &Calls {
        &self.inner.counts.calls
    }

    /// Clients should go elsewhere from now on.
    pub(super) fn stop(&self) {
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
        ready(raft.quorum_age(), raft.lag())
    }

    /// The same for a probe, which is counted.
    fn probe(&self) -> Result<(), String> {
        let ready = self.ready();
        let counts = &self.inner.counts;
        let counter = if ready.is_ok() { &counts.health_success } else { &counts.health_failures };
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

async fn render(State(health): State<Health>) -> Result<impl IntoResponse, StatusCode> {
    let Inner { member, counts, lanes, .. } = &*health.inner;
    let failed = StatusCode::INTERNAL_SERVER_ERROR;
    let process = lanes.run("scrape", Process::look).await.map_err(|_| failed)?.ok_or(failed)?;
    let text = scrape::render(member.get(), counts, &process, SystemClock.now());
    Ok(([(CONTENT_TYPE, Exposition::CONTENT_TYPE)], text))
}

pub(super) fn router(health: Health) -> Router {
    Router::new()
        .route("/livez", get(|State(health): State<Health>| async move { answer(health.live()) }))
        .route("/readyz", get(|State(health): State<Health>| async move { answer(health.probe()) }))
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

//! The admin port: `/livez` (this process), `/readyz` (send me clients), `/metrics`.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{Router, extract::State, http::StatusCode, routing::get};

use crate::{
    fault::Fault,
    metrics,
    node::{Node, NodePort},
};

/// Without a quorum for so long, a member sends its clients elsewhere.
const QUORUM_AGE_MAX: Duration = Duration::from_secs(10);
/// So far behind what is committed, a member's serializable reads are too stale. An entry is a batch.
const LAG_ENTRIES_MAX: u64 = 1000;

/// What the admin port tells of a member.
#[derive(Debug, Clone, Default)]
pub(super) struct Health {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    node: OnceLock<Node>,
    stopping: AtomicBool,
    rebuilt_tables: AtomicU64,
    fault: Fault,
}

impl Health {
    pub(super) fn new(fault: Fault) -> Health {
        Health { inner: Arc::new(Inner { fault, ..Inner::default() }) }
    }

    /// The member runs. Once.
    pub(super) fn run(&self, node: Node) {
        assert!(self.inner.node.set(node).is_ok(), "a process is one member only");
    }

    pub(super) fn note_rebuilt_tables(&self) {
        self.inner.rebuilt_tables.fetch_add(1, Ordering::Relaxed);
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
        let Some(node) = self.inner.node.get() else {
            return Err("waiting to become a member: forming, joining or recovering".into());
        };
        ready(node.raft().quorum_age(), node.raft().lag())
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

async fn render(State(health): State<Health>) -> Result<String, StatusCode> {
    let now = health.inner.node.get().map(|node| (node.header(), node.status()));
    let rebuilt = health.inner.rebuilt_tables.load(Ordering::Relaxed);
    metrics::render(now.as_ref().map(|(h, s)| (h, s)), rebuilt)
        .map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
}

pub(super) fn router(health: Health) -> Router {
    Router::new()
        .route("/livez", get(|State(health): State<Health>| async move { answer(health.live()) }))
        .route("/readyz", get(|State(health): State<Health>| async move { answer(health.ready()) }))
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

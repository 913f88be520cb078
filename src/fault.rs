//! Faults: errors after which a member cannot trust its own state, and must stop.
//!
//! Examples are a damaged file, a failed fsync, and an entry that cannot be applied. The code that
//! detects one calls [`Fault::stop`] with a reason that names the problem and its place. The composition
//! root then ends the process with a non-zero code. No part retries or continues.

use std::sync::Arc;

use tokio::sync::watch;

/// Shared by all parts of one member.
#[derive(Debug, Clone)]
pub struct Fault {
    reason: Arc<watch::Sender<Option<Arc<str>>>>,
}

impl Default for Fault {
    fn default() -> Self {
        Fault { reason: Arc::new(watch::Sender::new(None)) }
    }
}

impl Fault {
    /// Stops the member. The first reason counts; later ones are consequences of it.
    pub fn stop(&self, reason: impl std::fmt::Display) {
        let reason: Arc<str> = reason.to_string().into();
        self.reason.send_if_modified(|current| {
            let first = current.is_none();
            if first {
                tracing::error!(%reason, "fault: stopping this member");
                *current = Some(reason);
            }
            first
        });
    }

    pub fn is_stopped(&self) -> bool {
        self.reason.borrow().is_some()
    }

    /// Waits for a fault, and returns its reason.
    pub async fn stopped(&self) -> Arc<str> {
        let mut watch = self.reason.subscribe();
        loop {
            if let Some(reason) = watch.borrow_and_update().clone() {
                return reason;
            }
            // `self` holds the sender, so the channel cannot be closed.
            if watch.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

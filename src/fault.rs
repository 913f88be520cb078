//! The way to stop a member that cannot be sure of itself.
//!
//! A disk that lies, a failed fsync, an apply that cannot go on: whoever notices calls
//! [`Fault::stop`] once, with a reason that names what and where; the composition root sees it and
//! ends the process with a non-zero code. Nothing retries, nothing goes on half alive.

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
    /// Stops the member. The first reason stays; later ones follow from it.
    pub fn stop(&self, reason: impl std::fmt::Display) {
        let reason: Arc<str> = reason.to_string().into();
        self.reason.send_if_modified(|current| {
            let first = current.is_none();
            if first {
                tracing::error!(%reason, "this member stops");
                *current = Some(reason);
            }
            first
        });
    }

    pub fn is_stopped(&self) -> bool {
        self.reason.borrow().is_some()
    }

    /// Why the member stopped, if it did.
    pub fn reason(&self) -> Option<Arc<str>> {
        self.reason.borrow().clone()
    }

    /// Waits until somebody stopped the member, and says why.
    pub async fn stopped(&self) -> Arc<str> {
        let mut watch = self.reason.subscribe();
        loop {
            if let Some(reason) = watch.borrow_and_update().clone() {
                return reason;
            }
            // `self` holds the sender, so it cannot be gone.
            if watch.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

//! Shutdown of tasks: one switch, any number of waiters.

use tokio::sync::watch;

/// The switch. Dropping it triggers it, too.
#[derive(Debug)]
pub struct Shutdown(watch::Sender<bool>);

/// Waits for the switch. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ShutdownSignal(watch::Receiver<bool>);

impl Default for Shutdown {
    fn default() -> Self {
        Shutdown(watch::Sender::new(false))
    }
}

impl Shutdown {
    pub fn trigger(&self) {
        self.0.send_replace(true);
    }

    pub fn signal(&self) -> ShutdownSignal {
        ShutdownSignal(self.0.subscribe())
    }
}

impl ShutdownSignal {
    /// Resolves once the shutdown is triggered. Cancel-safe.
    pub async fn wait(&mut self) {
        // A dropped sender means the same.
        let _ = self.0.wait_for(|triggered| *triggered).await;
    }
}

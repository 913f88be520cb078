//! Telling tasks to stop: one switch, many who wait for it.

use tokio::sync::watch;

/// The switch. Dropping it stops, too.
#[derive(Debug)]
pub struct Stop(watch::Sender<bool>);

/// Waits for the switch. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Stopping(watch::Receiver<bool>);

impl Default for Stop {
    fn default() -> Self {
        Stop(watch::Sender::new(false))
    }
}

impl Stop {
    pub fn stop(&self) {
        self.0.send_replace(true);
    }

    pub fn stopping(&self) -> Stopping {
        Stopping(self.0.subscribe())
    }
}

impl Stopping {
    /// Resolves once stopped. Cancel-safe.
    pub async fn wait(&mut self) {
        // The sender gone means the same.
        let _ = self.0.wait_for(|stop| *stop).await;
    }
}

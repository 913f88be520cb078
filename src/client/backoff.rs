//! Exponential backoff between retries.

use std::time::Duration;

use tokio::time::sleep;

/// The first wait. Each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub struct Backoff {
    next: Duration,
    max: Duration,
}

impl Backoff {
    /// No wait is longer than `max`.
    pub fn up_to(max: Duration) -> Backoff {
        Backoff { next: FIRST_WAIT.min(max), max }
    }

    pub async fn wait(&mut self) {
        let now = self.next;
        self.next = (now * 2).min(self.max);
        sleep(now).await;
    }

    /// An attempt succeeded: the next wait is the first one again.
    pub fn reset(&mut self) {
        self.next = FIRST_WAIT.min(self.max);
    }
}

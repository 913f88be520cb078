//! How long to wait before trying again what has just failed.

use std::time::Duration;

use tokio::time::sleep;

/// The first wait; each further one is twice as long.
const FIRST: Duration = Duration::from_millis(50);

/// Waits that grow with each failure.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
    most: Duration,
}

impl Backoff {
    /// No wait is longer than `most`.
    pub(super) fn up_to(most: Duration) -> Backoff {
        Backoff { next: FIRST.min(most), most }
    }

    pub(super) async fn wait(&mut self) {
        let now = self.next;
        self.next = (now * 2).min(self.most);
        sleep(now).await;
    }

    /// It worked: the next failure is a new one.
    pub(super) fn reset(&mut self) {
        self.next = FIRST.min(self.most);
    }
}

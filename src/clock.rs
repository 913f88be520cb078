//! Wall time as a port. Timers are tokio's, which a simulation can pause; this is for dates.

use std::{fmt::Debug, time::Duration};

/// Tells the time of day.
pub trait Clock: Debug + Send + Sync + 'static {
    /// Since 1970-01-01 UTC.
    fn now(&self) -> Duration;
}

/// The operating system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    fn now(&self) -> Duration {
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
    }
}

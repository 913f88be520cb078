//! Wall-clock time as a port. Only for dates: timers are tokio's, which a simulation can pause.

use std::{fmt::Debug, time::Duration};

/// A wall clock.
pub trait Clock: Debug + Send + Sync + 'static {
    /// Time since 1970-01-01 UTC.
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

//! The port by which the record store wakes the state writer.

use std::fmt::Debug;

/// Notifies the state writer of possible work. A writer that has stopped ignores it.
pub trait WakeWriter: Debug + Send + Sync {
    fn wake(&self);
}

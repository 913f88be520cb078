//! A lane for I/O on whole files: opening the store, sending and receiving snapshots. It keeps this
//! I/O away from async workers and the state writer.
//!
//! Its queue is bounded by its callers: each waits for its result.

use tokio::sync::{mpsc, oneshot};

use super::error::StoreError;
use crate::lane::{Lane, Lanes};

type Job = Box<dyn FnOnce() + Send>;

/// The owner's handle: the lane ends when it is dropped.
#[derive(Debug)]
pub struct SnapshotIo(mpsc::UnboundedSender<Job>);

/// For callers that may outlive the store.
#[derive(Debug, Clone)]
pub struct WeakSnapshotIo(mpsc::WeakUnboundedSender<Job>);

impl SnapshotIo {
    pub fn start(lanes: Lanes) -> Result<(SnapshotIo, Lane), StoreError> {
        let (sender, inbox) = mpsc::unbounded_channel::<Job>();
        let lane = lanes
            .start("snapshot-io", inbox, |jobs: &mut Vec<Job>| {
                jobs.drain(..).for_each(|job| job());
            })
            .map_err(|error| StoreError::Lane(error.to_string()))?;
        Ok((SnapshotIo(sender), lane))
    }

    pub fn downgrade(&self) -> WeakSnapshotIo {
        WeakSnapshotIo(self.0.downgrade())
    }
}

impl WeakSnapshotIo {
    /// Runs `job` on the lane.
    pub async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (done, outcome) = oneshot::channel();
        let io = self.0.upgrade().ok_or(StoreError::Stopped)?;
        // If the caller is gone, the outcome is dropped.
        let job = move || drop(done.send(job()));
        io.send(Box::new(job)).map_err(|_| StoreError::Stopped)?;
        drop(io);
        outcome.await.map_err(|_| StoreError::Stopped)?
    }
}

//! A lane for reads and writes of whole files: opening, and sending and receiving snapshots. It
//! keeps them from async workers and from the state writer.
//!
//! Its queue is bounded by its callers: each waits for its answer.

use tokio::sync::{mpsc, oneshot};

use super::error::StoreError;
use crate::lane::{Lane, Lanes};

type Job = Box<dyn FnOnce() + Send>;

/// The owner's end: the lane ends when it is dropped.
#[derive(Debug)]
pub(super) struct Io(mpsc::UnboundedSender<Job>);

/// For who may outlive the store.
#[derive(Debug, Clone)]
pub(super) struct WeakIo(mpsc::WeakUnboundedSender<Job>);

impl Io {
    pub(super) fn start(lanes: Lanes) -> Result<(Io, Lane), StoreError> {
        let (sender, inbox) = mpsc::unbounded_channel::<Job>();
        let lane = lanes
            .start("snapshot-io", inbox, |jobs: &mut Vec<Job>| {
                jobs.drain(..).for_each(|job| job());
            })
            .map_err(|error| StoreError::Lane(error.to_string()))?;
        Ok((Io(sender), lane))
    }

    pub(super) fn downgrade(&self) -> WeakIo {
        WeakIo(self.0.downgrade())
    }
}

impl WeakIo {
    /// Runs `job` on the lane.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (done, outcome) = oneshot::channel();
        let io = self.0.upgrade().ok_or(StoreError::Stopped)?;
        // Nobody may be waiting any more: then the outcome is of no use.
        let job = move || drop(done.send(job()));
        io.send(Box::new(job)).map_err(|_| StoreError::Stopped)?;
        drop(io);
        outcome.await.map_err(|_| StoreError::Stopped)?
    }
}

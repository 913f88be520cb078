//! Lanes for reads that need the disk or take long.

use std::sync::{Arc, PoisonError, RwLock};

use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    time::Instant,
};

use super::{metrics::NodeMetrics, port::NodeError};
use crate::{
    lane::{Lane, Lanes},
    raft::WARNING_APPLY_DURATION,
    state::{ReadError, View},
};

/// Lanes of one member.
const LANES: usize = 2;
/// Reads that wait for a lane or run on it, at most.
const READS_MAX: usize = 1024;

/// A read for a lane. It sends its own answer.
type BlockingRead = Box<dyn FnOnce() + Send>;
/// The senders to the lanes. [`ReadPoolLanes::join`] empties it: a connection that outlives its server
/// holds a clone of the node, and must not keep the lanes alive.
type Senders = Arc<RwLock<Vec<mpsc::UnboundedSender<BlockingRead>>>>;

/// Runs blocking reads on lanes.
#[derive(Debug)]
pub struct ReadPool {
    view: View,
    metrics: Arc<NodeMetrics>,
    senders: Senders,
    reads: Arc<Semaphore>,
}

/// The lanes of a pool, for their owner to join.
#[derive(Debug)]
pub struct ReadPoolLanes {
    lanes: Vec<Lane>,
    senders: Senders,
}

/// Why a read on a lane gave no result.
#[derive(Debug)]
pub enum ReadPoolError {
    /// Too many reads wait, or the pool has stopped.
    Refused(NodeError),
    Failed(ReadError),
}

impl ReadPool {
    pub fn start(
        lanes: Lanes,
        view: View,
        metrics: Arc<NodeMetrics>,
    ) -> std::io::Result<(ReadPool, ReadPoolLanes)> {
        let mut started = Vec::new();
        let mut senders = Vec::new();
        for i in 0..LANES {
            let (tx, rx) = mpsc::unbounded_channel::<BlockingRead>();
            let run = |work: &mut Vec<BlockingRead>| work.drain(..).for_each(|read| read());
            started.push(lanes.start(&format!("read-{i}"), rx, run)?);
            senders.push(tx);
        }
        let senders = Arc::new(RwLock::new(senders));
        let lanes = ReadPoolLanes { lanes: started, senders: senders.clone() };
        Ok((ReadPool { view, metrics, senders, reads: Arc::new(Semaphore::new(READS_MAX)) }, lanes))
    }

    /// Runs a read that may block.
    pub async fn run<R: Send + 'static>(
        &self,
        read: impl FnOnce(&View) -> Result<R, ReadError> + Send + 'static,
    ) -> Result<R, ReadPoolError> {
        let Ok(permit) = self.reads.clone().try_acquire_owned() else {
            return Err(ReadPoolError::Refused(NodeError::TooManyRequests));
        };
        let lane = self.reads.available_permits() % LANES;
        let (tx, rx) = oneshot::channel();
        let (view, metrics) = (self.view.clone(), self.metrics.clone());
        let work: BlockingRead = Box::new(move || {
            // The read counts until its turn has come, even if its caller has given up; but then it is
            // not executed.
            let _permit = permit;
            if !tx.is_closed() {
                let begun = Instant::now();
                let result = read(&view);
                log_if_slow(&view, &metrics, begun);
                let _ = tx.send(result);
            }
        });
        let sent = {
            let senders = self.senders.read().unwrap_or_else(PoisonError::into_inner);
            senders.get(lane).is_some_and(|lane| lane.send(work).is_ok())
        };
        if !sent {
            return Err(ReadPoolError::Refused(NodeError::Stopped));
        }
        match rx.await {
            Ok(result) => result.map_err(ReadPoolError::Failed),
            Err(_) => Err(ReadPoolError::Refused(NodeError::Stopped)),
        }
    }
}

impl ReadPoolLanes {
    /// Lets the lanes finish their queues, and joins them.
    pub async fn join(self) {
        self.senders.write().unwrap_or_else(PoisonError::into_inner).clear();
        for lane in self.lanes {
            lane.join().await;
        }
    }
}

fn log_if_slow(view: &View, metrics: &NodeMetrics, begun: Instant) {
    let took = begun.elapsed();
    if took > WARNING_APPLY_DURATION {
        metrics.slow_reads.increment();
        let at = view.applied().unwrap_or_default();
        let revision = view.revision().0;
        tracing::warn!(term = at.term.0, index = at.index, revision, ?took, "read took too long");
    }
}

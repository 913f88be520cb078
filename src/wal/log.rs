//! The handle of a log.

use std::{
    ops::Range,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{mpsc, oneshot, watch};

use super::{
    WalOptions,
    error::WalError,
    format::Record,
    metrics::WalMetrics,
    preallocation::{DiskSpace, SegmentPool, SegmentTask, segment_worker},
    reader::{ReadRequest, reader},
    recovery::{RecoveredLog, recover},
    state::{ReadPlan, State},
    writer::{Change, Done, Request, SharedLogState, Writer, WriterParts},
};
use crate::{
    disk::Disk,
    fault::Fault,
    lane::Lane,
    types::{HardState, LogEntry, LogPosition, Vote},
};

/// One member's log. Clones are the same log.
///
/// A change is visible at once, and durable when the log calls its `done`. The log calls them on its
/// own lane, in the order of the changes; `done` must not block. After an error the log writes nothing
/// more, the [`Fault`] has stopped the member, and it is unknown whether the change survives.
///
/// An impossible change (a gap, a term that decreases, a truncation to a position that the log does
/// not hold) is a bug of the caller, and panics.
///
/// The queue of changes has no bound of its own: Raft bounds its requests in flight.
#[derive(Clone, Debug)]
pub struct Log {
    shared: Arc<SharedLogState>,
    pool: Arc<SegmentPool>,
    metrics: Arc<WalMetrics>,
    running: Arc<Running>,
}

#[derive(Debug)]
struct Running {
    queues: Mutex<Option<Queues>>,
    lanes: Mutex<Vec<Lane>>,
}

#[derive(Debug, Clone)]
struct Queues {
    writer: mpsc::UnboundedSender<Request>,
    segments: mpsc::UnboundedSender<SegmentTask>,
    reader: mpsc::UnboundedSender<ReadRequest>,
}

impl Log {
    /// Opens the log in `dir`, or creates an empty one. Blocks on the disk. With `Lanes::Tasks` it must
    /// run inside a runtime.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: &WalOptions,
        fault: Fault,
    ) -> Result<Log, WalError> {
        let RecoveredLog { state, cursor } = recover(&*disk, dir, options)?;
        let (writer_queue, writer_inbox) = mpsc::unbounded_channel();
        let (task_queue, task_inbox) = mpsc::unbounded_channel();
        let (reader_queue, reader_inbox) = mpsc::unbounded_channel();
        let shared = Arc::new(SharedLogState::new(state));
        let pool = Arc::new(SegmentPool::new(disk, dir, options.segment_bytes));
        let tasks = task_queue.clone();
        let metrics = Arc::new(WalMetrics::default());
        let parts = WriterParts {
            shared: shared.clone(),
            pool: pool.clone(),
            metrics: metrics.clone(),
            fault: fault.clone(),
        };
        let mut writer = Writer::new(cursor, parts, tasks, options.salt_seed);

        let start = || {
            let handle = move |requests: &mut Vec<Request>| writer.handle(requests);
            Ok(vec![
                options.lanes.start("wal", writer_inbox, handle)?,
                options.lanes.start("wal-read", reader_inbox, reader(fault.clone()))?,
                options.lanes.start(
                    "wal-segments",
                    task_inbox,
                    segment_worker(pool.clone(), fault),
                )?,
            ])
        };
        let lanes = start().map_err(WalError::io(dir, 0, "start a lane"))?;
        let queues = Queues { writer: writer_queue, segments: task_queue, reader: reader_queue };
        let running = Running { queues: Mutex::new(Some(queues)), lanes: Mutex::new(lanes) };
        Ok(Log { shared, pool, metrics, running: Arc::new(running) })
    }

    /// The hard state, including changes that are not durable yet.
    pub fn hard_state(&self) -> HardState {
        self.shared.lock().hard()
    }

    /// The first index in the log; in an empty log the index of the next entry.
    pub fn first_index(&self) -> u64 {
        self.shared.lock().positions().first()
    }

    /// The last position in the log; in an empty log the position before the next entry, if any.
    pub fn last(&self) -> Option<LogPosition> {
        self.shared.lock().positions().last()
    }

    /// The position at `index`, if the log holds it or it is the last purged one.
    pub fn position_at(&self, index: u64) -> Option<LogPosition> {
        self.shared.lock().positions().at(index)
    }

    /// Appends entries after the last one. Together they are smaller than 4 GiB.
    pub fn append(
        &self,
        entries: Vec<LogEntry>,
        done: impl FnOnce(Result<(), WalError>) + Send + 'static,
    ) {
        let records = entries.iter().cloned().map(Record::Entry).collect::<Vec<_>>();
        self.change(Some(Box::new(done)), |state| {
            apply(state, records);
            Change::Append(entries)
        });
    }

    pub fn save_vote(&self, vote: Vote, done: impl FnOnce(Result<(), WalError>) + Send + 'static) {
        self.change(Some(Box::new(done)), |state| {
            apply(state, [Record::Vote(vote)]);
            Change::Vote(vote)
        });
    }

    /// Saves the commit mark. It becomes durable with the next change, or on [`Log::close`]. After a
    /// crash the mark may be an older one, but never precedes entries that were appended before it.
    pub fn save_committed(&self, position: LogPosition) {
        self.change(None, |state| {
            apply(state, [Record::Committed(position)]);
            Change::Committed(position)
        });
    }

    /// Drops all entries after this position; `None`: all.
    pub fn truncate_after(
        &self,
        position: Option<LogPosition>,
        done: impl FnOnce(Result<(), WalError>) + Send + 'static,
    ) {
        self.change(Some(Box::new(done)), |state| {
            apply(state, [Record::TruncateAfter(position)]);
            Change::TruncateAfter(position)
        });
    }

    /// Drops all entries up to this position from the front of the log. The position may lie beyond
    /// the end, which then moves there (a snapshot was installed). `done` is called when the purge is
    /// durable; the log removes unneeded segments later. A smaller purge than before does nothing.
    pub fn purge(
        &self,
        upto: LogPosition,
        done: impl FnOnce(Result<(), WalError>) + Send + 'static,
    ) {
        self.change(Some(Box::new(done)), |state| {
            if state.hard().purged.is_some_and(|purged| purged.index >= upto.index) {
                return Change::Flush;
            }
            apply(state, [Record::Purge(upto)]);
            Change::Purge(upto)
        });
    }

    /// The last index that would survive a crash. A truncation request lowers it at once, so that it
    /// never covers an entry that is about to be replaced.
    pub fn durable(&self) -> watch::Receiver<Option<u64>> {
        self.shared.durable()
    }

    /// Whether the disk has room for the next segment.
    pub fn space(&self) -> watch::Receiver<DiskSpace> {
        self.pool.space()
    }

    /// Retries the preallocation of the next segment. Callers should retry while space is low.
    pub fn retry_space(&self) {
        if let Some(queues) = self.queues() {
            // A lane that has ended makes no segments.
            let _ = queues.segments.send(SegmentTask::Fill);
        }
    }

    /// Reads a prefix of `range`: up to about `bytes_max` bytes of data, but at least one entry. The
    /// prefix may also end where the entries on disk end and those in memory begin. Empty only if the
    /// log has no entry at `range.start` yet.
    pub async fn read(
        &self,
        range: Range<u64>,
        bytes_max: usize,
    ) -> Result<Vec<LogEntry>, WalError> {
        let plan = self.shared.lock().plan_read(range, bytes_max)?;
        let (frames, range) = match plan {
            ReadPlan::Ready(entries) => return Ok(entries),
            ReadPlan::Disk(frames, range) => (frames, range),
        };
        let (reply, answer) = oneshot::channel();
        let queues = self.queues().ok_or(WalError::Closed)?;
        let request = ReadRequest { frames, range, bytes_max, reply };
        queues.reader.send(request).map_err(|_| WalError::Closed)?;
        drop(queues);
        answer.await.map_err(|_| WalError::Closed)?
    }

    /// Bytes of log on disk, from the first entry after `index` on.
    pub fn bytes_since(&self, index: u64) -> u64 {
        self.shared.lock().bytes_since(index)
    }

    /// Bytes of all segments on disk, without preallocated files and segments about to be removed.
    pub fn size(&self) -> u64 {
        self.shared.lock().disk_bytes()
    }

    pub fn metrics(&self) -> &WalMetrics {
        &self.metrics
    }

    /// Writes all pending changes and ends the lanes. Later changes fail with [`WalError::Closed`].
    pub async fn close(self) {
        self.change(None, |_| Change::Flush);
        drop(self.lock_queues().take());
        let lanes =
            std::mem::take(&mut *self.running.lanes.lock().unwrap_or_else(PoisonError::into_inner));
        for lane in lanes {
            lane.join().await;
        }
    }

    /// Changes the state and queues the change under one lock, so that the writer sees changes in the
    /// state's order.
    fn change(&self, done: Option<Done>, make: impl FnOnce(&mut State) -> Change) {
        let refused = {
            let mut state = self.shared.lock();
            let request = Request { change: make(&mut state), done };
            state.end_request();
            self.shared.publish(&state);
            match &*self.lock_queues() {
                Some(queues) => queues.writer.send(request).err().map(|refused| refused.0),
                None => Some(request),
            }
        };
        if let Some(done) = refused.and_then(|request| request.done) {
            done(Err(WalError::Closed));
        }
    }

    fn queues(&self) -> Option<Queues> {
        self.lock_queues().clone()
    }

    fn lock_queues(&self) -> std::sync::MutexGuard<'_, Option<Queues>> {
        self.running.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn apply(state: &mut State, records: impl IntoIterator<Item = Record>) {
    for record in records {
        if let Err(problem) = state.apply(record) {
            panic!("impossible change of the log: {problem}");
        }
    }
}

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
    reader::{ReadRequest, reader},
    recovery::{Recovered, recover},
    state::{ReadPlan, State},
    upkeep::{Chore, Space, Spares, upkeep},
    writer::{Change, Done, Ledger, Request, Shared, Writer},
};
use crate::{
    disk::Disk,
    fault::Fault,
    lane::Lane,
    types::{HardState, LogEntry, LogPosition, Vote},
};

/// One member's log. Clones are the same log.
///
/// Changes are visible at once and durable when their `done` is called, which happens on the log's
/// own lane in the order of the calls; `done` must not block. After an error nothing is written any
/// more and the [`Fault`] has stopped the member; whether the change survives is then unknown.
///
/// Whoever asks for the impossible (a gap, a term that goes back, a truncation to a position that the
/// log does not hold) has a bug, and panics.
///
/// The queue of changes has no bound of its own: Raft keeps what it has in flight bounded.
#[derive(Clone, Debug)]
pub struct Log {
    ledger: Arc<Ledger>,
    spares: Arc<Spares>,
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
    upkeep: mpsc::UnboundedSender<Chore>,
    reader: mpsc::UnboundedSender<ReadRequest>,
}

impl Log {
    /// Opens the log in `dir`, or makes an empty one there. Blocks on the disk; with
    /// `Lanes::Tasks` it must be called on a runtime.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        options: &WalOptions,
        fault: Fault,
    ) -> Result<Log, WalError> {
        let Recovered { state, end } = recover(&*disk, dir, options)?;
        let (writer_queue, writer_inbox) = mpsc::unbounded_channel();
        let (upkeep_queue, upkeep_inbox) = mpsc::unbounded_channel();
        let (reader_queue, reader_inbox) = mpsc::unbounded_channel();
        let ledger = Arc::new(Ledger::new(state));
        let spares = Arc::new(Spares::new(disk, dir, options.segment_bytes));
        let chores = upkeep_queue.clone();
        let metrics = Arc::new(WalMetrics::default());
        let shared = Shared {
            ledger: ledger.clone(),
            spares: spares.clone(),
            metrics: metrics.clone(),
            fault: fault.clone(),
        };
        let mut writer = Writer::new(end, shared, chores, options.salt_seed);

        let start = || {
            let handle = move |requests: &mut Vec<Request>| writer.handle(requests);
            Ok(vec![
                options.lanes.start("wal", writer_inbox, handle)?,
                options.lanes.start("wal-read", reader_inbox, reader(fault.clone()))?,
                options.lanes.start("wal-upkeep", upkeep_inbox, upkeep(spares.clone(), fault))?,
            ])
        };
        let lanes = start().map_err(WalError::io(dir, 0, "start a lane"))?;
        let queues = Queues { writer: writer_queue, upkeep: upkeep_queue, reader: reader_queue };
        let running = Running { queues: Mutex::new(Some(queues)), lanes: Mutex::new(lanes) };
        Ok(Log { ledger, spares, metrics, running: Arc::new(running) })
    }

    /// What the member must remember besides entries, as asked for last.
    pub fn hard_state(&self) -> HardState {
        self.ledger.lock().hard()
    }

    /// The lowest index that can be read, if there is any entry; else the one that is due.
    pub fn first_index(&self) -> u64 {
        self.ledger.lock().positions().first()
    }

    /// The end of the log. In an empty log: where the next entry follows, if not at 0.
    pub fn last(&self) -> Option<LogPosition> {
        self.ledger.lock().positions().last()
    }

    /// The position at an index that the log holds, or that was purged last.
    pub fn position_at(&self, index: u64) -> Option<LogPosition> {
        self.ledger.lock().positions().at(index)
    }

    /// Adds entries that follow the last one. All together are smaller than 4 GiB.
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

    /// Notes what is committed. Durable with the next change after it, or on [`Log::close`]: after a
    /// crash it may be an earlier one, but never runs ahead of the entries appended before it.
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

    /// Drops this position and all before it from the front of the log; it may lie beyond the end,
    /// which then moves there (a snapshot was installed). Done when it is noted: the segments that
    /// nobody needs any more are removed later. Purging less than before does nothing.
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

    /// The last index that would survive a crash. Goes back the moment a truncation is asked for, so
    /// that it never speaks of an entry that is about to be another one.
    pub fn durable(&self) -> watch::Receiver<Option<u64>> {
        self.ledger.durable()
    }

    /// Whether there is room for the log to go on.
    pub fn space(&self) -> watch::Receiver<Space> {
        self.spares.space()
    }

    /// Tries again to make the next segment. Worth calling now and then while space is low.
    pub fn retry_space(&self) {
        if let Some(queues) = self.queues() {
            // A lane that is gone makes no segments.
            let _ = queues.upkeep.send(Chore::Fill);
        }
    }

    /// Reads a beginning of `range`: up to about `bytes_max` bytes of data, but at least one entry;
    /// it may also end where memory goes on from disk. Empty only if there is no entry at
    /// `range.start` yet.
    pub async fn read(
        &self,
        range: Range<u64>,
        bytes_max: usize,
    ) -> Result<Vec<LogEntry>, WalError> {
        let plan = self.ledger.lock().plan_read(range, bytes_max)?;
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

    /// Bytes of log on disk from the first entry after `index` on.
    pub fn bytes_since(&self, index: u64) -> u64 {
        self.ledger.lock().bytes_since(index)
    }

    /// Bytes of all segments on disk, without those filled ahead or about to be removed.
    pub fn size(&self) -> u64 {
        self.ledger.lock().disk_bytes()
    }

    pub fn metrics(&self) -> &WalMetrics {
        &self.metrics
    }

    /// Writes what waits and ends the lanes. Later changes are answered with [`WalError::Closed`].
    pub async fn close(self) {
        self.change(None, |_| Change::Flush);
        drop(self.lock_queues().take());
        let lanes =
            std::mem::take(&mut *self.running.lanes.lock().unwrap_or_else(PoisonError::into_inner));
        for lane in lanes {
            lane.join().await;
        }
    }

    /// Changes the state and has it written, in one step: the writer's order is the state's.
    fn change(&self, done: Option<Done>, make: impl FnOnce(&mut State) -> Change) {
        let refused = {
            let mut state = self.ledger.lock();
            let request = Request { change: make(&mut state), done };
            state.end_request();
            self.ledger.publish(&state);
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
        if let Err(what) = state.apply(record) {
            panic!("the log was asked for the impossible: {what}");
        }
    }
}

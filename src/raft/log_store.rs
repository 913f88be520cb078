//! openraft's log storage over our WAL.

use std::{
    fmt::Debug,
    io,
    ops::{Bound, RangeBounds},
    sync::{Arc, Mutex, PoisonError},
};

use futures_util::{Stream, StreamExt, stream};
use openraft::{
    OptionalSend, RaftLogReader,
    storage::{IOFlushed, LogState, RaftLogStorage},
};
use tokio::sync::oneshot;

use super::{
    Types,
    convert::{
        Entry, LogId, RaftVote, entry_from_domain, entry_to_domain, log_id, position,
        vote_from_domain, vote_to_domain,
    },
    store::SnapshotStore,
};
use crate::{
    stop::Stopping,
    wal::{Log, WalError},
};

/// A read for a follower stops after about so much: one message on the wire.
const READ_BYTES_MAX: usize = 1 << 20;

/// The WAL in openraft's words. Cheap to clone; all clones are the same log.
#[derive(Clone)]
pub(super) struct LogStore {
    log: Log,
    gate: Arc<Gate>,
}

/// Tells the storage how far the WAL is durable, in the order in which that changes: after a
/// truncation it must hear of the lower index before entries come that replace what was cut.
struct Gate {
    store: Arc<dyn SnapshotStore>,
    order: Mutex<()>,
}

impl LogStore {
    pub(super) fn new(log: Log, store: Arc<dyn SnapshotStore>) -> LogStore {
        LogStore { log, gate: Arc::new(Gate { store, order: Mutex::new(()) }) }
    }

    /// Changes the log, and tells the storage what is durable then.
    fn in_order(&self, change: impl FnOnce()) {
        let _order = self.gate.order.lock().unwrap_or_else(PoisonError::into_inner);
        change();
        if let Some(index) = *self.log.durable().borrow() {
            self.gate.store.note_durable(index);
        }
    }

    /// Runs until told to stop.
    pub(super) async fn pass_on_durable(self, mut stopping: Stopping) {
        let mut durable = self.log.durable();
        loop {
            durable.borrow_and_update();
            self.in_order(|| {});
            tokio::select! {
                changed = durable.changed() => if changed.is_err() { return },
                () = stopping.wait() => return,
            }
        }
    }

    /// Reads `start..end`, or as much of it as fits into about `max_bytes`; at least one entry.
    async fn read(&self, start: u64, end: u64, max_bytes: usize) -> io::Result<Vec<Entry>> {
        if start >= end {
            return Ok(Vec::new());
        }
        let entries = self.log.read(start..end, max_bytes).await.map_err(io::Error::other)?;
        entries.into_iter().map(|e| entry_from_domain(e).map_err(io::Error::other)).collect()
    }

    fn bounds(&self, range: &impl RangeBounds<u64>) -> (u64, u64) {
        let start = match range.start_bound() {
            Bound::Included(&i) => i,
            Bound::Excluded(&i) => i + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(&i) => i + 1,
            Bound::Excluded(&i) => i,
            Bound::Unbounded => self.log.last().map_or(0, |p| p.index + 1),
        };
        (start, end)
    }

    async fn done(&self, what: impl FnOnce(Done)) -> io::Result<()> {
        let (tx, rx) = oneshot::channel();
        what(Box::new(move |result| {
            // The receiver waits below, or its future was dropped: nobody asks any more.
            let _ = tx.send(result);
        }));
        match rx.await {
            Ok(result) => result.map_err(io::Error::other),
            Err(_) => Err(io::Error::other("the log has stopped")),
        }
    }
}

type Done = Box<dyn FnOnce(Result<(), WalError>) + Send>;

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let (mut start, end) = self.bounds(&range);
        let mut all = Vec::new();
        while start < end {
            let some = self.read(start, end, READ_BYTES_MAX).await?;
            if some.is_empty() {
                break;
            }
            start += some.len() as u64;
            all.extend(some);
        }
        Ok(all)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.read(start, end, READ_BYTES_MAX).await
    }

    /// Lazy: a follower that has much to apply does not hold it all in memory.
    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let (start, end) = self.bounds(&range);
        let chunks = stream::try_unfold((self.clone(), start), move |(store, start)| async move {
            if start >= end {
                return Ok(None);
            }
            let some = store.read(start, end, READ_BYTES_MAX).await?;
            if some.is_empty() {
                return Err(io::Error::other(format!("log entry {start} is missing")));
            }
            let next = start + some.len() as u64;
            Ok(Some((some, (store, next))))
        });
        Box::pin(chunks.flat_map(|chunk| {
            let items: Vec<Result<Entry, io::Error>> = match chunk {
                Ok(entries) => entries.into_iter().map(Ok).collect(),
                Err(e) => vec![Err(e)],
            };
            stream::iter(items)
        }))
    }

    async fn read_vote(&mut self) -> Result<Option<RaftVote>, io::Error> {
        Ok(self.log.hard_state().vote.map(vote_from_domain))
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        let purged = self.log.hard_state().purged.map(log_id);
        let last = self.log.last().map(log_id).or(purged);
        Ok(LogState { last_purged_log_id: purged, last_log_id: last })
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.clone()
    }

    /// Durable when it returns: openraft answers the vote request after this.
    async fn save_vote(&mut self, vote: &RaftVote) -> Result<(), io::Error> {
        let vote = vote_to_domain(vote);
        self.done(|done| self.log.save_vote(vote, done)).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        if let Some(id) = committed {
            self.log.save_committed(position(&id));
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        Ok(self.log.hard_state().committed.map(log_id))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries = entries.into_iter().map(entry_to_domain).collect();
        self.log.append(
            entries,
            Box::new(move |result: Result<(), WalError>| {
                callback.io_completed(result.map_err(io::Error::other));
            }),
        );
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let last = last.as_ref().map(position);
        self.done(|done| self.in_order(|| self.log.truncate_after(last, done))).await
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        self.done(|done| self.log.purge(position(&upto), done)).await
    }
}

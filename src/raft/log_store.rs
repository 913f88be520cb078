//! openraft's log storage over the WAL.

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
    convert::{
        Entry, LogId, RaftVote, entry_from_domain, entry_to_domain, log_id, position,
        vote_from_domain, vote_to_domain,
    },
    store::SnapshotStore,
    type_config::Types,
};
use crate::{
    shutdown::ShutdownSignal,
    wal::{Log, WalError},
};

/// Approximate bytes per read for a follower: one message on the wire.
const READ_BYTES_MAX: usize = 1 << 20;

/// The WAL as openraft's log storage. Cheap to clone; all clones are the same log.
#[derive(Clone)]
pub struct LogStore {
    log: Log,
    durable: Arc<DurableIndexForwarder>,
}

/// Forwards the WAL's durable index to the storage, in order: after a truncation the storage must
/// receive the lower index before entries arrive that replace the truncated ones.
struct DurableIndexForwarder {
    store: Arc<dyn SnapshotStore>,
    order: Mutex<()>,
}

impl LogStore {
    pub fn new(log: Log, store: Arc<dyn SnapshotStore>) -> LogStore {
        let durable = DurableIndexForwarder { store, order: Mutex::new(()) };
        LogStore { log, durable: Arc::new(durable) }
    }

    /// Changes the log, then forwards the durable index.
    fn in_order(&self, change: impl FnOnce()) {
        let _order = self.durable.order.lock().unwrap_or_else(PoisonError::into_inner);
        change();
        if let Some(index) = *self.log.durable().borrow() {
            self.durable.store.set_durable_index(index);
        }
    }

    /// Forwards every change of the durable index, until shutdown.
    pub async fn forward_durable_index(self, mut shutdown: ShutdownSignal) {
        let mut durable = self.log.durable();
        loop {
            durable.borrow_and_update();
            self.in_order(|| {});
            tokio::select! {
                changed = durable.changed() => if changed.is_err() { return },
                () = shutdown.wait() => return,
            }
        }
    }

    /// Reads `start..end`, or a prefix of about `max_bytes`, but at least one entry.
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

    /// Makes a change and waits until it is durable.
    async fn durably(&self, change: impl FnOnce(Done)) -> io::Result<()> {
        let (tx, rx) = oneshot::channel();
        change(Box::new(move |result| {
            // The receiver is gone if this future was dropped.
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

    /// Lazy, so that a long backlog of entries is never in memory at once.
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
        self.durably(|done| self.log.save_vote(vote, done)).await
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
        self.durably(|done| self.in_order(|| self.log.truncate_after(last, done))).await
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        self.durably(|done| self.log.purge(position(&upto), done)).await
    }
}

//! The state-writer lane: puts what was submitted on disk, in the order in which it was submitted.
//!
//! One step at a time, so that nobody who asks waits for more than one: write the next chunks, else
//! reclaim the space of dead records, else rest. A chunk's records go to synced block files first;
//! then one batch names the blocks, changes the tables and moves the applied position.
//!
//! Invariants: nothing is written that is not durable in the WAL; the tables never name a block that
//! is not durable; a file is removed only when neither the manifest, nor the retained snapshot, nor
//! a reader holds it. The first error stops the member: nothing is retried.

mod blocks;
mod install;
mod reclaim;
mod round;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use tokio::sync::{mpsc, oneshot};

use super::{
    block::Block,
    content::RecordMetas,
    error::StoreError,
    generation::Entries,
    incoming::Incoming,
    layout::Layout,
    manifest::Manifest,
    metrics::StorageMetrics,
    records::Records,
    sequence::Sequence,
    snapshot::SnapshotRef,
    tables::{CheckedTables, TablesEngine},
};
use crate::{fault::Fault, types::LogPosition};

type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// What the lane is told. Its inbox is bounded by its senders: each waits for its answer, and
/// [`Message::Look`] is sent only if none is under way (see [`Pending`](super::pending::Pending)).
#[derive(Debug)]
pub(super) enum Message {
    /// There may be something to do.
    Look,
    Flush(Reply<Option<LogPosition>>),
    Snapshot(Reply<SnapshotRef>),
    Install(Arc<Mutex<Incoming>>, Reply<Recovered>),
    Close(Reply<()>),
}

/// A state to start from.
#[derive(Debug)]
pub struct Recovered {
    /// Where its records are read from, and new ones submitted to.
    pub storage: Arc<Records>,
    /// The last entry whose effect is in it. Ahead of the WAL if a snapshot was installed and the
    /// WAL not purged up to it yet.
    pub position: Option<LogPosition>,
    /// The state machine's entries, in order of keys.
    pub tables: Entries,
    pub records: RecordMetas,
}

/// What the lane shares with the store's handle.
#[derive(Debug)]
pub(super) struct Shared {
    /// Those of the present state.
    pub(super) records: RwLock<Arc<Records>>,
    pub(super) retained: Mutex<Option<SnapshotRef>>,
    pub(super) metrics: Arc<StorageMetrics>,
}

impl Shared {
    pub(super) fn records(&self) -> Arc<Records> {
        self.records.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn retained(&self) -> Option<SnapshotRef> {
        self.retained.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Somebody who waits until everything up to `target` is written.
#[derive(Debug)]
struct Waiting {
    target: Option<u64>,
    reply: Awaited,
}

#[derive(Debug)]
enum Awaited {
    Flush(Reply<Option<LogPosition>>),
    Snapshot(Reply<SnapshotRef>),
}

impl Awaited {
    /// Everything that it waited for is written.
    fn answer(self, writer: &mut Writer) -> Result<(), StoreError> {
        match self {
            Awaited::Flush(reply) => answer(reply, Ok(writer.applied)),
            Awaited::Snapshot(reply) => answer(reply, writer.take_snapshot()),
        }
    }
}

/// The lane's own state.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) layout: Layout,
    pub(super) engine: Arc<dyn TablesEngine>,
    /// How large a block should be.
    pub(super) block_bytes: usize,
    pub(super) cache_bytes: usize,
    pub(super) fault: Fault,
    /// To look again; weak, so that the lane ends with its owner.
    pub(super) again: mpsc::WeakUnboundedSender<Message>,
    pub(super) shared: Arc<Shared>,
    pub(super) records: Arc<Records>,
    pub(super) tables: CheckedTables,
    pub(super) manifest: Manifest,
    pub(super) applied: Option<LogPosition>,
    pub(super) sequence: Sequence,
    /// Blocks that are not part of the state any more, and may still be held.
    pub(super) doomed: Vec<Arc<Block>>,
    pub(super) doomed_snapshots: Vec<SnapshotRef>,
}

/// The loop: [`Writer`] and who waits for it.
#[derive(Debug)]
pub(super) struct WriterLane {
    /// None once it is closed or has failed.
    writer: Option<Writer>,
    waiting: VecDeque<Waiting>,
}

impl WriterLane {
    pub(super) fn new(writer: Writer) -> WriterLane {
        WriterLane { writer: Some(writer), waiting: VecDeque::new() }
    }

    pub(super) fn handle(&mut self, messages: &mut Vec<Message>) {
        for message in messages.drain(..) {
            let outcome = self.take(message);
            self.check(outcome);
        }
        let outcome = self.step();
        self.check(outcome);
    }

    /// An error that is not just a refusal stops the member; who waits gets [`StoreError::Stopped`]
    /// because the replies are dropped.
    fn check(&mut self, outcome: Result<(), StoreError>) {
        if let Err(error) = outcome {
            if let Some(writer) = self.writer.take() {
                writer.fault.stop(format_args!("the state writer: {error}"));
                writer.records.close();
            }
            self.waiting.clear();
        }
    }

    fn take(&mut self, message: Message) -> Result<(), StoreError> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        match message {
            Message::Look => {}
            Message::Flush(reply) => self.wait(Awaited::Flush(reply)),
            Message::Snapshot(reply) => self.wait(Awaited::Snapshot(reply)),
            Message::Install(incoming, reply) => {
                let outcome = writer.install(&incoming);
                if outcome.is_ok() {
                    // What they waited for is behind the snapshot.
                    for waiting in self.waiting.drain(..) {
                        waiting.reply.answer(writer)?;
                    }
                }
                return answer(reply, outcome);
            }
            Message::Close(reply) => {
                let outcome = self.writer.take().map_or(Ok(()), Writer::close);
                self.waiting.clear();
                if let Err(error) = &outcome {
                    tracing::warn!(%error, "the state was not closed well; the log has it");
                }
                // Whoever closes may have gone; the outcome is logged.
                let _ = reply.send(outcome);
            }
        }
        Ok(())
    }

    fn wait(&mut self, reply: Awaited) {
        if let Some(writer) = &self.writer {
            let last = writer.records.pending().last_position();
            let target = last.map(|position| position.index);
            self.waiting.push_back(Waiting { target, reply });
        }
    }

    fn step(&mut self) -> Result<(), StoreError> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        let target = self.waiting.front().and_then(|waiting| waiting.target);
        let wrote = writer.write_next(target)?;
        let applied = writer.applied.map(|position| position.index);
        while let Some(next) = self.waiting.pop_front_if(|next| next.target <= applied) {
            next.reply.answer(writer)?;
        }
        let target = self.waiting.front().and_then(|waiting| waiting.target);
        let due = writer.looked(target);
        let reclaimed = !wrote && !due && writer.reclaim()?;
        if wrote || due || reclaimed {
            writer.look_again();
        }
        Ok(())
    }
}

impl Drop for WriterLane {
    fn drop(&mut self) {
        // A broken invariant must not leave a member that waits for its writer for ever.
        if let Some(writer) = self.writer.as_ref().filter(|_| std::thread::panicking()) {
            writer.fault.stop("the state writer panicked");
        }
    }
}

/// Gives the outcome to who asked; gives it back if it is the member's end.
fn answer<T>(reply: Reply<T>, outcome: Result<T, StoreError>) -> Result<(), StoreError> {
    let grave = match &outcome {
        Err(error) if !error.is_refusal() => Err(error.clone()),
        _ => Ok(()),
    };
    // Nobody may be waiting any more.
    let _ = reply.send(outcome);
    grave
}

impl Writer {
    fn look_again(&self) {
        if let Some(again) = self.again.upgrade() {
            // The lane is running: its inbox is open.
            let _ = again.send(Message::Look);
        }
    }

    /// Says whether there is something to write.
    fn looked(&self, target: Option<u64>) -> bool {
        let mut pending = self.records.pending();
        pending.looked(target);
        pending.is_due()
    }

    /// Writes all that is durable in the WAL, and closes the tables.
    fn close(mut self) -> Result<(), StoreError> {
        self.records.close();
        self.write_all_durable()?;
        self.tables.close()
    }
}

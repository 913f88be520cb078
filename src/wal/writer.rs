//! The writer lane: packs all pending requests into one frame, makes it durable with one sync, and then
//! calls their callbacks in order (group commit).

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use super::{
    error::WalError,
    format::{self, FRAME_HEADER_BYTES, PAGE_BYTES, SegmentHeader},
    frames::{Effect, FrameLocation},
    metrics::WalMetrics,
    positions::next_index,
    preallocation::{SegmentPool, SegmentTask},
    segments::Segments,
    state::State,
};
use crate::{
    fault::Fault,
    types::{HardState, LogEntry, LogPosition, Vote},
};

/// A frame of this size takes no further request. A single request may be larger.
const FRAME_BYTES_MAX: usize = 8 << 20;

/// Longer syncs are logged, since they can cause elections (etcd's `warnSyncDuration`).
const WARNING_SYNC_DURATION: Duration = Duration::from_secs(1);

/// Called when a request is durable, or with the error after which it may not be. Runs on the writer's
/// lane, so it must not block.
pub type Done = Box<dyn FnOnce(Result<(), WalError>) + Send>;

/// A change for the writer, which [`State`] has accepted.
pub struct Request {
    pub change: Change,
    pub done: Option<Done>,
}

pub enum Change {
    Append(Vec<LogEntry>),
    Vote(Vote),
    /// Written with the next other change, without a frame of its own.
    Committed(LogPosition),
    TruncateAfter(Option<LogPosition>),
    Purge(LogPosition),
    /// Writes a pending commit mark.
    Flush,
}

/// The state that the lanes share with the handles of the log.
#[derive(Debug)]
pub struct SharedLogState {
    state: Mutex<State>,
    durable: watch::Sender<Option<u64>>,
}

impl SharedLogState {
    pub fn new(state: State) -> SharedLogState {
        SharedLogState { durable: watch::Sender::new(state.durable()), state: Mutex::new(state) }
    }

    /// Panics if an earlier holder panicked: the process must not survive an impossible request.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of the log's state has panicked")
    }

    /// Publishes the durable index, while the caller holds the lock.
    pub fn publish(&self, state: &MutexGuard<'_, State>) {
        let durable = state.durable();
        self.durable.send_if_modified(|now| std::mem::replace(now, durable) != durable);
    }

    pub fn durable(&self) -> watch::Receiver<Option<u64>> {
        self.durable.subscribe()
    }
}

/// The position of the next write.
#[derive(Debug)]
pub struct WriteCursor {
    pub segments: Segments,
    /// Offset of the next frame in the active segment.
    pub offset: u64,
    /// The number of the next frame.
    pub batch: u64,
}

/// The parts that the writer shares with the rest of the log and with the member.
pub struct WriterParts {
    pub shared: Arc<SharedLogState>,
    pub pool: Arc<SegmentPool>,
    pub metrics: Arc<WalMetrics>,
    pub fault: Fault,
}

pub struct Writer {
    shared: Arc<SharedLogState>,
    pool: Arc<SegmentPool>,
    metrics: Arc<WalMetrics>,
    tasks: mpsc::UnboundedSender<SegmentTask>,
    fault: Fault,
    salt_seed: u64,
    cursor: WriteCursor,
    /// Number of handled requests, counted as in [`State`].
    handled: u64,
    frame: Frame,
    /// Once this is set, the writer writes nothing more.
    failed: Option<WalError>,
}

/// A summary of the frames so far, for the header of a new segment.
#[derive(Debug, Clone, Copy)]
struct LogSummary {
    hard: HardState,
    last: Option<LogPosition>,
}

/// The frame under construction.
struct Frame {
    /// Room for the header, then records.
    bytes: Vec<u8>,
    /// Summary of the frames on disk.
    before: LogSummary,
    /// The same, with this frame.
    after: LogSummary,
    effects: Vec<Effect>,
    done: Vec<Done>,
    /// The last commit mark, unless it is among the records.
    committed: Option<LogPosition>,
}

impl Writer {
    pub fn new(
        cursor: WriteCursor,
        parts: WriterParts,
        tasks: mpsc::UnboundedSender<SegmentTask>,
        salt_seed: u64,
    ) -> Writer {
        let WriterParts { shared, pool, metrics, fault } = parts;
        let mut state = shared.lock();
        state.set_disk_bytes(cursor.segments.bytes());
        let carried = LogSummary { hard: state.hard(), last: state.positions().last() };
        let handled = state.requests();
        drop(state);
        let frame = Frame {
            bytes: vec![0; FRAME_HEADER_BYTES],
            before: carried,
            after: carried,
            effects: Vec::new(),
            done: Vec::new(),
            committed: None,
        };
        let mut writer = Writer {
            shared,
            pool,
            metrics,
            tasks,
            fault,
            salt_seed,
            cursor,
            handled,
            frame,
            failed: None,
        };
        writer.reclaim();
        writer.send_task(SegmentTask::Fill);
        writer
    }

    /// The lane's handler.
    pub fn handle(&mut self, requests: &mut Vec<Request>) {
        for request in requests.drain(..) {
            self.handled += 1;
            self.frame.add(request);
            if self.frame.bytes.len() >= FRAME_BYTES_MAX {
                self.commit();
            }
        }
        self.commit();
    }

    /// Writes the frame, syncs it, and calls the callbacks.
    fn commit(&mut self) {
        if self.failed.is_none() {
            self.metrics.begin_write();
            let written = self.write_frame();
            self.metrics.end_write();
            if let Err(error) = written {
                self.fault.stop(&error);
                self.failed = Some(error);
            }
        }
        for done in self.frame.done.drain(..) {
            done(self.failed.clone().map_or(Ok(()), Err));
        }
        self.frame.clear();
    }

    fn write_frame(&mut self) -> Result<(), WalError> {
        let Some(bytes) = self.frame.size() else { return Ok(()) };
        if !self.cursor.segments.active().has_room(self.cursor.offset, bytes) {
            self.next_segment(bytes)?;
        }
        let segment = self.cursor.segments.active().clone();
        let offset = self.cursor.offset;
        format::seal_frame(&mut self.frame.bytes, segment.header.salt, self.cursor.batch);
        let begun = Instant::now();
        segment.write(&self.frame.bytes, offset)?;
        let written = Instant::now();
        segment.sync(offset)?;
        self.metrics.write.observe(written - begun);
        let took = written.elapsed();
        self.metrics.sync.observe(took);
        if took > WARNING_SYNC_DURATION {
            tracing::warn!(?took, bytes, "slow fdatasync");
        }
        self.metrics.written_bytes.add(bytes);
        self.cursor.offset += bytes;
        self.cursor.batch += 1;
        self.frame.before = self.frame.after;
        self.cursor.segments.add(&self.frame.effects);

        let location = FrameLocation { segment, offset, bytes };
        let shared = self.shared.clone();
        let mut state = shared.lock();
        state.settle(self.handled, &location, &self.frame.effects);
        shared.publish(&state);
        drop(state);
        self.reclaim();
        Ok(())
    }

    /// Switches to a new segment, with room for a frame of `frame_bytes`.
    fn next_segment(&mut self, frame_bytes: u64) -> Result<(), WalError> {
        let spare = self.pool.take(PAGE_BYTES + frame_bytes)?;
        let full = self.cursor.segments.active().header;
        let sequence = full.sequence + 1;
        let LogSummary { hard, last } = self.frame.before;
        let header = SegmentHeader {
            member: full.member,
            sequence,
            salt: format::salt(self.salt_seed, sequence),
            salt_before: full.salt,
            segment_bytes: spare.bytes,
            first_batch: self.cursor.batch,
            last,
            hard,
        };
        let segment = spare.activate(&*self.pool.disk, &self.pool.dir, header)?;
        self.cursor.segments.push(Arc::new(segment));
        self.cursor.offset = PAGE_BYTES;
        self.send_task(SegmentTask::Fill);
        Ok(())
    }

    /// Removes the segments that hold only purged entries.
    fn reclaim(&mut self) {
        let first = next_index(self.frame.before.hard.purged);
        let purged = self.cursor.segments.take_purged(first);
        if !purged.is_empty() {
            self.send_task(SegmentTask::Remove(purged));
        }
        self.shared.lock().set_disk_bytes(self.cursor.segments.bytes());
    }

    fn send_task(&self, task: SegmentTask) {
        // If a panic has ended the segment worker, the process is about to end, or the writer makes its
        // segments itself.
        let _ = self.tasks.send(task);
    }
}

impl Frame {
    fn add(&mut self, request: Request) {
        if let Change::Committed(position) = request.change {
            self.committed = Some(position);
        } else {
            self.put_committed();
            self.put(request.change);
        }
        self.done.extend(request.done);
    }

    fn put(&mut self, change: Change) {
        let LogSummary { hard, last } = &mut self.after;
        match change {
            Change::Append(entries) => {
                for entry in &entries {
                    format::put_entry_record(&mut self.bytes, entry);
                }
                if let (Some(head), Some(end)) = (entries.first(), entries.last()) {
                    let (first, end) = (head.position.index, end.position);
                    self.effects.push(Effect::Append { first, end: end.index + 1 });
                    *last = Some(end);
                }
            }
            Change::Vote(vote) => {
                format::put_vote_record(&mut self.bytes, vote);
                hard.vote = Some(vote);
            }
            Change::TruncateAfter(position) => {
                format::put_truncate_record(&mut self.bytes, position);
                self.effects.push(Effect::Truncate { next: next_index(position) });
                *last = position;
            }
            Change::Purge(position) => {
                format::put_purge_record(&mut self.bytes, position);
                self.effects.push(Effect::Purge { first: position.index + 1 });
                hard.purged = Some(position);
                if last.is_none_or(|last| last.index < position.index) {
                    *last = Some(position);
                }
            }
            Change::Committed(_) | Change::Flush => {}
        }
    }

    fn put_committed(&mut self) {
        if let Some(position) = self.committed.take() {
            format::put_committed_record(&mut self.bytes, position);
            self.after.hard.committed = Some(position);
        }
    }

    /// The size of the frame on disk; `None` when there is nothing to write.
    fn size(&self) -> Option<u64> {
        let payload_bytes = self.bytes.len() - FRAME_HEADER_BYTES;
        (payload_bytes > 0).then(|| format::frame_bytes(payload_bytes))
    }

    /// Prepares for the next frame. A pending commit mark stays.
    fn clear(&mut self) {
        self.after = self.before;
        self.effects.clear();
        self.bytes.truncate(FRAME_HEADER_BYTES);
        self.bytes.shrink_to(2 * FRAME_BYTES_MAX);
    }
}

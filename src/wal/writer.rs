//! The one lane that writes: all that waits becomes a frame, one sync makes it durable, and then
//! everybody is told, in the order they asked.

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
    frames::{Effect, FramePlace},
    metrics::WalMetrics,
    positions::next_index,
    segments::Segments,
    state::State,
    upkeep::{Chore, Spares},
};
use crate::{
    fault::Fault,
    types::{HardState, LogEntry, LogPosition, Vote},
};

/// A frame takes no further request once it is this large. A single request may be larger.
const FRAME_BYTES_MAX: usize = 8 << 20;

/// A sync that takes longer is worth a word in the log: elections are near (etcd's bound).
const SLOW_SYNC: Duration = Duration::from_secs(1);

/// Told when a request is durable, or that it may not be. Runs on the writer's lane: must not block.
pub(super) type Done = Box<dyn FnOnce(Result<(), WalError>) + Send>;

/// Something to write down, which [`State`] has accepted.
pub(super) struct Request {
    pub(super) change: Change,
    pub(super) done: Option<Done>,
}

pub(super) enum Change {
    Append(Vec<LogEntry>),
    Vote(Vote),
    /// Written before whatever comes next; not worth a frame of its own.
    Committed(LogPosition),
    TruncateAfter(Option<LogPosition>),
    Purge(LogPosition),
    /// Nothing new, but what waits for company is written.
    Flush,
}

/// What the lanes share with the handles of the log.
#[derive(Debug)]
pub(super) struct Ledger {
    state: Mutex<State>,
    durable: watch::Sender<Option<u64>>,
}

impl Ledger {
    pub(super) fn new(state: State) -> Ledger {
        Ledger { durable: watch::Sender::new(state.durable()), state: Mutex::new(state) }
    }

    /// Panics if somebody panicked in here: an impossible request must not be survived.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody made an impossible request of the log")
    }

    /// Says how far the log is durable, while nobody can change it.
    pub(super) fn publish(&self, state: &MutexGuard<'_, State>) {
        let durable = state.durable();
        self.durable.send_if_modified(|now| std::mem::replace(now, durable) != durable);
    }

    pub(super) fn durable(&self) -> watch::Receiver<Option<u64>> {
        self.durable.subscribe()
    }
}

/// Where the log goes on.
#[derive(Debug)]
pub(super) struct End {
    pub(super) segments: Segments,
    /// Where the next frame goes, in the active segment.
    pub(super) offset: u64,
    /// The number of the next frame.
    pub(super) batch: u64,
}

/// What the writer shares with the rest of the log, and with the member.
pub(super) struct Shared {
    pub(super) ledger: Arc<Ledger>,
    pub(super) spares: Arc<Spares>,
    pub(super) metrics: Arc<WalMetrics>,
    pub(super) fault: Fault,
}

pub(super) struct Writer {
    ledger: Arc<Ledger>,
    spares: Arc<Spares>,
    metrics: Arc<WalMetrics>,
    chores: mpsc::UnboundedSender<Chore>,
    fault: Fault,
    salt_seed: u64,
    end: End,
    /// Counts requests as `State` does.
    handled: u64,
    frame: Frame,
    /// Once this is set nothing is written any more.
    failed: Option<WalError>,
}

/// What frames so far come down to: a new segment's header carries it.
#[derive(Debug, Clone, Copy)]
struct Carried {
    hard: HardState,
    last: Option<LogPosition>,
}

/// The frame that is being put together.
struct Frame {
    /// Room for the header, then records.
    bytes: Vec<u8>,
    /// With the frames on disk, and with this one too.
    before: Carried,
    after: Carried,
    effects: Vec<Effect>,
    /// Those who wait for it.
    done: Vec<Done>,
    /// The last commit mark, while it is not among the records.
    committed: Option<LogPosition>,
}

impl Writer {
    pub(super) fn new(
        end: End,
        shared: Shared,
        chores: mpsc::UnboundedSender<Chore>,
        salt_seed: u64,
    ) -> Writer {
        let Shared { ledger, spares, metrics, fault } = shared;
        let mut state = ledger.lock();
        state.set_disk_bytes(end.segments.bytes());
        let carried = Carried { hard: state.hard(), last: state.positions().last() };
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
            ledger,
            spares,
            metrics,
            chores,
            fault,
            salt_seed,
            end,
            handled,
            frame,
            failed: None,
        };
        writer.reclaim();
        writer.chore(Chore::Fill);
        writer
    }

    /// The lane's handler.
    pub(super) fn handle(&mut self, requests: &mut Vec<Request>) {
        for request in requests.drain(..) {
            self.handled += 1;
            self.frame.add(request);
            if self.frame.bytes.len() >= FRAME_BYTES_MAX {
                self.commit();
            }
        }
        self.commit();
    }

    /// Writes the frame, syncs it, and tells who waited.
    fn commit(&mut self) {
        if self.failed.is_none()
            && let Err(error) = self.write_frame()
        {
            self.fault.stop(&error);
            self.failed = Some(error);
        }
        for done in self.frame.done.drain(..) {
            done(self.failed.clone().map_or(Ok(()), Err));
        }
        self.frame.clear();
    }

    fn write_frame(&mut self) -> Result<(), WalError> {
        let Some(bytes) = self.frame.size() else { return Ok(()) };
        if !self.end.segments.active().has_room(self.end.offset, bytes) {
            self.next_segment(bytes)?;
        }
        let segment = self.end.segments.active().clone();
        let offset = self.end.offset;
        format::seal_frame(&mut self.frame.bytes, segment.header.salt, self.end.batch);
        let begun = Instant::now();
        segment.write(&self.frame.bytes, offset)?;
        let written = Instant::now();
        segment.sync(offset)?;
        self.metrics.write.observe(written - begun);
        let took = written.elapsed();
        self.metrics.sync.observe(took);
        if took > SLOW_SYNC {
            tracing::warn!(?took, bytes, "slow fdatasync");
        }
        self.metrics.written_bytes.add(bytes);
        self.end.offset += bytes;
        self.end.batch += 1;
        self.frame.before = self.frame.after;
        self.end.segments.add(&self.frame.effects);

        let place = FramePlace { segment, offset, bytes };
        let ledger = self.ledger.clone();
        let mut state = ledger.lock();
        state.settle(self.handled, &place, &self.frame.effects);
        ledger.publish(&state);
        drop(state);
        self.reclaim();
        Ok(())
    }

    /// Goes on in a new segment, with room for a frame of `frame_bytes`.
    fn next_segment(&mut self, frame_bytes: u64) -> Result<(), WalError> {
        let spare = self.spares.take(PAGE_BYTES + frame_bytes)?;
        let full = self.end.segments.active().header;
        let sequence = full.sequence + 1;
        let Carried { hard, last } = self.frame.before;
        let header = SegmentHeader {
            member: full.member,
            sequence,
            salt: format::salt(self.salt_seed, sequence),
            salt_before: full.salt,
            segment_bytes: spare.bytes,
            first_batch: self.end.batch,
            last,
            hard,
        };
        let segment = spare.activate(&*self.spares.disk, &self.spares.dir, header)?;
        self.end.segments.push(Arc::new(segment));
        self.end.offset = PAGE_BYTES;
        self.chore(Chore::Fill);
        Ok(())
    }

    /// Has the segments removed that hold nothing but what was purged.
    fn reclaim(&mut self) {
        let first = next_index(self.frame.before.hard.purged);
        let purged = self.end.segments.take_purged(first);
        if !purged.is_empty() {
            self.chore(Chore::Remove(purged));
        }
        self.ledger.lock().set_disk_bytes(self.end.segments.bytes());
    }

    fn chore(&self, chore: Chore) {
        // A panic may have ended the upkeep; then the process is about to end too, or the writer
        // makes its segments itself.
        let _ = self.chores.send(chore);
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
        let Carried { hard, last } = &mut self.after;
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

    /// Ready for the next; a commit mark that nothing followed stays.
    fn clear(&mut self) {
        self.after = self.before;
        self.effects.clear();
        self.bytes.truncate(FRAME_HEADER_BYTES);
        self.bytes.shrink_to(2 * FRAME_BYTES_MAX);
    }
}

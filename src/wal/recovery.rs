//! Opening: reads all segments back, decides where the log ends, refuses what is damaged.
//!
//! Opening never needs space, except for the first segment ever, and what it reports is durable when
//! it returns: the final frame may have been in the page cache only, because the process before died
//! before its sync, or because that sync failed and left the pages marked clean. So that frame is
//! written once more, and synced; the bytes are the same, so a torn write changes nothing.

use std::{path::Path, sync::Arc};

use bytes::Bytes;

use super::{
    WalOptions,
    error::WalError,
    format::{self, FRAME_HEADER_BYTES, PAGE_BYTES, Record, SegmentHeader, frame_bytes},
    frames::{Effect, FramePlace},
    positions::next_index,
    segment::{self, Probe, Remains, Segment, Spare},
    segments::Segments,
    state::State,
    writer::End,
};
use crate::{disk::Disk, types::HardState};

/// A log as it was found, and where it goes on.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) state: State,
    pub(super) end: End,
}

/// Reads the log in `dir`; makes an empty one if there is none.
pub(super) fn recover(
    disk: &dyn Disk,
    dir: &Path,
    options: &WalOptions,
) -> Result<Recovered, WalError> {
    assert!(segment::is_segment_length(options.segment_bytes), "segments are whole pages");
    disk.create_dir_all(dir).map_err(WalError::io(dir, 0, "create the directory"))?;
    let found = open_segments(disk, dir, options)?;
    let Some(first) = found.first() else {
        return create(disk, dir, options);
    };
    check_chain(&found)?;
    let mut replay = Replay::new(first.header, options.tail_bytes);
    for (segment, next) in found.iter().zip(&found[1..]) {
        replay.closed_segment(segment, &next.header)?;
    }
    let last = found.last().unwrap_or(first);
    let remains = replay.last_segment(last)?;
    replay.check_whole(first)?;
    replay.make_durable(last, &remains)?;
    disk.sync_dir(dir).map_err(WalError::io(dir, 0, "sync the directory"))?;
    Ok(replay.recovered)
}

/// The segments in order. Files that never became one are removed.
fn open_segments(
    disk: &dyn Disk,
    dir: &Path,
    options: &WalOptions,
) -> Result<Vec<Arc<Segment>>, WalError> {
    let mut sequences = Vec::new();
    for name in disk.list(dir).map_err(WalError::io(dir, 0, "list"))? {
        let path = dir.join(&name);
        if let Some(sequence) = segment::parse_file_name(&name) {
            sequences.push(sequence);
        } else if segment::is_spare_name(&name) {
            disk.remove(&path).map_err(WalError::io(&path, 0, "remove"))?;
        } else {
            tracing::warn!(file = %path.display(), "not a file of the log; left alone");
        }
    }
    sequences.sort_unstable();
    let open = |sequence| Segment::open(disk, dir, sequence, options.member).map(Arc::new);
    sequences.into_iter().map(open).collect()
}

fn create(disk: &dyn Disk, dir: &Path, options: &WalOptions) -> Result<Recovered, WalError> {
    let header = SegmentHeader {
        member: options.member,
        sequence: 1,
        salt: format::salt(options.salt_seed, 1),
        salt_before: 0,
        segment_bytes: options.segment_bytes,
        first_batch: 1,
        last: None,
        hard: HardState::default(),
    };
    let spare = Spare::prepare(disk, dir, 0, options.segment_bytes)?;
    let segment = Arc::new(spare.activate(disk, dir, header)?);
    let mut replay = Replay::new(header, options.tail_bytes);
    replay.begin(&segment);
    Ok(replay.recovered)
}

/// Each segment must follow the one before: no gap, and no segment of another log or an older copy.
fn check_chain(found: &[Arc<Segment>]) -> Result<(), WalError> {
    for (before, after) in found.iter().zip(&found[1..]) {
        let due = before.header.sequence + 1;
        let what = if after.header.sequence != due {
            format!("segment {due:016x} before it is missing")
        } else if after.header.salt_before != before.header.salt {
            "it does not continue the segment before it".into()
        } else {
            continue;
        };
        return Err(WalError::damaged(&after.path, 0, what));
    }
    Ok(())
}

/// Reading in progress.
struct Replay {
    recovered: Recovered,
    /// Frames so far; each counts as a request that settles itself.
    frames: u64,
    /// The payload of the last frame in the segment that is being read.
    last_payload: Option<Bytes>,
}

impl Replay {
    fn new(first: SegmentHeader, tail_bytes: usize) -> Replay {
        let recovered = Recovered {
            state: State::after(first.last, first.hard, tail_bytes),
            end: End {
                segments: Segments::default(),
                offset: PAGE_BYTES,
                batch: first.first_batch,
            },
        };
        Replay { recovered, frames: 0, last_payload: None }
    }

    fn begin(&mut self, segment: &Arc<Segment>) {
        self.recovered.end.segments.push(segment.clone());
        self.recovered.end.offset = PAGE_BYTES;
        self.last_payload = None;
    }

    /// A segment that another one follows: it must hold every frame up to that one's first.
    fn closed_segment(
        &mut self,
        segment: &Arc<Segment>,
        next: &SegmentHeader,
    ) -> Result<(), WalError> {
        self.begin(segment);
        while self.recovered.end.batch < next.first_batch {
            if let Err(what) = self.frame(segment)? {
                let what = format!("frame {}: {what}", self.recovered.end.batch);
                return Err(WalError::damaged(&segment.path, self.recovered.end.offset, what));
            }
        }
        let state = &self.recovered.state;
        if self.recovered.end.batch != next.first_batch
            || state.hard() != next.hard
            || state.positions().last() != next.last
        {
            let what = "the next segment's header does not agree with what is here";
            return Err(WalError::damaged(&segment.path, self.recovered.end.offset, what));
        }
        Ok(())
    }

    /// The segment where the log ends, which is found here. Changes nothing yet.
    fn last_segment(&mut self, segment: &Arc<Segment>) -> Result<Remains, WalError> {
        self.begin(segment);
        let flaw = loop {
            if let Err(what) = self.frame(segment)? {
                break what;
            }
        };
        let End { offset, batch, .. } = self.recovered.end;
        let remains = segment.remains(offset, batch)?;
        if let Some(later) = remains.later_frame {
            let what = format!("frame {batch}: {flaw}; yet a later frame is at offset {later}");
            return Err(WalError::damaged(&segment.path, offset, what));
        }
        if !remains.dirty.is_empty() {
            tracing::warn!(
                file = %segment.path.display(), offset, frame = batch, flaw,
                pages = remains.dirty.len(), "cutting a frame that was never finished"
            );
        }
        Ok(remains)
    }

    /// Zeroes what remains of a torn frame, writes the final frame once more, and syncs both.
    fn make_durable(&mut self, segment: &Segment, remains: &Remains) -> Result<(), WalError> {
        let End { offset, batch, .. } = self.recovered.end;
        for page in &remains.dirty {
            segment.zero_page(*page)?;
        }
        if let Some(payload) = &self.last_payload {
            let mut frame = vec![0; FRAME_HEADER_BYTES];
            frame.extend_from_slice(payload);
            format::seal_frame(&mut frame, segment.header.salt, batch - 1);
            segment.write(&frame, offset - frame.len() as u64)?;
        }
        segment.sync(offset)
    }

    /// Takes the frame that is due; the inner error says why there is none.
    fn frame(&mut self, segment: &Arc<Segment>) -> Result<Result<(), &'static str>, WalError> {
        let offset = self.recovered.end.offset;
        if !segment.has_room(offset, PAGE_BYTES) {
            return Ok(Err("the segment is full"));
        }
        let payload = match segment.probe(offset)? {
            Probe::Frame(header, payload) if header.batch == self.recovered.end.batch => payload,
            Probe::Frame(..) => return Ok(Err("another frame's number")),
            Probe::Bad(what) => return Ok(Err(what)),
        };
        let bytes = frame_bytes(payload.len());
        let place = FramePlace { segment: segment.clone(), offset, bytes };
        format::records(payload.clone())
            .and_then(|records| self.apply(records, &place))
            .map_err(|what| WalError::damaged(&segment.path, offset, what))?;
        self.last_payload = Some(payload);
        self.recovered.end.offset += bytes;
        self.recovered.end.batch += 1;
        Ok(Ok(()))
    }

    fn apply(&mut self, records: Vec<Record>, place: &FramePlace) -> Result<(), String> {
        let state = &mut self.recovered.state;
        let mut effects = Vec::new();
        for record in records {
            effects.extend(Effect::of(&record));
            state.apply(record)?;
        }
        state.end_request();
        self.frames += 1;
        state.settle(self.frames, place, &effects);
        self.recovered.end.segments.add(&effects);
        Ok(())
    }

    /// Nothing may be missing between what was purged and the first entry that is there.
    fn check_whole(&self, first: &Segment) -> Result<(), WalError> {
        let state = &self.recovered.state;
        let (due, found) = (next_index(state.hard().purged), state.positions().first());
        if found > due {
            let what = format!("entries {due}..{found} are missing before it");
            return Err(WalError::damaged(&first.path, 0, what));
        }
        Ok(())
    }
}

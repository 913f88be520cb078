//! Recovery: reads all segments, finds the end of the log, and refuses damage.
//!
//! Recovery needs no disk space, except to create the very first segment. The state that it reports
//! is durable when it returns. The final frame may have been in the page cache only, because the
//! previous process died before its sync, or because that sync failed and left the pages marked clean.
//! So recovery writes that frame once more and syncs it. The bytes are the same, so a torn write
//! changes nothing.

use std::{path::Path, sync::Arc};

use bytes::Bytes;

use super::{
    WalOptions,
    error::WalError,
    format::{self, FRAME_HEADER_BYTES, PAGE_BYTES, Record, SegmentHeader, frame_bytes},
    frames::{Effect, FrameLocation},
    positions::next_index,
    segment::{self, PreallocatedFile, Probe, Segment, TrailingPages},
    segments::Segments,
    state::State,
    writer::WriteCursor,
};
use crate::{disk::Disk, types::HardState};

/// The state of a recovered log, and the position of its next write.
#[derive(Debug)]
pub struct RecoveredLog {
    pub state: State,
    pub cursor: WriteCursor,
}

/// Reads the log in `dir`, or creates an empty one.
pub fn recover(
    disk: &dyn Disk,
    dir: &Path,
    options: &WalOptions,
) -> Result<RecoveredLog, WalError> {
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
    let trailing = replay.last_segment(last)?;
    replay.check_whole(first)?;
    replay.make_durable(last, &trailing)?;
    disk.sync_dir(dir).map_err(WalError::io(dir, 0, "sync the directory"))?;
    Ok(replay.recovered)
}

/// Opens the segments in order, and removes files that never became one.
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
            tracing::warn!(file = %path.display(), "unknown file in the log directory ignored");
        }
    }
    sequences.sort_unstable();
    let open = |sequence| Segment::open(disk, dir, sequence, options.member).map(Arc::new);
    sequences.into_iter().map(open).collect()
}

fn create(disk: &dyn Disk, dir: &Path, options: &WalOptions) -> Result<RecoveredLog, WalError> {
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
    let spare = PreallocatedFile::prepare(disk, dir, 0, options.segment_bytes)?;
    let segment = Arc::new(spare.activate(disk, dir, header)?);
    let mut replay = Replay::new(header, options.tail_bytes);
    replay.begin(&segment);
    Ok(replay.recovered)
}

/// Each segment must continue the previous one: no gap, no segment of another log or of an older copy.
fn check_chain(found: &[Arc<Segment>]) -> Result<(), WalError> {
    for (before, after) in found.iter().zip(&found[1..]) {
        let next = before.header.sequence + 1;
        let problem = if after.header.sequence != next {
            format!("segment {next:016x} before it is missing")
        } else if after.header.salt_before != before.header.salt {
            "it does not continue the segment before it".into()
        } else {
            continue;
        };
        return Err(WalError::damaged(&after.path, 0, problem));
    }
    Ok(())
}

/// A recovery in progress.
struct Replay {
    recovered: RecoveredLog,
    /// Frames so far. Each counts as one request, which is settled at once.
    frames: u64,
    /// The payload of the last frame in the current segment.
    last_payload: Option<Bytes>,
}

impl Replay {
    fn new(first: SegmentHeader, tail_bytes: usize) -> Replay {
        let recovered = RecoveredLog {
            state: State::after(first.last, first.hard, tail_bytes),
            cursor: WriteCursor {
                segments: Segments::default(),
                offset: PAGE_BYTES,
                batch: first.first_batch,
            },
        };
        Replay { recovered, frames: 0, last_payload: None }
    }

    fn begin(&mut self, segment: &Arc<Segment>) {
        self.recovered.cursor.segments.push(segment.clone());
        self.recovered.cursor.offset = PAGE_BYTES;
        self.last_payload = None;
    }

    /// Reads a segment that is not the last: it must hold every frame up to the first of the next one.
    fn closed_segment(
        &mut self,
        segment: &Arc<Segment>,
        next: &SegmentHeader,
    ) -> Result<(), WalError> {
        self.begin(segment);
        while self.recovered.cursor.batch < next.first_batch {
            if let Err(problem) = self.frame(segment)? {
                let problem = format!("frame {}: {problem}", self.recovered.cursor.batch);
                return Err(WalError::damaged(
                    &segment.path,
                    self.recovered.cursor.offset,
                    problem,
                ));
            }
        }
        let state = &self.recovered.state;
        if self.recovered.cursor.batch != next.first_batch
            || state.hard() != next.hard
            || state.positions().last() != next.last
        {
            let problem = "the next segment's header does not match this segment";
            return Err(WalError::damaged(&segment.path, self.recovered.cursor.offset, problem));
        }
        Ok(())
    }

    /// Reads the last segment and finds the end of the log in it. Changes nothing on disk.
    fn last_segment(&mut self, segment: &Arc<Segment>) -> Result<TrailingPages, WalError> {
        self.begin(segment);
        let flaw = loop {
            if let Err(problem) = self.frame(segment)? {
                break problem;
            }
        };
        let WriteCursor { offset, batch, .. } = self.recovered.cursor;
        let trailing = segment.scan_trailing(offset, batch)?;
        if let Some(later) = trailing.later_frame {
            let problem = format!("frame {batch}: {flaw}; yet a later frame is at offset {later}");
            return Err(WalError::damaged(&segment.path, offset, problem));
        }
        if !trailing.dirty.is_empty() {
            tracing::warn!(
                file = %segment.path.display(), offset, frame = batch, flaw,
                pages = trailing.dirty.len(), "cutting a torn frame"
            );
        }
        Ok(trailing)
    }

    /// Zeroes the pages of a torn frame, writes the final frame once more, and syncs both.
    fn make_durable(
        &mut self,
        segment: &Segment,
        trailing: &TrailingPages,
    ) -> Result<(), WalError> {
        let WriteCursor { offset, batch, .. } = self.recovered.cursor;
        for page in &trailing.dirty {
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

    /// Reads the next frame. The inner error says why there is none.
    fn frame(&mut self, segment: &Arc<Segment>) -> Result<Result<(), &'static str>, WalError> {
        let offset = self.recovered.cursor.offset;
        if !segment.has_room(offset, PAGE_BYTES) {
            return Ok(Err("the segment is full"));
        }
        let payload = match segment.probe(offset)? {
            Probe::Frame(header, payload) if header.batch == self.recovered.cursor.batch => payload,
            Probe::Frame(..) => return Ok(Err("another frame's number")),
            Probe::Invalid(problem) => return Ok(Err(problem)),
        };
        let bytes = frame_bytes(payload.len());
        let location = FrameLocation { segment: segment.clone(), offset, bytes };
        format::records(payload.clone())
            .and_then(|records| self.apply(records, &location))
            .map_err(|problem| WalError::damaged(&segment.path, offset, problem))?;
        self.last_payload = Some(payload);
        self.recovered.cursor.offset += bytes;
        self.recovered.cursor.batch += 1;
        Ok(Ok(()))
    }

    fn apply(&mut self, records: Vec<Record>, location: &FrameLocation) -> Result<(), String> {
        let state = &mut self.recovered.state;
        let mut effects = Vec::new();
        for record in records {
            effects.extend(Effect::of(&record));
            state.apply(record)?;
        }
        state.end_request();
        self.frames += 1;
        state.settle(self.frames, location, &effects);
        self.recovered.cursor.segments.add(&effects);
        Ok(())
    }

    /// No entry may be missing between the purged position and the first entry.
    fn check_whole(&self, first: &Segment) -> Result<(), WalError> {
        let state = &self.recovered.state;
        let (expected, found) = (next_index(state.hard().purged), state.positions().first());
        if found > expected {
            let problem = format!("entries {expected}..{found} are missing before it");
            return Err(WalError::damaged(&first.path, 0, problem));
        }
        Ok(())
    }
}

//! The lane that reads back what memory no longer holds.

use std::ops::Range;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::{
    error::WalError,
    format::{self, Record},
    frames::FrameRef,
    positions::next_index,
    segment::Probe,
    tail::Budget,
};
use crate::{fault::Fault, types::LogEntry};

/// Whoever reads waits for the answer, so the queue holds at most one for each reader.
pub(super) struct ReadRequest {
    /// In index order.
    pub(super) frames: Vec<FrameRef>,
    /// They hold all of it, or at least its beginning.
    pub(super) range: Range<u64>,
    pub(super) bytes_max: usize,
    pub(super) reply: oneshot::Sender<Result<Vec<LogEntry>, WalError>>,
}

/// The lane's handler. What cannot be read back stops the member.
pub(super) fn reader(fault: Fault) -> impl FnMut(&mut Vec<ReadRequest>) + Send {
    move |requests| {
        for request in requests.drain(..) {
            let entries = read(&request.frames, request.range, request.bytes_max);
            if let Err(error) = &entries {
                fault.stop(error);
            }
            // Whoever asked may have gone away.
            let _ = request.reply.send(entries);
        }
    }
}

fn read(
    frames: &[FrameRef],
    range: Range<u64>,
    bytes_max: usize,
) -> Result<Vec<LogEntry>, WalError> {
    let mut found: Vec<LogEntry> = Vec::new();
    let mut budget = Budget::new(bytes_max);
    for frame in frames {
        let (segment, offset) = (&frame.place.segment, frame.place.offset);
        let damaged = |what: String| WalError::damaged(&segment.path, offset, what);
        let payload = match segment.probe(offset)? {
            Probe::Frame(_, payload) => payload,
            Probe::Bad(what) => return Err(damaged(what.into())),
        };
        let mut due = frame.first.max(range.start);
        let end = frame.end.min(range.end);
        for entry in entries(payload).map_err(damaged)? {
            if entry.position.index != due || due == end {
                continue;
            }
            if !budget.admits(&entry) {
                return Ok(found);
            }
            found.push(entry);
            due += 1;
        }
        if due < end {
            return Err(damaged(format!("entry {due} is not in its frame")));
        }
    }
    Ok(found)
}

/// The entries a frame leaves in the log.
fn entries(payload: Bytes) -> Result<Vec<LogEntry>, String> {
    let mut entries: Vec<LogEntry> = Vec::new();
    for record in format::records(payload)? {
        match record {
            Record::Entry(entry) => entries.push(entry),
            Record::TruncateAfter(position) => {
                entries.retain(|entry| entry.position.index < next_index(position));
            }
            Record::Vote(_) | Record::Committed(_) | Record::Purge(_) => {}
        }
    }
    Ok(entries)
}

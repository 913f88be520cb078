//! The lane that reads entries from disk that are no longer in memory.

use std::ops::Range;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::{
    error::WalError,
    format::{self, Record},
    frames::FrameRef,
    positions::next_index,
    segment::Probe,
    tail::ReadBudget,
};
use crate::{fault::Fault, types::LogEntry};

/// Each reader waits for its reply, so the queue holds at most one request per reader.
pub struct ReadRequest {
    /// In index order.
    pub frames: Vec<FrameRef>,
    /// The frames hold the whole range, or a prefix of it.
    pub range: Range<u64>,
    pub bytes_max: usize,
    pub reply: oneshot::Sender<Result<Vec<LogEntry>, WalError>>,
}

/// The lane's handler. A failed read stops the member.
pub fn reader(fault: Fault) -> impl FnMut(&mut Vec<ReadRequest>) + Send {
    move |requests| {
        for request in requests.drain(..) {
            let entries = read(&request.frames, request.range, request.bytes_max);
            if let Err(error) = &entries {
                fault.stop(error);
            }
            // The requester may be gone.
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
    let mut budget = ReadBudget::new(bytes_max);
    for frame in frames {
        let (segment, offset) = (&frame.location.segment, frame.location.offset);
        let damaged = |problem: String| WalError::damaged(&segment.path, offset, problem);
        let payload = match segment.probe(offset)? {
            Probe::Frame(_, payload) => payload,
            Probe::Invalid(problem) => return Err(damaged(problem.into())),
        };
        let mut next = frame.first.max(range.start);
        let end = frame.end.min(range.end);
        for entry in entries(payload).map_err(damaged)? {
            if entry.position.index != next || next == end {
                continue;
            }
            if !budget.admits(&entry) {
                return Ok(found);
            }
            found.push(entry);
            next += 1;
        }
        if next < end {
            return Err(damaged(format!("entry {next} is not in its frame")));
        }
    }
    Ok(found)
}

/// The entries that a frame leaves in the log.
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

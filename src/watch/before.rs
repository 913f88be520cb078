//! What was there before an event, for those who want to know.
//!
//! It may be on disk, and it may be much more than the event: a deletion is its key, and before it
//! was a value. So the watch lane takes what is in memory, and only so much; all else is for the history
//! lane, which reads several together and stops between two revisions once it has enough.

use std::{cell::Cell, sync::Arc};

use super::history::{Audience, Interest};
use crate::state::{Past, Record, StorageError, View};

/// So many are read together: they may be large, and nobody knows before.
const READ_TOGETHER: usize = 16;

/// It is not in memory, or too much: the history lane is to tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ForHistory;

/// Answers of each of `records` what was there before, as far as memory knows, until it has come to
/// `bytes_max`.
pub(super) fn remembered<'a>(
    view: &'a View,
    records: &'a [Arc<Record>],
    bytes_max: usize,
) -> impl Fn(usize) -> Result<Option<Arc<Record>>, ForHistory> + 'a {
    let bytes = Cell::new(0);
    move |at| {
        if bytes.get() >= bytes_max {
            return Err(ForHistory);
        }
        let meta = &records[at].meta;
        let before = view.previous_in_memory(&meta.key, meta.id.main).map_err(|_| ForHistory)?;
        bytes.set(bytes.get() + before.as_ref().map_or(0, |record| record.bytes()));
        Ok(before)
    }
}

/// Reads, of each record, what was there before if one of the interests wants it. Where that comes to
/// more than `bytes_max` with the records themselves, ends the piece of the past after as many whole
/// revisions as that is, one at least.
pub(super) fn read(
    past: &mut Past,
    interests: &[Interest],
    bytes_max: usize,
) -> Result<Vec<Option<Arc<Record>>>, StorageError> {
    let mut before = vec![None; past.records.len()];
    if !interests.iter().any(|interest| interest.wants.previous) {
        return Ok(before);
    }
    let wanted = wanted(&past.records, interests);
    let (mut bytes, mut end) = (0, 0);
    while end < past.records.len() && bytes < bytes_max {
        let start = end;
        end = batch_end(&past.records, &wanted, start);
        let asked: Vec<usize> = (start..end).filter(|at| wanted[*at]).collect();
        let records: Vec<_> = asked.iter().map(|at| past.records[*at].clone()).collect();
        let found = past.previous(&records)?;
        asked.into_iter().zip(found).for_each(|(at, found)| before[at] = found);
        // Of the batch, so many revisions as are wanted.
        let batch = start..end;
        end = start;
        for revision in revisions(&past.records[batch]) {
            if bytes >= bytes_max {
                break;
            }
            let before = before[end..end + revision.len()].iter().flatten();
            bytes += revision.iter().chain(before).map(|record| record.bytes()).sum::<usize>();
            end += revision.len();
        }
    }
    if let Some(first_left) = past.records.get(end) {
        past.next = first_left.meta.id.main;
        past.records.truncate(end);
        before.truncate(end);
    }
    Ok(before)
}

fn revisions(records: &[Arc<Record>]) -> impl Iterator<Item = &[Arc<Record>]> {
    records.chunk_by(|one, other| one.meta.id.main == other.meta.id.main)
}

/// Of which records somebody wants to know what was there before.
fn wanted(records: &[Arc<Record>], interests: &[Interest]) -> Vec<bool> {
    let mut wanted = vec![false; records.len()];
    for (who, which) in Audience::of(interests).hearing(records) {
        let who = || who.iter().map(|at| &interests[*at]).filter(|who| who.wants.previous);
        for at in which.into_iter().map(|at| at as usize) {
            let meta = &records[at].meta;
            wanted[at] |= !meta.is_creation()
                && who().any(|who| who.next <= meta.id.main && who.wants.hears(meta));
        }
    }
    wanted
}

/// Whole revisions, in which so much is wanted that it is to be read together.
fn batch_end(records: &[Arc<Record>], wanted: &[bool], start: usize) -> usize {
    let mut end = start;
    let mut together = 0;
    for revision in revisions(&records[start..]) {
        together += wanted[end..end + revision.len()].iter().filter(|wanted| **wanted).count();
        end += revision.len();
        if together >= READ_TOGETHER {
            break;
        }
    }
    end
}

//! Finds the previous value of each key that an event changes, for watches with `prev_kv`.
//!
//! Previous values may be on disk, and may be much larger than the events: a deletion is only a key. So
//! the watch lane takes only previous values that are in memory, up to a bound. The history lane does
//! the rest: it reads several at once, and stops between two revisions at its own bound.

use std::{cell::Cell, sync::Arc};

use super::groups::{GroupMatcher, WatchGroup};
use crate::state::{ChangeScan, Record, StorageError, View};

/// Previous values per read. A small number: values may be large, and their sizes are not known before
/// the read.
const READ_BATCH_RECORDS: usize = 16;

/// The previous value is not in memory, or the bound is reached: the history lane must read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotInMemory;

/// Looks up the previous value of one of `records`, by position, in memory only. Fails once all
/// answers together have reached `bytes_max`.
pub fn in_memory<'a>(
    view: &'a View,
    records: &'a [Arc<Record>],
    bytes_max: usize,
) -> impl Fn(usize) -> Result<Option<Arc<Record>>, NotInMemory> + 'a {
    let bytes = Cell::new(0);
    move |at| {
        if bytes.get() >= bytes_max {
            return Err(NotInMemory);
        }
        let meta = &records[at].meta;
        let prev_kv = view.previous_in_memory(&meta.key, meta.id.main).map_err(|_| NotInMemory)?;
        bytes.set(bytes.get() + prev_kv.as_ref().map_or(0, |record| record.bytes()));
        Ok(prev_kv)
    }
}

/// Reads the previous value of each record for which one of the groups needs it. When records and
/// previous values together exceed `bytes_max`, cuts `scan` after as many whole revisions as fit, at
/// least one.
pub fn read(
    scan: &mut ChangeScan,
    groups: &[WatchGroup],
    bytes_max: usize,
) -> Result<Vec<Option<Arc<Record>>>, StorageError> {
    let mut prev_kvs = vec![None; scan.records.len()];
    if !groups.iter().any(|group| group.options.prev_kv) {
        return Ok(prev_kvs);
    }
    let needed = needed(&scan.records, groups);
    let (mut bytes, mut end) = (0, 0);
    while end < scan.records.len() && bytes < bytes_max {
        let start = end;
        end = batch_end(&scan.records, &needed, start);
        let positions: Vec<usize> = (start..end).filter(|at| needed[*at]).collect();
        let records: Vec<_> = positions.iter().map(|at| scan.records[*at].clone()).collect();
        let found = scan.previous(&records)?;
        positions.into_iter().zip(found).for_each(|(at, found)| prev_kvs[at] = found);
        // The whole revisions of the batch that fit into the bound.
        let batch = start..end;
        end = start;
        for revision in revisions(&scan.records[batch]) {
            if bytes >= bytes_max {
                break;
            }
            let prev_kvs = prev_kvs[end..end + revision.len()].iter().flatten();
            bytes += revision.iter().chain(prev_kvs).map(|record| record.bytes()).sum::<usize>();
            end += revision.len();
        }
    }
    if let Some(first_left) = scan.records.get(end) {
        scan.next = first_left.meta.id.main;
        scan.records.truncate(end);
        prev_kvs.truncate(end);
    }
    Ok(prev_kvs)
}

fn revisions(records: &[Arc<Record>]) -> impl Iterator<Item = &[Arc<Record>]> {
    records.chunk_by(|one, other| one.meta.id.main == other.meta.id.main)
}

/// Whether a group needs the previous value, for each record.
fn needed(records: &[Arc<Record>], groups: &[WatchGroup]) -> Vec<bool> {
    let mut needed = vec![false; records.len()];
    for (group_positions, record_positions) in GroupMatcher::of(groups).matches(records) {
        let groups = || {
            let groups = group_positions.iter().map(|at| &groups[*at]);
            groups.filter(|group| group.options.prev_kv)
        };
        for at in record_positions.into_iter().map(|at| at as usize) {
            let meta = &records[at].meta;
            needed[at] |= !meta.is_creation()
                && groups().any(|group| group.next <= meta.id.main && group.options.includes(meta));
        }
    }
    needed
}

/// The end of the next batch: whole revisions that together need [`READ_BATCH_RECORDS`] previous values
/// or slightly more.
fn batch_end(records: &[Arc<Record>], needed: &[bool], start: usize) -> usize {
    let mut end = start;
    let mut count = 0;
    for revision in revisions(&records[start..]) {
        count += needed[end..end + revision.len()].iter().filter(|needed| **needed).count();
        end += revision.len();
        if count >= READ_BATCH_RECORDS {
            break;
        }
    }
    end
}

//! A range read, in steps of a bounded number of keys, all at one revision.
//!
//! A scan walks the index first: it counts, filters and collects the visible versions, without their
//! values. Then it sorts and truncates them, and finally fetches the values of the rest. So it holds
//! the index lock for [`WALK_KEYS`] keys at a time, and reads no value that is not returned. A step
//! that fails because a value is not in memory can be repeated from the disk.
//!
//! The combined meaning of limits, sorting and filters is etcd's, including its corner cases: see
//! [`Scan::collects_max`].

use std::sync::Arc;

use bytes::Bytes;

use super::{
    history::{History, Version},
    index::Index,
    record_source::RecordSource,
    sort,
    storage::{Record, StorageError},
};
use crate::types::{KeyRange, KeyValue, Range, RangeReply, Revision, SortOrder, SortTarget};

/// Keys visited under one hold of the index lock.
pub const WALK_KEYS: usize = 1024;

/// Records fetched at once.
pub const FETCH_RECORDS: usize = 128;

/// A range read in progress. `at` is pinned, unless the caller is the apply lane.
#[derive(Debug)]
pub struct Scan {
    range: Range,
    at: Revision,
    /// The keys that are not walked yet.
    rest: Option<KeyRange>,
    hits: Vec<Hit>,
    /// The key-values of the first hits.
    kvs: Vec<KeyValue>,
    count: i64,
}

/// A visible version that is in the result if the limit allows.
#[derive(Debug)]
struct Hit {
    /// Empty if the record is fetched anyway.
    key: Bytes,
    version: Version,
}

impl Scan {
    pub fn new(range: Range, at: Revision) -> Scan {
        let rest = Some(range.keys.clone());
        Scan { range, at, rest, hits: Vec::new(), kvs: Vec::new(), count: 0 }
    }

    /// Walks or fetches once. Returns the reply after the last step. After an error the step may be
    /// repeated.
    pub fn step(
        &mut self,
        index: &Index,
        records: &dyn RecordSource,
    ) -> Result<Option<RangeReply>, StorageError> {
        if let Some(keys) = self.rest.take() {
            self.walk(index, &keys);
            if self.rest.is_some() {
                return Ok(None);
            }
            self.sort_hits();
        }
        self.fetch(records)?;
        Ok((self.kvs.len() == self.hits.len()).then(|| self.reply()))
    }

    /// Takes all steps.
    pub fn finish(
        mut self,
        index: &Index,
        records: &dyn RecordSource,
    ) -> Result<RangeReply, StorageError> {
        loop {
            if let Some(reply) = self.step(index, records)? {
                return Ok(reply);
            }
        }
    }

    fn walk(&mut self, index: &Index, keys: &KeyRange) {
        let at = self.at;
        let collects_max = self.collects_max();
        let keyed = !self.needs_values();
        let (range, hits, count) = (&self.range, &mut self.hits, &mut self.count);
        self.rest = index.walk(keys, WALK_KEYS, |key, history: &History| {
            let Some(version) = history.at(at) else { return };
            *count += 1;
            if range.count_only || hits.len() >= collects_max || !admits(range, version) {
                return;
            }
            let key = if keyed { Bytes::copy_from_slice(key) } else { Bytes::new() };
            hits.push(Hit { key, version: *version });
        });
    }

    /// The maximum number of hits to collect. If the result is in key order, one more than the limit
    /// shows whether there is more. Like etcd, a scan also stops there if the request names a target
    /// without an order, and sorts only these hits; but with a revision filter it truncates last.
    fn collects_max(&self) -> usize {
        let Range { sort_order, sort_target, .. } = self.range;
        let truncates_early = match sort_order {
            SortOrder::None => sort_target == SortTarget::Key || !filters(&self.range),
            SortOrder::Ascend => sort_target == SortTarget::Key,
            SortOrder::Descend => false,
        };
        self.limit().filter(|_| truncates_early).map_or(usize::MAX, |limit| limit.saturating_add(1))
    }

    fn limit(&self) -> Option<usize> {
        usize::try_from(self.range.limit).ok().filter(|limit| *limit > 0)
    }

    fn needs_values(&self) -> bool {
        !self.range.keys_only || self.range.sort_target == SortTarget::Value
    }

    /// Sorts the hits and keeps one more than the limit.
    fn sort_hits(&mut self) {
        let number: fn(&Hit) -> i64 = match self.range.sort_target {
            SortTarget::Version => |hit| hit.version.version,
            SortTarget::Create => |hit| hit.version.created.0,
            SortTarget::Mod => |hit| hit.version.modified.0,
            SortTarget::Key => {
                if self.range.sort_order == SortOrder::Descend {
                    self.hits.reverse();
                }
                return self.truncate_hits();
            }
            SortTarget::Value => return,
        };
        sort_directed(&mut self.hits, self.range.sort_order, |a, b| number(a) < number(b));
        self.truncate_hits();
    }

    fn truncate_hits(&mut self) {
        if let Some(limit) = self.limit() {
            self.hits.truncate(limit.saturating_add(1));
        }
    }

    fn fetch(&mut self, records: &dyn RecordSource) -> Result<(), StorageError> {
        let todo = &self.hits[self.kvs.len()..];
        let todo = &todo[..todo.len().min(FETCH_RECORDS)];
        if self.needs_values() {
            let ids: Vec<_> = todo.iter().map(|hit| hit.version.id()).collect();
            let records = records.read(&ids)?;
            self.kvs.extend(records.iter().map(|record: &Arc<Record>| record.key_value()));
        } else {
            self.kvs.extend(todo.iter().map(Hit::without_value));
        }
        Ok(())
    }

    fn reply(&mut self) -> RangeReply {
        let mut kvs = std::mem::take(&mut self.kvs);
        if self.range.sort_target == SortTarget::Value {
            sort_directed(&mut kvs, self.range.sort_order, |a, b| a.value < b.value);
        }
        let more = self.limit().is_some_and(|limit| kvs.len() > limit);
        kvs.truncate(self.limit().unwrap_or(usize::MAX));
        if self.range.keys_only {
            kvs.iter_mut().for_each(|kv| kv.value = Bytes::new());
        }
        RangeReply { kvs, more, count: self.count }
    }
}

impl Hit {
    fn without_value(&self) -> KeyValue {
        KeyValue {
            key: self.key.clone(),
            value: Bytes::new(),
            create_revision: self.version.created,
            mod_revision: self.version.modified,
            version: self.version.version,
            lease: self.version.lease,
        }
    }
}

/// Sorts items that are in key order. A descending sort reverses the comparison, not the result, so
/// that equal items are in etcd's order: see [`sort`].
fn sort_directed<T>(items: &mut [T], order: SortOrder, less: impl Fn(&T, &T) -> bool) {
    match order {
        SortOrder::Descend => sort::sort(items, |a, b| less(b, a)),
        SortOrder::None | SortOrder::Ascend => sort::sort(items, less),
    }
}

fn filters(range: &Range) -> bool {
    [
        range.min_mod_revision,
        range.max_mod_revision,
        range.min_create_revision,
        range.max_create_revision,
    ]
    .iter()
    .any(|bound| *bound != Revision::ZERO)
}

fn admits(range: &Range, version: &Version) -> bool {
    let at_least = |min: Revision, revision| min == Revision::ZERO || revision >= min;
    let at_most = |max: Revision, revision| max == Revision::ZERO || revision <= max;
    at_least(range.min_mod_revision, version.modified)
        && at_most(range.max_mod_revision, version.modified)
        && at_least(range.min_create_revision, version.created)
        && at_most(range.max_create_revision, version.created)
}

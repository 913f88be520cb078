//! A range read, in steps of a bounded number of keys, all at one revision.
//!
//! First the index is walked: what is visible is counted, filtered, and remembered without its
//! value. Then it is sorted and cut. Then the values of what is left are fetched. So the index lock
//! is held for [`WALK_KEYS`] keys at a time, values that are not answered are not read, and a step
//! that fails for want of a value in memory can be repeated from the disk.
//!
//! What limits, sorts and filters mean together is etcd's, down to its corners: see
//! [`Scan::collects_max`].

use std::{cmp::Ordering, sync::Arc};

use bytes::Bytes;

use super::{
    history::{History, Version},
    index::Index,
    records::Records,
    storage::{Record, StorageError},
};
use crate::types::{KeyRange, KeyValue, Range, RangeReply, Revision, SortOrder, SortTarget};

/// So many keys of the index are visited under one hold of its lock.
pub(super) const WALK_KEYS: usize = 1024;

/// So many records are fetched at once.
pub(super) const FETCH_RECORDS: usize = 128;

/// A range read under way. `at` is pinned, or the caller is the apply lane.
#[derive(Debug)]
pub(super) struct Scan {
    range: Range,
    at: Revision,
    /// What is still to be walked.
    rest: Option<KeyRange>,
    hits: Vec<Hit>,
    /// The answers to the first so many hits.
    kvs: Vec<KeyValue>,
    count: i64,
}

/// A key that is in the answer, if the limit allows.
#[derive(Debug)]
struct Hit {
    /// Empty when the record is fetched anyway.
    key: Bytes,
    version: Version,
}

impl Scan {
    pub(super) fn new(range: Range, at: Revision) -> Scan {
        let rest = Some(range.keys.clone());
        Scan { range, at, rest, hits: Vec::new(), kvs: Vec::new(), count: 0 }
    }

    /// Walks or fetches once. Answers when there is nothing left to do. After an error the same step
    /// may be taken again.
    pub(super) fn step(
        &mut self,
        index: &Index,
        records: &dyn Records,
    ) -> Result<Option<RangeReply>, StorageError> {
        if let Some(keys) = self.rest.take() {
            self.walk(index, &keys);
            if self.rest.is_some() {
                return Ok(None);
            }
            self.arrange_hits();
        }
        self.fetch(records)?;
        Ok((self.kvs.len() == self.hits.len()).then(|| self.reply()))
    }

    /// Takes all steps.
    pub(super) fn finish(
        mut self,
        index: &Index,
        records: &dyn Records,
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

    /// Keys come in order, so where they are answered in that order one more than the limit is
    /// enough to know whether there is more. etcd also cuts there when a target is named without an
    /// order, and sorts what it then has; but with a revision filter it cuts last.
    fn collects_max(&self) -> usize {
        let Range { sort_order, sort_target, .. } = self.range;
        let cut_by_key = match sort_order {
            SortOrder::None => sort_target == SortTarget::Key || !filters(&self.range),
            SortOrder::Ascend => sort_target == SortTarget::Key,
            SortOrder::Descend => false,
        };
        self.limit().filter(|_| cut_by_key).map_or(usize::MAX, |limit| limit.saturating_add(1))
    }

    fn limit(&self) -> Option<usize> {
        usize::try_from(self.range.limit).ok().filter(|limit| *limit > 0)
    }

    fn needs_values(&self) -> bool {
        !self.range.keys_only || self.range.sort_target == SortTarget::Value
    }

    /// Sorts the hits and drops those that are surely not answered: one more than the limit stays.
    fn arrange_hits(&mut self) {
        let number: fn(&Hit) -> i64 = match self.range.sort_target {
            SortTarget::Version => |hit| hit.version.version,
            SortTarget::Create => |hit| hit.version.created.0,
            SortTarget::Mod => |hit| hit.version.modified.0,
            SortTarget::Key => {
                if self.range.sort_order == SortOrder::Descend {
                    self.hits.reverse();
                }
                return self.cut_hits();
            }
            SortTarget::Value => return,
        };
        let order = self.range.sort_order;
        self.hits.sort_by(|a, b| directed(order, number(a).cmp(&number(b))));
        self.cut_hits();
    }

    fn cut_hits(&mut self) {
        if let Some(limit) = self.limit() {
            self.hits.truncate(limit.saturating_add(1));
        }
    }

    fn fetch(&mut self, records: &dyn Records) -> Result<(), StorageError> {
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
            kvs.sort_by(|a, b| directed(self.range.sort_order, a.value.cmp(&b.value)));
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

fn directed(order: SortOrder, ascending: Ordering) -> Ordering {
    if order == SortOrder::Descend { ascending.reverse() } else { ascending }
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

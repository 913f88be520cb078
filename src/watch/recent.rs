//! The newest changes that the hub has passed on, for watches that are a little behind: without them
//! a slow watch would never catch up with a store that goes on.

use std::{collections::VecDeque, sync::Arc};

use crate::{state::Record, types::Revision};

/// All records of the revisions from `from` on.
#[derive(Debug)]
pub(super) struct Recent {
    records: VecDeque<Arc<Record>>,
    bytes: usize,
    bytes_max: usize,
    from: Revision,
}

impl Recent {
    pub(super) fn new(bytes_max: usize) -> Recent {
        Recent { records: VecDeque::new(), bytes: 0, bytes_max, from: Revision::ZERO }
    }

    /// Begins anew at this revision.
    pub(super) fn clear(&mut self, from: Revision) {
        *self = Recent { from, ..Recent::new(self.bytes_max) };
    }

    /// Adds all of the next revisions.
    pub(super) fn push(&mut self, records: &[Arc<Record>]) {
        self.bytes += records.iter().map(|record| record.bytes()).sum::<usize>();
        self.records.extend(records.iter().cloned());
        while self.bytes > self.bytes_max
            && let Some(oldest) = self.records.pop_front()
        {
            self.bytes -= oldest.bytes();
            // What is left of its revision does not count any more.
            self.from = oldest.meta.id.main.next();
        }
    }

    /// All records from this revision on, if they are here.
    pub(super) fn since(&self, revision: Revision) -> Option<Vec<Arc<Record>>> {
        if revision < self.from {
            return None;
        }
        let first = self.records.partition_point(|record| record.meta.id.main < revision);
        Some(self.records.range(first..).cloned().collect())
    }
}

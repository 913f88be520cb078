//! The newest records that the hub has delivered, for watches that are slightly behind. Without them, an
//! unsynced watch would never reach the hub's position while the store keeps changing.

use std::{collections::VecDeque, sync::Arc};

use crate::{state::Record, types::Revision};

/// All records of the revisions from `from` on.
#[derive(Debug)]
pub struct RecentRecords {
    records: VecDeque<Arc<Record>>,
    bytes: usize,
    bytes_max: usize,
    from: Revision,
}

impl RecentRecords {
    pub fn new(bytes_max: usize) -> RecentRecords {
        RecentRecords { records: VecDeque::new(), bytes: 0, bytes_max, from: Revision::ZERO }
    }

    /// Drops all records; the next one pushed has this revision or a later one.
    pub fn clear(&mut self, from: Revision) {
        *self = RecentRecords { from, ..RecentRecords::new(self.bytes_max) };
    }

    /// Adds all records of the next revisions.
    pub fn push(&mut self, records: &[Arc<Record>]) {
        self.bytes += records.iter().map(|record| record.bytes()).sum::<usize>();
        self.records.extend(records.iter().cloned());
        while self.bytes > self.bytes_max
            && let Some(oldest) = self.records.pop_front()
        {
            self.bytes -= oldest.bytes();
            // Its revision is no longer complete.
            self.from = oldest.meta.id.main.next();
        }
    }

    /// All records from this revision on, unless some are dropped already.
    pub fn since(&self, revision: Revision) -> Option<Vec<Arc<Record>>> {
        if revision < self.from {
            return None;
        }
        let first = self.records.partition_point(|record| record.meta.id.main < revision);
        Some(self.records.range(first..).cloned().collect())
    }
}

//! The size of the live data, which the quota limits.
//!
//! It is a function of the data, not of files: every member computes the same size for the same
//! records and tables, before and after a restart, regardless of the layout of blocks and of pending
//! writes. Records that a compaction made obsolete count until they are marked dead on disk.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::state::{Changes, TableChange};

/// Minimum size of a record's numbers and lengths in a block.
const RECORD_OVERHEAD_BYTES: u64 = 14;

/// The live bytes of one record. A block contains its key twice.
pub fn record_bytes(key_bytes: usize, value_bytes: usize) -> u64 {
    2 * key_bytes as u64 + value_bytes as u64 + RECORD_OVERHEAD_BYTES
}

/// The sum over all live records and table entries of one state.
#[derive(Debug, Default)]
pub struct LiveBytes {
    records: u64,
    tables: u64,
    /// The size of each table entry. The tables are small enough for memory.
    entries: BTreeMap<Bytes, u64>,
}

impl LiveBytes {
    /// For a recovered state: the sum of its records, and the state machine's entries.
    pub fn new(records: u64, tables: &[(Bytes, Bytes)]) -> LiveBytes {
        let mut live = LiveBytes { records, ..LiveBytes::default() };
        tables.iter().for_each(|(key, value)| live.put_entry(key, value));
        live
    }

    pub fn total(&self) -> u64 {
        self.records + self.tables
    }

    pub fn add(&mut self, changes: &Changes) {
        let records = changes.records.iter();
        self.records += records
            .map(|record| record_bytes(record.meta.key.len(), record.value.len()))
            .sum::<u64>();
        for change in &changes.tables {
            match change {
                TableChange::Put { key, value } => self.put_entry(key, value),
                TableChange::Delete { key } => {
                    self.tables -= self.entries.remove(key).unwrap_or_default();
                }
            }
        }
    }

    /// Subtracts records that the state writer marked dead.
    pub fn remove_records(&mut self, bytes: u64) {
        // In blocks of version 1 the sizes were estimated.
        self.records = self.records.saturating_sub(bytes);
    }

    /// Replaces the estimated size of records by their exact size.
    pub fn replace_records(&mut self, counted_bytes: u64, exact_bytes: u64) {
        self.records = (self.records + exact_bytes).saturating_sub(counted_bytes);
    }

    fn put_entry(&mut self, key: &Bytes, value: &Bytes) {
        let bytes = (key.len() + value.len()) as u64;
        let before = self.entries.insert(key.clone(), bytes).unwrap_or_default();
        self.tables = self.tables + bytes - before;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(value: &'static str) -> TableChange {
        TableChange::Put { key: "key".into(), value: value.into() }
    }

    #[test]
    fn a_table_entry_counts_once_however_often_it_changes() {
        let mut live = LiveBytes::new(0, &[("key".into(), "value".into())]);
        assert_eq!(live.total(), 8);
        live.add(&Changes { tables: vec![entry(""), entry("longer value")], ..Changes::default() });
        assert_eq!(live.total(), 15);
        let delete = || TableChange::Delete { key: "key".into() };
        live.add(&Changes { tables: vec![delete(), delete()], ..Changes::default() });
        assert_eq!(live.total(), 0);
    }

    #[test]
    fn records_whose_size_was_estimated_count_exactly_after_they_are_rewritten() {
        let mut live = LiveBytes::new(1000, &[]);
        // Two blocks of version 1, estimated too high and too low.
        live.replace_records(600, 100);
        live.replace_records(400, 700);
        assert_eq!(live.total(), 800);
        live.remove_records(800);
        assert_eq!(live.total(), 0);
    }
}

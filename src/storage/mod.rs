//! Keeps what the state machine made: block files of MVCC records, and small ordered tables in sled.

//! Tests of the storage as a whole, on a simulated disk that loses unsynced data, and on a real one.

mod crash;
mod harness;
mod real;
mod reclaim;
mod recovery;
mod snapshots;
mod syncs;
mod writing;

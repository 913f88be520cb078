//! Storage as a whole, on a simulated disk that loses what was not synced, and on a real one.

mod crash;
mod harness;
mod real;
mod reclaim;
mod snapshots;
mod start;
mod syncs;
mod writing;

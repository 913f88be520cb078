//! Tests of the bootstrap on simulated disks, with and without Kubernetes, and of the archive.

mod archive;
mod bootstrap_record;
mod former_volumes;
mod founders;
mod join_request;
mod pods;
mod restored_set;
mod running_record;

/// The number of random histories of a property: `PROPTEST_CASES`, otherwise the usual number.
pub fn cases(usual: u32) -> u32 {
    let set = std::env::var("PROPTEST_CASES").ok();
    set.map_or(usual, |cases| cases.parse().expect("PROPTEST_CASES is a number"))
}

//! A full disk: detected early, loses nothing, and the log continues once there is space.

use super::{Model, Op, entry, open, options, position, vote, write};
use crate::{
    disk::sim::{Crash, DiskOp, HookAction, SimDisk},
    wal::{DiskSpace, WalError},
};

#[tokio::test]
async fn a_full_disk_is_seen_before_the_log_is_full_and_heals_with_space() {
    let disk = SimDisk::new(1);
    disk.set_budget_bytes(40_000);
    let (log, fault) = open(&disk, &options(8)).unwrap();
    let mut space = log.space();
    space.wait_for(|space| *space == DiskSpace::Low).await.unwrap();
    // There is still room in the active segment.
    write(&log, Op::Append(vec![entry(1, 0, 100)])).await.unwrap();
    disk.set_budget_bytes(80_000);
    log.retry_space();
    space.wait_for(|space| *space == DiskSpace::Enough).await.unwrap();
    for index in 1..12 {
        write(&log, Op::Append(vec![entry(1, index, 100)])).await.unwrap();
    }
    assert!(!fault.is_stopped());
}

#[tokio::test]
async fn space_that_a_purge_frees_makes_the_next_segment() {
    let disk = SimDisk::new(1);
    disk.set_budget_bytes(40_000);
    let (log, _) = open(&disk, &options(4)).unwrap();
    for index in 0..4 {
        write(&log, Op::Append(vec![entry(1, index, 100)])).await.unwrap();
    }
    let mut space = log.space();
    space.wait_for(|space| *space == DiskSpace::Low).await.unwrap();
    write(&log, Op::Purge(position(1, 2))).await.unwrap();
    space.wait_for(|space| *space == DiskSpace::Enough).await.unwrap();
}

#[tokio::test]
async fn a_log_that_ran_full_stops_by_name_and_opens_clean_with_all_it_acknowledged() {
    for crash in [Crash::LoseAll, Crash::KeepAll, Crash::Arbitrary] {
        let disk = SimDisk::new(1);
        disk.set_budget_bytes(40_000);
        let (log, fault) = open(&disk, &options(4)).unwrap();
        let mut acked = Vec::new();
        let error = loop {
            let op = Op::Append(vec![entry(1, acked.len() as u64, 2000)]);
            match write(&log, op.clone()).await {
                Ok(()) => acked.push(op),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, WalError::Full { .. }), "{error}");
        assert!(error.to_string().starts_with("wal/spare-"), "{error}");
        assert_eq!(*fault.stopped().await, *error.to_string());
        assert!(acked.len() > 3);
        assert!(write(&log, Op::Vote(vote(9))).await.is_err(), "a stopped log took a vote");

        // The log opens on the full disk, too, and takes requests that fit.
        let disk = disk.crash(crash);
        let (log, _) = open(&disk, &options(4)).unwrap();
        assert_eq!(Model::of(&log).await.unwrap(), Model::after(&acked));
        disk.set_budget_bytes(u64::MAX);
        let next = Op::Append(vec![entry(1, acked.len() as u64, 9000)]);
        write(&log, next.clone()).await.unwrap();
        acked.push(next);
        let (log, _) = open(&disk.crash(Crash::LoseAll), &options(4)).unwrap();
        assert_eq!(Model::of(&log).await.unwrap(), Model::after(&acked));
    }
}

/// On a file system that copies on write, space can run out in the middle of a frame.
#[tokio::test]
async fn a_frame_that_space_ran_out_for_is_cut_at_the_next_start() {
    for seed in 0..50 {
        let disk = SimDisk::new(seed);
        let (log, fault) = open(&disk, &options(16)).unwrap();
        let first = Op::Append(vec![entry(1, 0, 100)]);
        write(&log, first.clone()).await.unwrap();
        disk.set_hook(|op| match op {
            DiskOp::Write { path, .. } if path.extension().is_some_and(|e| e == "wal") => {
                HookAction::Fail(std::io::ErrorKind::StorageFull)
            }
            _ => HookAction::Proceed,
        });
        let error = write(&log, Op::Append(vec![entry(1, 1, 9000)])).await.unwrap_err();
        let expected = "wal/0000000000000001.wal at offset 8192: no space left on the disk";
        assert_eq!(error.to_string(), expected);
        assert!(fault.is_stopped());
        disk.remove_hook();
        let (log, _) = open(&disk.kill(), &options(16)).unwrap();
        let found = Model::of(&log).await.unwrap();
        if found.last == Some(position(1, 0)) {
            assert_eq!(found, Model::after(&[first]));
        } else {
            assert_eq!(found.entries[&1], entry(1, 1, 9000), "seed {seed}");
        }
    }
}

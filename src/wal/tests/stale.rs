//! Dropped entries stay dropped.

use super::{Model, Op, entry, open, options, position, write};
use crate::disk::sim::{Crash, SimDisk};

#[tokio::test]
async fn truncated_entries_never_resurrect_whatever_a_crash_leaves() {
    for seed in 0..300 {
        let disk = SimDisk::new(seed);
        let (log, _) = open(&disk, &options(6)).unwrap();
        write(&log, Op::Append((0..6).map(|i| entry(1, i, 300)).collect())).await.unwrap();
        write(&log, Op::TruncateAfter(Some(position(1, 2)))).await.unwrap();
        // The second append may be torn; the first may not.
        write(&log, Op::Append(vec![entry(2, 3, 300)])).await.unwrap();
        disk.power_off_after(1);
        write(&log, Op::Append(vec![entry(2, 4, 5000)])).await.unwrap_err();
        let (log, _) = open(&disk.crash(Crash::Arbitrary), &options(6)).unwrap();
        let found = Model::of(&log).await.unwrap();
        let terms: Vec<u64> = found.entries.values().map(|e| e.position.term.0).collect();
        assert!(terms == [1, 1, 1, 2] || terms == [1, 1, 1, 2, 2], "seed {seed}: {terms:?}");
    }
}

#[tokio::test]
async fn a_log_that_was_purged_beyond_its_end_starts_there_again() {
    let disk = SimDisk::new(1);
    let (log, _) = open(&disk, &options(4)).unwrap();
    for index in 0..9 {
        write(&log, Op::Append(vec![entry(1, index, 3000)])).await.unwrap();
    }
    write(&log, Op::Purge(position(5, 100))).await.unwrap();
    assert_eq!((log.first_index(), log.last()), (101, Some(position(5, 100))));
    assert_eq!(*log.durable().borrow(), Some(100));
    write(&log, Op::Append(vec![entry(5, 101, 10)])).await.unwrap();
    log.close().await;
    let (log, _) = open(&disk.crash(Crash::LoseAll), &options(4)).unwrap();
    assert_eq!(log.position_at(100), Some(position(5, 100)));
    assert_eq!(log.position_at(99), None);
    assert_eq!(log.read(101..200, 1000).await.unwrap(), [entry(5, 101, 10)]);
    assert!(log.read(100..200, 1000).await.is_err());
    assert_eq!(log.size(), 4 * 4096, "purged segments are still there");
}

#[tokio::test]
async fn a_truncation_on_its_way_hides_what_the_disk_still_holds() {
    let disk = SimDisk::new(1);
    let (log, _) = open(&disk, &options(64)).unwrap();
    write(&log, Op::Append((0..40).map(|i| entry(1, i, 200)).collect())).await.unwrap();
    assert_eq!(*log.durable().borrow(), Some(39));
    // Neither is written yet: the writer had no chance to run.
    log.truncate_after(Some(position(1, 4)), |_| {});
    log.append((5..30).map(|i| entry(2, i, 200)).collect(), |_| {});
    assert_eq!(*log.durable().borrow(), Some(4));
    let read = log.read(5..30, 1 << 20).await.unwrap();
    assert_eq!(read, (5..30).map(|i| entry(2, i, 200)).collect::<Vec<_>>());
    let cold = log.read(0..30, 1 << 20).await.unwrap();
    assert_eq!(cold, (0..5).map(|i| entry(1, i, 200)).collect::<Vec<_>>());
    let mut durable = log.durable();
    durable.wait_for(|durable| *durable == Some(29)).await.unwrap();
    assert_eq!(log.position_at(5), Some(position(2, 5)));
    let read = log.read(5..9, 1 << 20).await.unwrap();
    assert_eq!(read, (5..9).map(|i| entry(2, i, 200)).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_segment_whose_entries_were_truncated_does_not_outlive_the_purge_of_what_it_holds() {
    let disk = SimDisk::new(1);
    let (log, _) = open(&disk, &options(2)).unwrap();
    write(&log, Op::Append((0..10).map(|i| entry(1, i, 10)).collect())).await.unwrap();
    write(&log, Op::TruncateAfter(Some(position(1, 1)))).await.unwrap();
    write(&log, Op::Append((2..4).map(|i| entry(2, i, 10)).collect())).await.unwrap();
    write(&log, Op::Purge(position(1, 1))).await.unwrap();
    // Left are the entries 2 and 3, and the purge.
    assert_eq!(log.size(), 2 * 2 * 4096);
}

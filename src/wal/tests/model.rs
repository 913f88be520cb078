//! The log compared with the simplest possible model.

use std::sync::Arc;

use proptest::prelude::*;
use tokio::sync::Notify;

use super::{Model, Op, TestRng, ask, open, options};
use crate::disk::sim::SimDisk;

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, ..Default::default() })]

    /// Random requests, in batches of random size, with reads in between and closings now and then.
    #[test]
    fn the_log_is_what_a_list_of_entries_would_be(seed: u64, pages in 2_u64..9, steps in 1_u64..60) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(compare(seed, pages, steps));
    }
}

async fn compare(seed: u64, pages: u64, steps: u64) {
    let mut rng = TestRng(seed);
    let mut disk = SimDisk::new(seed);
    let mut model = Model::default();
    let (mut log, mut fault) = open(&disk, &options(pages)).unwrap();
    for _ in 0..steps {
        match rng.below(10) {
            0 => {
                log.close().await;
                disk = disk.kill();
                (log, fault) = open(&disk, &options(pages)).unwrap();
                assert_eq!(*log.durable().borrow(), log.last().map(|last| last.index));
            }
            1 => settle(&log).await,
            _ => {
                let op = rng.op(&model);
                model.apply(&op);
                ask(&log, op, |result| result.unwrap());
            }
        }
        assert_eq!((log.hard_state(), log.last()), (model.hard, model.last));
        check_positions(&log, &model);
        check_reads(&log, &model, &mut rng).await;
    }
    assert_eq!(Model::of(&log).await.unwrap(), model);
    settle(&log).await;
    assert_eq!(*log.durable().borrow(), model.last.map(|last| last.index));
    assert_eq!(log.bytes_since(model.next()), 0);
    assert_eq!(log.bytes_since(0) > 0, model.entries.range(1..).next().is_some());
    assert!(!fault.is_stopped());
    log.close().await;
    let (log, _) = open(&disk.crash(crate::disk::sim::Crash::LoseAll), &options(pages)).unwrap();
    assert_eq!(Model::of(&log).await.unwrap(), model);
}

/// Waits until all requests are durable.
async fn settle(log: &super::Log) {
    let done = Arc::new(Notify::new());
    let notify = done.clone();
    ask(log, Op::Append(Vec::new()), move |_| notify.notify_one());
    done.notified().await;
}

fn check_positions(log: &super::Log, model: &Model) {
    let next = model.next();
    for index in next.saturating_sub(20)..next + 2 {
        let held = model.entries.get(&index).map(|entry| entry.position);
        let purged = model.hard.purged.filter(|purged| purged.index == index);
        let last = model.last.filter(|last| last.index == index);
        assert_eq!(log.position_at(index), held.or(purged).or(last), "at {index}");
    }
}

async fn check_reads(log: &super::Log, model: &Model, rng: &mut TestRng) {
    let first = log.first_index();
    assert_eq!(first, model.entries.keys().next().copied().unwrap_or(model.next()));
    let start = first + rng.below(model.next() - first + 1);
    let end = start + rng.below(12);
    let max = rng.below(3000) as usize;
    let read = log.read(start..end, max).await.unwrap();
    let expected = model.entries.range(start..end).map(|(_, entry)| entry);
    assert!(read.iter().zip(expected.clone()).all(|(read, expected)| read == expected));
    assert!(read.len() <= expected.clone().count());
    assert_eq!(read.is_empty(), expected.count() == 0);
    assert!(read.len() <= 1 || read.iter().map(|entry| entry.data.len()).sum::<usize>() <= max);
}

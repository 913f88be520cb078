//! The lanes as threads, on the operating system's disk, as in production.

use std::sync::Arc;

use super::{Acked, DIR, MEMBER, Model, Op, ask, entry, position, vote, write};
use crate::{
    disk::RealDisk,
    fault::Fault,
    lane::Lanes,
    wal::{Log, WalError, WalOptions},
};

fn options() -> WalOptions {
    WalOptions {
        segment_bytes: 1 << 20,
        tail_bytes: 10_000,
        ..WalOptions::new(MEMBER, 5, Lanes::Threads)
    }
}

#[tokio::test]
async fn what_threads_wrote_is_there_when_it_is_opened_again() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join(DIR);
    let reopen = || Log::open(Arc::new(RealDisk), &dir, &options(), Fault::default());
    let log = reopen().unwrap();
    let mut ops = vec![Op::Vote(vote(1))];
    ops.extend((0..400).map(|index| Op::Append(vec![entry(1, index, 9000)])));
    ops.push(Op::Committed(position(1, 300)));
    ops.push(Op::Purge(position(1, 200)));
    let acked = Acked::default();
    for (number, op) in ops.iter().enumerate() {
        ask(&log, op.clone(), acked.callback(number + 1));
        if number % 7 == 0 {
            let last = log.last().map(|last| last.index);
            log.durable().wait_for(|durable| *durable == last).await.unwrap();
        }
    }
    assert_eq!(Model::of(&log).await.unwrap(), Model::after(&ops));
    log.clone().close().await;
    assert_eq!(acked.count(), ops.len());
    let late = write(&log, Op::Vote(vote(2))).await;
    assert!(matches!(late, Err(WalError::Closed)), "a closed log took a vote");
    assert!(log.size() < 4 << 20, "purged segments still count: {}", log.size());

    let log = reopen().unwrap();
    assert_eq!(Model::of(&log).await.unwrap(), Model::after(&ops));
    log.close().await;
}

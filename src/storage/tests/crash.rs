//! The power fails at every point of a run with writes, compactions and snapshots.

use super::harness::{Host, history, process, replay_and_check};
use crate::{
    disk::sim::Crash,
    state::{Changes, Storage},
    storage::StoreError,
};

const ENTRIES: u64 = 90;

/// A run: writes in small batches, with some snapshots and purges of the log.
async fn run(host: &mut Host, history: &[Changes]) -> Result<(), StoreError> {
    let opened = host.open().await?;
    let done = opened.recovered.position.map_or(0, |position| position.index as usize + 1);
    for changes in &history[done..] {
        let index = changes.position.index;
        host.wal.end = host.wal.end.max(index + 1);
        opened.store.records().submit(changes.clone());
        opened.store.set_durable(index);
        match index % 30 {
            9 | 19 => drop(opened.store.flush().await?),
            29 => host.snapshot_and_purge(&opened.store).await?,
            _ => {}
        }
    }
    opened.store.close().await
}

/// Runs until the power fails after `changes` disk operations. Returns whether it failed.
fn run_until(host: &mut Host, history: &[Changes], changes: u64) -> bool {
    host.disk.power_off_after(changes);
    process(run(host, history)).is_err()
}

#[test]
fn the_log_replaces_everything_that_a_power_failure_lost() {
    let history = history(ENTRIES);
    let mut failed_at = 0;
    for changes in 0.. {
        let mut host = Host::new(changes);
        if !run_until(&mut host, &history, changes) {
            break;
        }
        failed_at += 1;
        let how = if changes % 3 == 0 { Crash::LoseAll } else { Crash::Arbitrary };
        host.crash(how);
        // sled controls its own syncs: the last batches may be lost too.
        host.tables.lose_last(changes as usize % 4);
        let outcome = process(async {
            let opened = host.open().await?;
            replay_and_check(host.clone(), opened, &history).await
        });
        outcome.unwrap_or_else(|error| panic!("after {changes} changes: {error}"));
    }
    assert!(failed_at > 100, "the run is too short to prove anything: {failed_at}");
}

#[test]
fn a_second_failure_during_recovery_is_survived_too() {
    let history = history(ENTRIES);
    for changes in (20..200).step_by(9) {
        for second in (0..24).step_by(2) {
            let mut host = Host::new(changes * 100 + second);
            if !run_until(&mut host, &history, changes) {
                break;
            }
            host.crash(Crash::Arbitrary);
            host.tables.lose_last(changes as usize % 3);
            run_until(&mut host, &history, second);
            host.crash(Crash::Arbitrary);
            let outcome = process(async {
                let opened = host.open().await?;
                replay_and_check(host.clone(), opened, &history).await
            });
            outcome.unwrap_or_else(|error| panic!("after {changes}, then {second}: {error}"));
        }
    }
}

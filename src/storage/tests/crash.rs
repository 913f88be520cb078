//! The power fails at every point of a life with writes, compactions and snapshots.

use super::harness::{Machine, history, process, replay_and_check};
use crate::{
    disk::sim::Crash,
    state::{Changes, Storage},
    storage::StoreError,
};

const ENTRIES: u64 = 90;

/// A life: writes in small batches, and now and then a snapshot and a purge of the log.
async fn live(machine: &mut Machine, history: &[Changes]) -> Result<(), StoreError> {
    let opened = machine.open().await?;
    let done = opened.recovered.position.map_or(0, |position| position.index as usize + 1);
    for changes in &history[done..] {
        let index = changes.position.index;
        machine.wal.end = machine.wal.end.max(index + 1);
        opened.store.records().submit(changes.clone());
        opened.store.note_durable(index);
        match index % 30 {
            9 | 19 => drop(opened.store.flush().await?),
            29 => machine.snapshot_and_purge(&opened.store).await?,
            _ => {}
        }
    }
    opened.store.close().await
}

/// Runs until the power fails after so many changes of the disk; says whether it did.
fn live_until(machine: &mut Machine, history: &[Changes], changes: u64) -> bool {
    machine.disk.power_off_after(changes);
    process(live(machine, history)).is_err()
}

#[test]
fn whatever_is_lost_in_a_power_failure_the_log_replaces() {
    let history = history(ENTRIES);
    let mut failed_at = 0;
    for changes in 0.. {
        let mut machine = Machine::new(changes);
        if !live_until(&mut machine, &history, changes) {
            break;
        }
        failed_at += 1;
        let how = if changes % 3 == 0 { Crash::LoseAll } else { Crash::Arbitrary };
        machine.crash(how);
        // sled syncs when it likes: the last batches may be gone too.
        machine.tables.lose_last(changes as usize % 4);
        let outcome = process(async {
            let opened = machine.open().await?;
            replay_and_check(machine.clone(), opened, &history).await
        });
        outcome.unwrap_or_else(|error| panic!("after {changes} changes: {error}"));
    }
    assert!(failed_at > 100, "the life is too short to prove anything: {failed_at}");
}

#[test]
fn a_second_failure_during_recovery_is_survived_too() {
    let history = history(ENTRIES);
    for changes in (20..200).step_by(9) {
        for second in (0..24).step_by(2) {
            let mut machine = Machine::new(changes * 100 + second);
            if !live_until(&mut machine, &history, changes) {
                break;
            }
            machine.crash(Crash::Arbitrary);
            machine.tables.lose_last(changes as usize % 3);
            live_until(&mut machine, &history, second);
            machine.crash(Crash::Arbitrary);
            let outcome = process(async {
                let opened = machine.open().await?;
                replay_and_check(machine.clone(), opened, &history).await
            });
            outcome.unwrap_or_else(|error| panic!("after {changes}, then {second}: {error}"));
        }
    }
}

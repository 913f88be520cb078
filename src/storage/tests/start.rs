//! What a start makes of what it finds.

use std::{path::Path, sync::atomic::Ordering};

use super::harness::{DATA, Machine, Wal, at, check, history, process, replay_and_check};
use crate::{
    disk::{self, Disk, Open, sim::Crash},
    state::Changes,
    storage::StoreError,
};

/// A machine that wrote a history and was shut down. With a snapshot at half of it, the log purged.
fn written(with_snapshot: bool) -> (Machine, Vec<Changes>) {
    let mut machine = Machine::new(1);
    let history = history(40);
    process(async {
        let opened = machine.open().await.unwrap();
        machine.write(&opened.store, &history[..20]).await.unwrap();
        if with_snapshot {
            machine.snapshot_and_purge(&opened.store).await.unwrap();
        }
        machine.write(&opened.store, &history[20..]).await.unwrap();
        opened.store.close().await.unwrap();
    });
    (machine, history)
}

/// Opens, expects a rebuild for this reason from this position, and that nothing is lost.
fn rebuilds(machine: &Machine, history: &[Changes], reason: &str, from: Option<u64>) {
    process(async {
        let opened = machine.open().await.unwrap();
        let rebuilt = opened.rebuilt.clone().expect("a rebuild");
        assert!(rebuilt.contains(reason), "{rebuilt}");
        assert_eq!(opened.recovered.position, from.map(at));
        replay_and_check(machine.clone(), opened, history).await.unwrap();
    });
}

fn refuses(machine: &Machine, what: &str) {
    process(async {
        let error = machine.open().await.unwrap_err();
        assert!(matches!(error, StoreError::CannotRebuild { .. }), "{error}");
        assert!(error.to_string().contains(what), "{error}");
    });
}

fn path(name: &str) -> std::path::PathBuf {
    Path::new(DATA).join(name)
}

#[test]
fn a_new_store_is_empty_and_not_rebuilt() {
    let machine = Machine::new(1);
    for _ in 0..2 {
        process(async {
            let opened = machine.open().await.unwrap();
            assert_eq!((opened.recovered.position, opened.rebuilt), (None, None));
            assert!(matches!(opened.store.snapshot().await, Err(StoreError::NothingYet)));
            check(opened.recovered, &[]);
            opened.store.close().await.unwrap();
        });
    }
}

#[test]
fn sound_tables_are_used_as_they_are() {
    for with_snapshot in [false, true] {
        let (machine, history) = written(with_snapshot);
        process(async {
            let opened = machine.open().await.unwrap();
            assert_eq!(opened.rebuilt, None);
            assert_eq!(
                opened.snapshot.map(|snapshot| snapshot.position().index),
                with_snapshot.then_some(19)
            );
            assert_eq!(opened.recovered.position, Some(at(39)));
            check(opened.recovered, &history);
        });
    }
}

#[test]
fn an_opening_that_did_not_end_is_not_tried_again() {
    let (machine, history) = written(false);
    let marker = path("tables/OPENING");
    assert!(!machine.disk.exists(&marker).unwrap(), "it is removed once all is verified");
    machine.disk.open(&marker, Open::CreateNew).unwrap();
    rebuilds(&machine, &history, "did not end well", None);
    assert!(machine.disk.exists(&path("tables/00000001.bad")).unwrap());
}

#[test]
fn a_process_that_opening_kills_leaves_the_marker() {
    let (mut machine, history) = written(true);
    let opening = machine.disk.changes();
    process(async { drop(machine.open().await.unwrap()) });
    let (mut machine, changes) = {
        let changes = machine.disk.changes() - opening;
        machine.disk = machine.disk.kill();
        (machine, changes)
    };
    // The removal of the marker, and its sync, are the last changes.
    machine.disk.power_off_after(changes - 2);
    process(async { machine.open().await.unwrap_err() });
    machine.crash(Crash::LoseAll);
    rebuilds(&machine, &history, "did not end well", Some(19));
}

#[test]
fn damaged_tables_are_rebuilt() {
    for (with_snapshot, from) in [(false, None), (true, Some(19))] {
        let (machine, history) = written(with_snapshot);
        machine.tables.damage();
        rebuilds(&machine, &history, "the checksum is wrong", from);
    }
}

#[test]
fn only_one_unusable_generation_is_kept() {
    let (machine, history) = written(true);
    for _ in 0..3 {
        machine.tables.damage();
        rebuilds(&machine, &history, "the checksum is wrong", Some(19));
    }
    let names = machine.disk.list(&path("tables")).unwrap();
    assert_eq!(names.iter().filter(|name| name.ends_with(".bad")).count(), 1, "{names:?}");
    assert_eq!(names.len(), 3, "{names:?}");
}

#[test]
fn deleted_tables_are_rebuilt() {
    for (with_snapshot, from) in [(false, None), (true, Some(19))] {
        let (machine, history) = written(with_snapshot);
        machine.disk.remove_dir_all(&path("tables")).unwrap();
        rebuilds(&machine, &history, "there are no tables", from);
    }
}

#[test]
fn a_damaged_current_file_leads_to_a_rebuild() {
    let (machine, history) = written(true);
    machine.disk.flip_bit(&path("tables/CURRENT"), 7, 1).unwrap();
    rebuilds(&machine, &history, "CURRENT names no tables", Some(19));
}

#[test]
fn a_deleted_or_damaged_block_leads_to_a_rebuild() {
    let (machine, _) = written(false);
    for block in machine.block_files() {
        let (machine, history) = written(false);
        machine.disk.remove(&block).unwrap();
        rebuilds(&machine, &history, "cannot open", None);
        let (machine, history) = written(false);
        let bytes = disk::read(&machine.disk, &block).unwrap().len() as u64;
        machine.disk.flip_bit(&block, bytes - 60, 0).unwrap();
        rebuilds(&machine, &history, "checksum is wrong", None);
    }
}

#[test]
fn tables_ahead_of_the_durable_log_are_not_believed() {
    let (mut machine, history) = written(true);
    machine.wal.end = 30;
    process(async {
        let opened = machine.open().await.unwrap();
        let reason = opened.rebuilt.clone().unwrap();
        assert!(reason.contains("entry 39 is applied to them, and not durable"), "{reason}");
        assert_eq!(opened.recovered.position, Some(at(19)));
        replay_and_check(machine.clone(), opened, &history[..30]).await.unwrap();
    });
}

#[test]
fn tables_at_an_entry_that_is_not_the_logs_are_not_believed() {
    struct OtherTerm(Wal);
    impl crate::storage::WalBounds for OtherTerm {
        fn first_index(&self) -> u64 {
            self.0.first_index()
        }
        fn last(&self) -> Option<crate::types::LogPosition> {
            self.0.last()
        }
        fn term_at(&self, index: u64) -> Option<crate::types::Term> {
            self.0.term_at(index).map(|term| crate::types::Term(term.0 + 1))
        }
    }
    let (machine, _) = written(true);
    process(async {
        let opened = crate::storage::BlockStorage::open(
            machine.options(),
            std::sync::Arc::new(machine.disk.clone()),
            std::sync::Arc::new(machine.tables.clone()),
            crate::lane::Lanes::Tasks,
            OtherTerm(machine.wal),
            crate::fault::Fault::default(),
        );
        let opened = opened.await.unwrap();
        let reason = opened.rebuilt.unwrap();
        assert!(reason.contains("entry 39 of term 1 is applied to them, and not in"), "{reason}");
    });
}

#[test]
fn tables_that_fell_behind_the_log_are_rebuilt_from_the_snapshot() {
    let (machine, history) = written(true);
    // Back to before the snapshot.
    machine.tables.lose_last(40);
    rebuilds(&machine, &history, "tables", Some(19));
}

#[test]
fn without_a_snapshot_and_without_the_whole_log_it_refuses() {
    let (machine, _) = written(true);
    let snapshot = machine.disk.list(&path("snapshots")).unwrap().remove(0);
    machine.disk.remove(&path("snapshots").join(snapshot)).unwrap();
    machine.tables.damage();
    refuses(&machine, "there is no snapshot, and the log does not begin with its first entry");
}

#[test]
fn a_store_that_was_deleted_altogether_is_not_taken_for_a_new_one() {
    let (machine, _) = written(true);
    for dir in ["tables", "blocks", "snapshots"] {
        machine.disk.remove_dir_all(&path(dir)).unwrap();
    }
    refuses(&machine, "there is no snapshot");
}

#[test]
fn blocks_without_tables_and_without_a_log_are_not_thrown_away() {
    let (mut machine, _) = written(false);
    machine.tables.damage();
    machine.wal = Wal::default();
    refuses(&machine, "there is no snapshot");
    assert!(!machine.block_files().is_empty());
}

#[test]
fn every_flipped_bit_of_a_snapshot_is_noticed() {
    let (machine, history) = written(true);
    let name = machine.disk.list(&path("snapshots")).unwrap().remove(0);
    let snapshot = path("snapshots").join(&name);
    let bytes = disk::read(&machine.disk, &snapshot).unwrap().len() as u64;
    for offset in (0..bytes).step_by(bytes as usize / 30) {
        let copy = Machine { disk: machine.disk.fork(), ..machine.clone() };
        copy.disk.flip_bit(&snapshot, offset, (offset % 8) as u8).unwrap();
        // With sound tables it is not needed.
        process(async {
            let opened = copy.open().await.unwrap();
            assert!(opened.snapshot.is_none() && opened.rebuilt.is_none());
            check(opened.recovered, &history);
        });
        let copy = Machine { disk: copy.disk.kill(), ..copy };
        copy.disk.remove_dir_all(&path("tables")).unwrap();
        refuses(&copy, &name);
    }
}

#[test]
fn a_crash_in_the_middle_of_a_rebuild_leads_to_another_one() {
    let (machine, history) = written(true);
    machine.tables.damage();
    for changes in 0..30 {
        let mut copy = Machine { disk: machine.disk.fork(), ..machine.clone() };
        copy.disk.reseed(changes);
        copy.disk.power_off_after(changes);
        let failed = process(async { copy.open().await.is_err() });
        copy.crash(Crash::Arbitrary);
        process(async {
            let opened = copy.open().await.unwrap();
            assert_eq!(opened.recovered.position, Some(at(19)));
            replay_and_check(copy.clone(), opened, &history).await.unwrap();
        });
        if !failed {
            return;
        }
    }
    panic!("a rebuild takes more changes than expected");
}

#[test]
fn unknown_block_files_are_swept_and_other_files_left_alone() {
    let (machine, _) = written(true);
    let stray = path("blocks/0000000000000001-00000fff.blk");
    let foreign = path("blocks/lost+found");
    for file in [&stray, &foreign] {
        machine.disk.open(file, Open::CreateNew).unwrap();
    }
    process(async { drop(machine.open().await.unwrap()) });
    assert!(!machine.disk.exists(&stray).unwrap());
    assert!(machine.disk.exists(&foreign).unwrap());
}

#[test]
fn the_sizes_are_those_of_the_files() {
    let (machine, _) = written(true);
    process(async {
        let opened = machine.open().await.unwrap();
        let blocks: u64 = machine
            .block_files()
            .iter()
            .map(|path| disk::read(&machine.disk, path).unwrap().len() as u64)
            .sum();
        let total = opened.recovered.storage.total_bytes.load(Ordering::Relaxed);
        let live = opened.recovered.storage.live_bytes.load(Ordering::Relaxed);
        assert!(total > blocks && total < blocks + 8000, "{total}, {blocks} in blocks");
        assert!(live < total);
    });
}

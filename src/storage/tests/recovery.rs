//! Recovery of intact, damaged and missing files.

use std::path::Path;

use super::harness::{DATA, Host, Model, Wal, at, check, history, process, replay_and_check};
use crate::{
    disk::{self, Disk, Open, sim::Crash},
    state::{Changes, Storage, StorageSize},
    storage::{OpenedStore, StoreError},
};

/// A host that wrote a history and was shut down; optionally with a snapshot and a purge of the log
/// in the middle.
fn written(with_snapshot: bool) -> (Host, Vec<Changes>) {
    let mut host = Host::new(1);
    let history = history(40);
    process(async {
        let opened = host.open().await.unwrap();
        host.write(&opened.store, &history[..20]).await.unwrap();
        if with_snapshot {
            host.snapshot_and_purge(&opened.store).await.unwrap();
        }
        host.write(&opened.store, &history[20..]).await.unwrap();
        opened.store.close().await.unwrap();
    });
    (host, history)
}

/// Opens, and expects a rebuild for this reason from this position, without loss.
fn rebuilds(host: &Host, history: &[Changes], reason: &str, from: Option<u64>) {
    process(async {
        let opened = host.open().await.unwrap();
        let rebuilt = opened.rebuilt.clone().expect("a rebuild");
        assert!(rebuilt.contains(reason), "{rebuilt}");
        assert_eq!(opened.recovered.position, from.map(at));
        replay_and_check(host.clone(), opened, history).await.unwrap();
    });
}

fn refuses(host: &Host, message: &str) {
    process(async {
        let error = host.open().await.unwrap_err();
        assert!(matches!(error, StoreError::CannotRebuild { .. }), "{error}");
        assert!(error.to_string().contains(message), "{error}");
    });
}

fn path(name: &str) -> std::path::PathBuf {
    Path::new(DATA).join(name)
}

#[test]
fn a_new_store_is_empty_and_not_rebuilt() {
    let host = Host::new(1);
    for _ in 0..2 {
        process(async {
            let opened = host.open().await.unwrap();
            assert_eq!((opened.recovered.position, opened.rebuilt), (None, None));
            assert!(matches!(opened.store.snapshot().await, Err(StoreError::NothingApplied)));
            check(opened.recovered, &[]);
            opened.store.close().await.unwrap();
        });
    }
}

#[test]
fn sound_tables_are_used_as_they_are() {
    for with_snapshot in [false, true] {
        let (host, history) = written(with_snapshot);
        process(async {
            let opened = host.open().await.unwrap();
            assert_eq!(opened.rebuilt, None);
            assert_eq!(
                opened.store.retained().map(|snapshot| snapshot.position().index),
                with_snapshot.then_some(19)
            );
            assert_eq!(opened.recovered.position, Some(at(39)));
            check(opened.recovered, &history);
        });
    }
}

#[test]
fn an_opening_that_did_not_end_is_not_tried_again() {
    let (host, history) = written(false);
    let marker = path("tables/OPENING");
    assert!(!host.disk.exists(&marker).unwrap(), "it is removed once all is verified");
    host.disk.open(&marker, Open::CreateNew).unwrap();
    rebuilds(&host, &history, "did not finish", None);
    assert!(host.disk.exists(&path("tables/00000001.bad")).unwrap());
}

#[test]
fn a_process_that_opening_kills_leaves_the_marker() {
    let (mut host, history) = written(true);
    let opening = host.disk.changes();
    process(async { drop(host.open().await.unwrap()) });
    let (mut host, changes) = {
        let changes = host.disk.changes() - opening;
        host.disk = host.disk.kill();
        (host, changes)
    };
    // The removal of the marker, and its sync, are the last changes.
    host.disk.power_off_after(changes - 2);
    process(async { host.open().await.unwrap_err() });
    host.crash(Crash::LoseAll);
    rebuilds(&host, &history, "did not finish", Some(19));
}

#[test]
fn damaged_tables_are_rebuilt() {
    for (with_snapshot, from) in [(false, None), (true, Some(19))] {
        let (host, history) = written(with_snapshot);
        host.tables.damage();
        rebuilds(&host, &history, "wrong checksum", from);
    }
}

#[test]
fn only_one_unusable_generation_is_kept() {
    let (host, history) = written(true);
    for _ in 0..3 {
        host.tables.damage();
        rebuilds(&host, &history, "wrong checksum", Some(19));
    }
    let names = host.disk.list(&path("tables")).unwrap();
    assert_eq!(names.iter().filter(|name| name.ends_with(".bad")).count(), 1, "{names:?}");
    assert_eq!(names.len(), 3, "{names:?}");
}

#[test]
fn deleted_tables_are_rebuilt() {
    for (with_snapshot, from) in [(false, None), (true, Some(19))] {
        let (host, history) = written(with_snapshot);
        host.disk.remove_dir_all(&path("tables")).unwrap();
        rebuilds(&host, &history, "there are no tables", from);
    }
}

#[test]
fn a_damaged_current_file_leads_to_a_rebuild() {
    let (host, history) = written(true);
    host.disk.flip_bit(&path("tables/CURRENT"), 7, 1).unwrap();
    rebuilds(&host, &history, "CURRENT names no existing tables", Some(19));
}

#[test]
fn a_deleted_or_damaged_block_leads_to_a_rebuild() {
    let (host, _) = written(false);
    for block in host.block_files() {
        let (host, history) = written(false);
        host.disk.remove(&block).unwrap();
        rebuilds(&host, &history, "cannot open", None);
        let (host, history) = written(false);
        let bytes = disk::read(&host.disk, &block).unwrap().len() as u64;
        host.disk.flip_bit(&block, bytes - 60, 0).unwrap();
        rebuilds(&host, &history, "wrong checksum", None);
    }
}

#[test]
fn tables_ahead_of_the_durable_log_are_not_trusted() {
    let (mut host, history) = written(true);
    host.wal.end = 30;
    process(async {
        let opened = host.open().await.unwrap();
        let reason = opened.rebuilt.clone().unwrap();
        assert!(reason.contains("applied entry 39 is not durable"), "{reason}");
        assert_eq!(opened.recovered.position, Some(at(19)));
        replay_and_check(host.clone(), opened, &history[..30]).await.unwrap();
    });
}

#[test]
fn tables_at_an_entry_of_another_term_are_not_trusted() {
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
    let (host, _) = written(true);
    process(async {
        let opened = crate::storage::BlockStorage::open(
            host.options(),
            std::sync::Arc::new(host.disk.clone()),
            std::sync::Arc::new(host.tables.clone()),
            crate::lane::Lanes::Tasks,
            OtherTerm(host.wal),
            crate::fault::Fault::default(),
        );
        let opened = opened.await.unwrap();
        let reason = opened.rebuilt.unwrap();
        assert!(reason.contains("applied entry 39 of term 1 is not in"), "{reason}");
    });
}

#[test]
fn tables_that_fell_behind_the_log_are_rebuilt_from_the_snapshot() {
    let (host, history) = written(true);
    // Back to before the snapshot.
    host.tables.lose_last(40);
    rebuilds(&host, &history, "tables", Some(19));
}

#[test]
fn without_a_snapshot_and_without_the_whole_log_it_refuses() {
    let (host, _) = written(true);
    let snapshot = host.disk.list(&path("snapshots")).unwrap().remove(0);
    host.disk.remove(&path("snapshots").join(snapshot)).unwrap();
    host.tables.damage();
    refuses(&host, "there is no snapshot, and the log does not begin with its first entry");
}

#[test]
fn a_store_that_was_deleted_altogether_is_not_taken_for_a_new_one() {
    let (host, _) = written(true);
    for dir in ["tables", "blocks", "snapshots"] {
        host.disk.remove_dir_all(&path(dir)).unwrap();
    }
    refuses(&host, "there is no snapshot");
}

#[test]
fn blocks_without_tables_and_without_a_log_are_not_thrown_away() {
    let (mut host, _) = written(false);
    host.tables.damage();
    host.wal = Wal::default();
    refuses(&host, "there is no snapshot");
    assert!(!host.block_files().is_empty());
}

#[test]
fn every_flipped_bit_of_a_snapshot_is_noticed() {
    let (host, history) = written(true);
    let name = host.disk.list(&path("snapshots")).unwrap().remove(0);
    let snapshot = path("snapshots").join(&name);
    let bytes = disk::read(&host.disk, &snapshot).unwrap().len() as u64;
    for offset in (0..bytes).step_by(bytes as usize / 30) {
        let copy = Host { disk: host.disk.fork(), ..host.clone() };
        copy.disk.flip_bit(&snapshot, offset, (offset % 8) as u8).unwrap();
        // With sound tables it is not needed.
        process(async {
            let opened = copy.open().await.unwrap();
            assert!(opened.store.retained().is_none() && opened.rebuilt.is_none());
            check(opened.recovered, &history);
        });
        let copy = Host { disk: copy.disk.kill(), ..copy };
        copy.disk.remove_dir_all(&path("tables")).unwrap();
        refuses(&copy, &name);
    }
}

#[test]
fn a_crash_in_the_middle_of_a_rebuild_leads_to_another_one() {
    let (host, history) = written(true);
    host.tables.damage();
    for changes in 0..30 {
        let mut copy = Host { disk: host.disk.fork(), ..host.clone() };
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
    let (host, _) = written(true);
    let stray = path("blocks/0000000000000001-00000fff.blk");
    let foreign = path("blocks/lost+found");
    for file in [&stray, &foreign] {
        host.disk.open(file, Open::CreateNew).unwrap();
    }
    process(async { drop(host.open().await.unwrap()) });
    assert!(!host.disk.exists(&stray).unwrap());
    assert!(host.disk.exists(&foreign).unwrap());
}

#[test]
fn the_sizes_are_those_of_the_files() {
    let (host, _) = written(true);
    process(async {
        let opened = host.open().await.unwrap();
        let blocks: u64 = host
            .block_files()
            .iter()
            .map(|path| disk::read(&host.disk, path).unwrap().len() as u64)
            .sum();
        let StorageSize { total_bytes: total, live_bytes: live } = opened.recovered.storage.size();
        assert!(total > blocks && total < blocks + 8000, "{total}, {blocks} in blocks");
        assert!(live < total);
    });
}

#[test]
fn live_bytes_are_the_same_before_a_restart_and_after_it() {
    let mut host = Host::new(3);
    let history = history(80);
    process(async {
        let opened = host.open().await.unwrap();
        let submitted = |opened: &OpenedStore| opened.store.records().size().live_bytes;
        assert_eq!(submitted(&opened), 0, "an empty store has no overhead");
        host.write(&opened.store, &history[..60]).await.unwrap();
        // A record that waits to be written counts as one that is written.
        let records: Vec<_> =
            history[60..].iter().map(|c| Changes { discarded: Vec::new(), ..c.clone() }).collect();
        for changes in &records {
            opened.store.records().submit(changes.clone());
        }
        let mut model = Model::of(&history[..60]);
        records.iter().for_each(|changes| model.apply(changes));
        let before = submitted(&opened);
        assert_eq!(before, model.live_bytes());
        host.wal.end = 80;
        opened.store.set_durable(79);
        opened.store.close().await.unwrap();
        let again = host.open().await.unwrap();
        assert_eq!(submitted(&again), before);
        again.store.close().await.unwrap();
    });
}

//! Every fsync of this layer is needed: without it something is lost in a power failure.
//!
//! | sync | lost without it | test |
//! |---|---|---|
//! | content of a block | records that the snapshot or the tables name | `a_block…` |
//! | `blocks/` after writing | the same | `a_blocks_name…` |
//! | content of a snapshot | the base of a rebuild | `a_snapshot…` |
//! | `snapshots/` after writing | the same | `a_snapshots_name…` |
//! | content of `CURRENT` | the name of the tables in use: a rebuild | `current…` |
//! | `tables/` after writing `CURRENT` | the same | `currents_name…` |
//! | `tables/` after creating `OPENING` | the knowledge that opening killed the process | `the_marker…` |
//! | `tables/` after removing `OPENING` | sound tables: a rebuild | `the_markers_removal…` |
//! | content of `blocks/next` | the knowledge that a number was used | `the_reservation…` |
//! | content of received files | the installed state | `received_files…` |
//! | `blocks/`, `snapshots/` at an install | the same | `received_names…` |
//!
//! The sync of `blocks/` after writing `blocks/next` (a part of every atomic write) has no test: the sync
//! of the block, which follows before the number matters, covers it.

use std::path::Path;

use super::{
    harness::{Host, Wal, at, check, history, process, replay_and_check},
    snapshots::send,
};
use crate::{
    disk::{
        Disk,
        sim::{Crash, DiskOp},
    },
    storage::MemoryTables,
};

/// Whether a scenario loses nothing although the disk ignores the syncs that `ignored` selects.
type Scenario = fn(ignored: fn(&DiskOp) -> bool) -> bool;

fn obeyed(_: &DiskOp) -> bool {
    false
}

#[track_caller]
fn needed(scenario: Scenario, sync: fn(&DiskOp) -> bool) {
    assert!(scenario(obeyed), "something is lost even if all is synced");
    assert!(!scenario(sync), "nothing is lost without the sync");
}

fn is_dir(op: &DiskOp, dir: &str) -> bool {
    *op == DiskOp::SyncDir(Path::new("data").join(dir))
}

fn is_file(op: &DiskOp, in_dir: &str, extension: &str) -> bool {
    let DiskOp::SyncData(path) = op else { return false };
    path.starts_with(Path::new("data").join(in_dir))
        && path.extension().is_some_and(|found| found == extension)
}

/// The log is purged up to a snapshot, and then a power failure loses the tables.
fn lost_tables(ignored: fn(&DiskOp) -> bool) -> bool {
    let (mut host, history) = (Host::new(1), history(40));
    host.disk.ignore_syncs(ignored);
    process(async {
        let opened = host.open().await.unwrap();
        host.write(&opened.store, &history[..30]).await.unwrap();
        host.snapshot_and_purge(&opened.store).await.unwrap();
    });
    host.crash(Crash::LoseAll);
    host.disk.remove_hook();
    host.tables = MemoryTables::default();
    process(async {
        let Ok(opened) = host.open().await else { return false };
        opened.recovered.position == Some(at(29))
            && replay_and_check(host.clone(), opened, &history).await.is_ok()
    })
}

#[test]
fn a_block_is_synced_before_it_is_named() {
    needed(lost_tables, |op| is_file(op, "blocks", "blk"));
}

#[test]
fn a_blocks_name_is_synced_before_it_is_named() {
    needed(lost_tables, |op| is_dir(op, "blocks"));
}

#[test]
fn a_snapshot_is_synced_before_the_log_is_purged() {
    needed(lost_tables, |op| is_file(op, "snapshots", "tmp"));
}

#[test]
fn a_snapshots_name_is_synced_before_the_log_is_purged() {
    needed(lost_tables, |op| is_dir(op, "snapshots"));
}

/// The power fails after everything was written. The surviving tables must be found.
fn kept_tables(ignored: fn(&DiskOp) -> bool) -> bool {
    let (mut host, history) = (Host::new(1), history(40));
    host.disk.ignore_syncs(ignored);
    process(async {
        let opened = host.open().await.unwrap();
        host.write(&opened.store, &history).await.unwrap();
        opened.store.close().await.unwrap();
    });
    // Again, now that there are tables to open.
    process(async { drop(host.open().await.unwrap()) });
    host.crash(Crash::LoseAll);
    host.disk.remove_hook();
    process(async {
        let opened = host.open().await.unwrap();
        opened.rebuilt.is_none() && opened.recovered.position == Some(at(39))
    })
}

#[test]
fn current_is_synced_before_it_counts() {
    needed(kept_tables, |op| is_file(op, "tables", "tmp"));
}

#[test]
fn currents_name_is_synced() {
    needed(kept_tables, |op| is_dir(op, "tables"));
}

/// The second sync of `tables/` in a start is that of the marker's removal; the first one that of
/// its creation. Returns whether verified tables are used after a power failure.
fn verified_tables(ignored: fn(&DiskOp) -> bool) -> bool {
    let (mut host, history) = (Host::new(1), history(40));
    process(async {
        let opened = host.open().await.unwrap();
        host.write(&opened.store, &history).await.unwrap();
        opened.store.close().await.unwrap();
    });
    let created = std::sync::atomic::AtomicBool::new(false);
    host.disk.ignore_syncs(move |op| {
        let first =
            is_dir(op, "tables") && !created.swap(true, std::sync::atomic::Ordering::Relaxed);
        !first && ignored(op)
    });
    process(async { drop(host.open().await.unwrap()) });
    host.crash(Crash::LoseAll);
    host.disk.remove_hook();
    process(async { host.open().await.unwrap().rebuilt.is_none() })
}

#[test]
fn the_markers_removal_is_synced() {
    needed(verified_tables, |op| is_dir(op, "tables"));
}

/// The power fails while the tables are opened. Returns whether the next start notices.
fn killed_by_opening(ignored: fn(&DiskOp) -> bool) -> bool {
    let (mut host, history) = (Host::new(1), history(40));
    process(async {
        let opened = host.open().await.unwrap();
        host.write(&opened.store, &history).await.unwrap();
        opened.store.close().await.unwrap();
    });
    host.disk.ignore_syncs(ignored);
    // The marker is created and its name synced; its removal fails.
    host.disk.power_off_after(2);
    process(async { host.open().await.unwrap_err() });
    host.crash(Crash::LoseAll);
    host.disk.remove_hook();
    process(async { host.open().await.unwrap().rebuilt.is_some() })
}

#[test]
fn the_marker_is_synced_before_the_tables_are_opened() {
    needed(killed_by_opening, |op| is_dir(op, "tables"));
}

/// Blocks are written and removed, and then a power failure resets the tables. Returns
/// whether no name is reused.
fn fresh_names(ignored: fn(&DiskOp) -> bool) -> bool {
    let (mut host, history) = (Host::new(1), history(40));
    host.disk.ignore_syncs(ignored);
    host.disk.record();
    process(async {
        let opened = host.open().await.unwrap();
        host.write(&opened.store, &history).await.unwrap();
    });
    let created = |host: &Host| {
        let ops = host.disk.trace().into_iter();
        ops.filter_map(|op| match op {
            DiskOp::Create(path) if path.extension().is_some_and(|e| e == "blk") => Some(path),
            _ => None,
        })
        .collect::<std::collections::BTreeSet<_>>()
    };
    let before = created(&host);
    host.crash(Crash::LoseAll);
    host.disk.remove_hook();
    for path in host.block_files() {
        host.disk.remove(&path).unwrap();
    }
    host.tables = MemoryTables::default();
    host.disk.record();
    process(async {
        // With an unreadable reservation the store does not open, which is fine, too.
        let Ok(opened) = host.open().await else { return false };
        host.write(&opened.store, &history).await.unwrap();
        created(&host).is_disjoint(&before)
    })
}

#[test]
fn the_reservation_of_numbers_is_synced_before_they_are_used() {
    needed(fresh_names, |op| is_file(op, "blocks", "tmp"));
}

/// A snapshot is installed, and then the power fails.
fn installed(ignored: fn(&DiskOp) -> bool) -> bool {
    let history = history(40);
    let (mut from, mut to) = (Host::new(1), Host { member: 2, ..Host::new(2) });
    process(async {
        let sender = from.open().await.unwrap().store;
        from.write(&sender, &history).await.unwrap();
        let snapshot = sender.snapshot().await.unwrap();
        let receiver = to.open().await.unwrap().store;
        to.write(&receiver, &history[..5]).await.unwrap();
        to.disk.ignore_syncs(ignored);
        let incoming = receiver.receive(snapshot.files().to_vec()).await.unwrap();
        send(&sender, &snapshot, &incoming).await;
        incoming.finish().await.unwrap();
        receiver.install(incoming).await.unwrap();
    });
    to.crash(Crash::LoseAll);
    to.disk.remove_hook();
    // Its log was purged up to the snapshot.
    to.wal = Wal { first: 40, end: 40 };
    let without_tables =
        Host { disk: to.disk.fork(), tables: MemoryTables::default(), ..to.clone() };
    [to, without_tables].iter().all(|host| {
        process(async {
            let Ok(opened) = host.open().await else { return false };
            let all = opened.recovered.position == Some(at(39));
            if all {
                check(opened.recovered, &history);
            }
            all
        })
    })
}

#[test]
fn received_files_are_synced_before_they_are_installed() {
    needed(installed, |op| is_file(op, "incoming", "blk"));
    needed(installed, |op| is_file(op, "incoming", "snap"));
}

#[test]
fn received_names_are_synced_before_the_tables_are_switched() {
    needed(installed, |op| is_dir(op, "blocks"));
    needed(installed, |op| is_dir(op, "snapshots"));
}

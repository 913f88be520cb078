//! Tests with sled and real files, which the simulated disk cannot replace.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use super::harness::{Wal, at, check, history, open, process};
use crate::{
    disk::{self, Disk, RealDisk},
    fault::Fault,
    lane::Lanes,
    state::{Changes, Storage},
    storage::{BlockStorage, OpenedStore, SledTables, StorageOptions, StoreError},
    types::MemberId,
};

fn options(dir: &Path) -> StorageOptions {
    let options = StorageOptions::new(dir.to_owned(), MemberId(1));
    StorageOptions { block_bytes: super::harness::BLOCK_BYTES, ..options }
}

async fn open_real(dir: &Path, wal: Wal) -> Result<OpenedStore, StoreError> {
    open(Arc::new(RealDisk), Arc::new(SledTables), options(dir), wal, Fault::default()).await
}

async fn write(store: &BlockStorage, changes: &[Changes]) {
    for changes in changes {
        store.records().submit(changes.clone());
        store.set_durable(changes.position.index);
    }
    store.flush().await.unwrap();
}

fn copy(from: &Path, to: &Path) {
    RealDisk.create_dir_all(to).unwrap();
    for name in RealDisk.list(from).unwrap() {
        let (from, to) = (from.join(&name), to.join(&name));
        if RealDisk.list(&from).is_ok() {
            copy(&from, &to);
        } else {
            let file = RealDisk.open(&to, disk::Open::CreateNew).unwrap();
            file.write_all_at(&disk::read(&RealDisk, &from).unwrap(), 0).unwrap();
        }
    }
}

/// The directory of a killed process: copied while the store is open.
async fn killed(history: &[Changes]) -> (tempfile::TempDir, PathBuf, Wal) {
    let dir = tempfile::tempdir().unwrap();
    let wal = Wal { first: 0, end: history.len() as u64 };
    let opened = open_real(&dir.path().join("live"), Wal::default()).await.unwrap();
    write(&opened.store, &history[..20]).await;
    opened.store.snapshot().await.unwrap();
    write(&opened.store, &history[20..]).await;
    let image = dir.path().join("image");
    copy(&dir.path().join("live"), &image);
    opened.store.close().await.unwrap();
    (dir, image, wal)
}

#[test]
fn the_data_of_a_killed_process_is_complete() {
    process(async {
        let history = history(60);
        let (_dir, image, wal) = killed(&history).await;
        let opened = open_real(&image, wal).await.unwrap();
        assert_eq!(opened.rebuilt, None);
        assert_eq!(opened.recovered.position, Some(at(59)));
        check(opened.recovered, &history);
        opened.store.close().await.unwrap();
    });
}

/// Sled panics, hangs or returns wrong data when its pages are damaged. In any case the recovered
/// state is right.
#[test]
fn damaged_sled_files_never_become_a_wrong_state() {
    process(async {
        let history = history(60);
        let (dir, image, wal) = killed(&history).await;
        let db = PathBuf::from("tables/00000001/db");
        let bytes = disk::read(&RealDisk, &image.join(&db)).unwrap();
        let used = bytes.len() - bytes.iter().rev().take_while(|byte| **byte == 0).count();
        let mut rebuilt = 0;
        for n in 0..12 {
            let broken = dir.path().join(format!("broken-{n}"));
            copy(&image, &broken);
            let file = RealDisk.open(&broken.join(&db), disk::Open::Write).unwrap();
            let offset = used * n / 12;
            file.write_all_at(&[0xa5; 64], offset as u64).unwrap();
            let opened = open_real(&broken, wal).await.unwrap();
            rebuilt += usize::from(opened.rebuilt.is_some());
            check(opened.recovered, &history);
            opened.store.close().await.unwrap();
        }
        assert!(rebuilt > 0, "no damage was noticed");
    });
}

#[test]
fn deleted_and_truncated_sled_files_lead_to_a_rebuild() {
    process(async {
        let history = history(60);
        let (dir, image, wal) = killed(&history).await;
        for (n, len) in [0, 100, 5000].into_iter().enumerate() {
            // Truncated in the middle, sled returns to an older state, which is fine, too.
            let broken = dir.path().join(format!("broken-{n}"));
            copy(&image, &broken);
            let db = broken.join("tables/00000001/db");
            RealDisk.open(&db, disk::Open::Write).unwrap().set_len(len).unwrap();
            let opened = open_real(&broken, wal).await.unwrap();
            assert!(opened.rebuilt.is_some() || len == 5000);
            check(opened.recovered, &history);
            opened.store.close().await.unwrap();
        }
    });
}

#[test]
fn threads_write_and_read_at_the_same_time() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let history = history(400);
        let opened = BlockStorage::open(
            options(dir.path()),
            Arc::new(RealDisk),
            Arc::new(SledTables),
            Lanes::Threads,
            Wal::default(),
            Fault::default(),
        );
        let store = opened.await.unwrap().store;
        let reader = {
            let (records, history) = (store.records(), history.clone());
            tokio::spawn(async move {
                let mut found = 0;
                for changes in history.iter().cycle().take(4000) {
                    for record in &changes.records {
                        // Unless it is not submitted yet, or compacted already, it is the written record.
                        if let Ok(read) = records.read(&[record.meta.id]) {
                            assert_eq!(read[0], *record);
                            found += 1;
                        }
                    }
                    tokio::task::yield_now().await;
                }
                found
            })
        };
        for changes in &history {
            store.wait_for_room().await;
            write(&store, std::slice::from_ref(changes)).await;
            tokio::task::yield_now().await;
        }
        assert!(reader.await.unwrap() > 0);
        store.close().await.unwrap();
        let wal = Wal { first: 0, end: 400 };
        let opened = open_real(dir.path(), wal).await.unwrap();
        assert_eq!(opened.rebuilt, None);
        check(opened.recovered, &history);
        opened.store.close().await.unwrap();
    });
}

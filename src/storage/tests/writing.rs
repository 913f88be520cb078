//! Tests of the writer: the order and conditions of its writes.

use std::sync::Arc;

use super::harness::{Host, Model, at, check, history, process, record};
use crate::{
    disk::sim::{DiskOp, HookAction},
    fault::Fault,
    state::{Changes, Record, Storage, StorageError},
    storage::StoreError,
    types::{RecordId, Revision},
};

#[test]
fn a_record_can_be_read_from_the_moment_it_was_submitted() {
    process(async {
        let mut host = Host::new(1);
        let Model { records, .. } = Model::of(&history(40));
        let opened = host.open().await.unwrap();
        let storage = opened.recovered.storage;
        for changes in history(40) {
            storage.submit(changes);
        }
        let ids: Vec<_> = records.keys().copied().collect();
        let expected: Vec<_> = records.into_values().collect();
        assert_eq!(storage.read(&ids).unwrap(), expected, "pending");
        host.wal.end = 40;
        opened.store.set_durable(39);
        opened.store.flush().await.unwrap();
        assert_eq!(storage.read(&ids).unwrap(), expected, "from blocks");
        for (id, record) in ids.iter().zip(&expected) {
            assert_eq!(storage.read(&[*id]).unwrap(), std::slice::from_ref(record));
        }
    });
}

/// Whole revisions of ascending records, of about `bytes_max` bytes.
fn cut(records: &[Arc<Record>], from: i64, to: i64, bytes_max: usize) -> Vec<Arc<Record>> {
    let mut run = Vec::new();
    let mut bytes = 0;
    for of_one in records.chunk_by(|one, other| one.meta.id.main == other.meta.id.main) {
        if (from..=to).contains(&of_one[0].meta.id.main.0) && (bytes < bytes_max || bytes == 0) {
            bytes += of_one.iter().map(|record| record.bytes()).sum::<usize>();
            run.extend_from_slice(of_one);
        } else if bytes > 0 {
            break;
        }
    }
    run
}

#[test]
fn a_scan_finds_every_record_once_wherever_the_writer_is() {
    process(async {
        let host = Host::new(1);
        let opened = host.open().await.unwrap();
        let storage = opened.recovered.storage;
        let mut records = Vec::new();
        for changes in history(60) {
            records.extend(changes.records.clone());
            storage.submit(Changes { discarded: Vec::new(), ..changes });
        }
        for durable in [None, Some(0), Some(20), Some(21), Some(45), Some(59)] {
            if let Some(durable) = durable {
                opened.store.set_durable(durable);
                settle().await;
            }
            for (from, to) in [(0, 99), (2, 2), (17, 40), (22, 61), (23, 23), (61, 99), (62, 99)] {
                for bytes_max in [1, 700, 5000, usize::MAX] {
                    let found = storage.scan(Revision(from), Revision(to), bytes_max).unwrap();
                    let expected = cut(&records, from, to, bytes_max);
                    assert_eq!(found, expected, "{from}..={to}, {bytes_max}, {durable:?} durable");
                }
            }
        }
    });
}

#[test]
fn a_record_that_was_never_submitted_is_missing() {
    process(async {
        let mut host = Host::new(1);
        let opened = host.open().await.unwrap();
        host.write(&opened.store, &history(10)).await.unwrap();
        for (main, sub) in [(0, 0), (2, 1), (5, 9), (1000, 0)] {
            let id = RecordId { main: Revision(main), sub };
            let read = opened.recovered.storage.read(&[id]);
            assert!(matches!(read, Err(StorageError::Missing(missing)) if missing == id));
        }
    });
}

#[test]
fn the_writer_never_gets_ahead_of_the_wal() {
    process(async {
        let host = Host::new(1);
        let opened = host.open().await.unwrap();
        history(60).into_iter().for_each(|changes| opened.recovered.storage.submit(changes));
        let mut flush = Box::pin(opened.store.flush());
        for durable in [3, 10, 30] {
            opened.store.set_durable(durable);
            let waited = tokio::time::timeout(std::time::Duration::ZERO, &mut flush).await;
            assert!(waited.is_err(), "flushed at {durable}");
            settle().await;
            let found = Host { wal: super::harness::Wal { first: 0, end: 60 }, ..host.clone() };
            let position = process_position(&found).await;
            assert!(position.is_none_or(|index| index <= durable), "{position:?} > {durable}");
        }
        opened.store.set_durable(59);
        assert_eq!(flush.await.unwrap(), Some(at(59)));
    });
}

/// The position of the tables for a start on a copy of the host's disk.
async fn process_position(host: &Host) -> Option<u64> {
    let copy = Host { disk: host.disk.fork(), ..host.clone() };
    copy.open().await.unwrap().recovered.position.map(|position| position.index)
}

/// Lets every lane finish its work.
async fn settle() {
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
}

#[test]
fn room_opens_when_the_wal_becomes_durable() {
    process(async {
        let host = Host::new(1);
        let options =
            crate::storage::StorageOptions { pending_bytes_max: 10_000, ..host.options() };
        let (disk, tables) = (host.disk.clone(), host.tables.clone());
        let (disk, tables) = (std::sync::Arc::new(disk), std::sync::Arc::new(tables));
        let opened = super::harness::open(disk, tables, options, host.wal, Fault::default()).await;
        let opened = opened.unwrap();
        let mut index = 0;
        while !opened.store.is_full() {
            let records = vec![record(index as i64 + 2, 0, "k", 500)];
            let changes = Changes { position: at(index), records, ..Changes::default() };
            opened.recovered.storage.submit(changes);
            index += 1;
        }
        let mut room = Box::pin(opened.store.wait_for_room());
        let full = tokio::time::timeout(std::time::Duration::ZERO, &mut room).await;
        assert!(full.is_err(), "there was room");
        opened.store.set_durable(index - 1);
        room.await;
        assert!(!opened.store.is_full());
    });
}

#[test]
fn a_failing_disk_stops_the_member_and_names_the_file() {
    for kind in [std::io::ErrorKind::StorageFull, std::io::ErrorKind::Other] {
        process(async {
            let mut host = Host::new(1);
            let fault = Fault::default();
            let opened = host.open_with(fault.clone()).await.unwrap();
            host.disk.set_hook(move |op| match op {
                DiskOp::Write { path, .. } if path.extension().is_some_and(|e| e == "blk") => {
                    HookAction::Fail(kind)
                }
                _ => HookAction::Proceed,
            });
            let outcome = host.write(&opened.store, &history(30)).await;
            assert!(matches!(outcome, Err(StoreError::Stopped)));
            let reason = fault.stopped().await;
            assert!(reason.contains("cannot write data/blocks/"), "{reason}");
            assert!(matches!(opened.store.flush().await, Err(StoreError::Stopped)));
        });
    }
}

#[test]
fn a_value_that_rotted_is_never_returned() {
    let mut host = Host::new(1);
    process(async {
        let opened = host.open().await.unwrap();
        host.write(&opened.store, &history(30)).await.unwrap();
        opened.store.close().await.unwrap();
    });
    let block = host.block_files().remove(0);
    host.disk.flip_bit(&block, 50, 3).unwrap();
    process(async {
        let fault = Fault::default();
        let opened = host.open_with(fault.clone()).await.unwrap();
        let ids: Vec<_> = opened.recovered.records.map(|meta| meta.id).collect();
        let read = opened.recovered.storage.read(&ids);
        let Err(StorageError::Damaged(message)) = read else { panic!("{read:?}") };
        assert!(
            message.contains(block.to_str().unwrap()) && message.contains("at byte 8:"),
            "{message}"
        );
        assert!(fault.is_stopped());
    });
}

#[test]
fn closing_writes_all_that_is_durable_and_no_more() {
    let mut host = Host::new(1);
    let history = history(30);
    process(async {
        let opened = host.open().await.unwrap();
        history.iter().for_each(|changes| opened.recovered.storage.submit(changes.clone()));
        opened.store.set_durable(20);
        opened.store.close().await.unwrap();
        assert!(matches!(opened.store.flush().await, Err(StoreError::Stopped)));
    });
    host.wal.end = 21;
    process(async {
        let opened = host.open().await.unwrap();
        assert_eq!(opened.recovered.position, Some(at(20)));
        check(opened.recovered, &history);
    });
}

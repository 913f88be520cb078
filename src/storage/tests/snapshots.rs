//! Transfers of snapshots from one member to another.

use bytes::Bytes;

use super::harness::{DATA, Host, at, check, check_content, history, process, replay_and_check};
use crate::{
    disk::{Disk, sim::Crash},
    state::{Changes, Storage},
    storage::{BlockStorage, IncomingSnapshot, SnapshotFile, SnapshotRef, StoreError},
};

/// Sends all wanted parts, in chunks.
pub async fn send(from: &BlockStorage, snapshot: &SnapshotRef, to: &IncomingSnapshot) {
    for (file, offset) in to.wanted().into_iter().enumerate() {
        send_file(from, snapshot, to, file, offset, u64::MAX).await;
    }
}

async fn send_file(
    from: &BlockStorage,
    snapshot: &SnapshotRef,
    to: &IncomingSnapshot,
    file: usize,
    mut offset: u64,
    end: u64,
) {
    let end = end.min(snapshot.files()[file].bytes);
    while offset < end {
        let max = 700.min(end - offset) as usize;
        let bytes = from.read_chunk(snapshot, file, offset, max).await.unwrap();
        let next = offset + bytes.len() as u64;
        to.write(file, offset, bytes).await.unwrap();
        offset = next;
    }
}

/// A sender with a snapshot of all of the history, and a receiver with a part of it.
async fn pair(history: &[Changes], part: usize) -> (Host, BlockStorage, SnapshotRef, Host) {
    let (mut from, mut to) = (Host::new(1), Host { member: 2, ..Host::new(2) });
    let sender = from.open().await.unwrap().store;
    from.write(&sender, history).await.unwrap();
    let snapshot = sender.snapshot().await.unwrap();
    let receiver = to.open().await.unwrap().store;
    to.write(&receiver, &history[..part]).await.unwrap();
    receiver.close().await.unwrap();
    (from, sender, snapshot, to)
}

async fn receive(
    to: &Host,
    snapshot: &SnapshotRef,
) -> (crate::storage::OpenedStore, IncomingSnapshot) {
    let opened = to.open().await.unwrap();
    let incoming = opened.store.receive(snapshot.files().to_vec()).await.unwrap();
    (opened, incoming)
}

fn incoming_files(host: &Host) -> Vec<String> {
    host.disk.list(&std::path::Path::new(DATA).join("incoming")).unwrap()
}

#[test]
fn an_installed_snapshot_is_the_senders_state_and_survives_a_restart() {
    process(async {
        let history = history(60);
        let (_from, sender, snapshot, mut to) = pair(&history[..40], 10).await;
        let (opened, incoming) = receive(&to, &snapshot).await;
        send(&sender, &snapshot, &incoming).await;
        assert_eq!(incoming.finish().await.unwrap(), at(39));
        let recovered = opened.store.install(incoming).await.unwrap();
        check(recovered, &history);
        assert_eq!(opened.store.retained().unwrap().position(), at(39));
        assert!(incoming_files(&to).is_empty());
        // Writing continues from there.
        to.wal.first = 40;
        to.write(&opened.store, &history[40..]).await.unwrap();
        opened.store.close().await.unwrap();
        let opened = to.open().await.unwrap();
        assert_eq!(opened.rebuilt, None);
        replay_and_check(to.clone(), opened, &history).await.unwrap();
    });
}

#[test]
fn reads_that_began_before_an_install_end_on_the_old_state() {
    process(async {
        let history = history(40);
        let (_from, sender, snapshot, mut to) = pair(&history, 10).await;
        let (opened, incoming) = receive(&to, &snapshot).await;
        let old = opened.recovered;
        to.wal.end = 12;
        // One chunk is pending, the others are in blocks.
        old.storage.submit(history[10].clone());
        let pending = history[10].records.clone();
        send(&sender, &snapshot, &incoming).await;
        incoming.finish().await.unwrap();
        opened.store.install(incoming).await.unwrap();
        let ids: Vec<_> = pending.iter().map(|record| record.meta.id).collect();
        assert_eq!(old.storage.read(&ids).unwrap(), pending);
        check_content(old, &history);
        assert!(!opened.store.is_full());
    });
}

#[test]
fn a_member_that_holds_most_blocks_is_sent_only_the_others() {
    process(async {
        let history = history(80);
        let (mut from, sender, first, mut to) = pair(&history[..40], 10).await;
        let (opened, incoming) = receive(&to, &first).await;
        send(&sender, &first, &incoming).await;
        incoming.finish().await.unwrap();
        opened.store.install(incoming).await.unwrap();
        // No compaction in between: all blocks of the first snapshot are in the second one.
        let more: Vec<_> = history[40..]
            .iter()
            .map(|changes| Changes { discarded: Vec::new(), ..changes.clone() })
            .collect();
        from.write(&sender, &more).await.unwrap();
        let second = sender.snapshot().await.unwrap();
        let incoming = opened.store.receive(second.files().to_vec()).await.unwrap();
        let known = |file: &SnapshotFile| first.files().contains(file);
        for (file, wanted) in second.files().iter().zip(incoming.wanted()) {
            assert_eq!(wanted, if known(file) { file.bytes } else { 0 }, "{file:?}");
        }
        assert!(second.files().iter().filter(|file| known(file)).count() > 3);
        send(&sender, &second, &incoming).await;
        incoming.finish().await.unwrap();
        let recovered = opened.store.install(incoming).await.unwrap();
        assert_eq!(recovered.position, Some(at(79)));
        let ids: Vec<_> = recovered.records.map(|meta| meta.id).collect();
        recovered.storage.read(&ids).unwrap();
        to.wal.first = 80;
        opened.store.close().await.unwrap();
        assert_eq!(to.open().await.unwrap().rebuilt, None);
    });
}

#[test]
fn an_interrupted_transfer_goes_on_after_a_restart() {
    process(async {
        let history = history(40);
        let (_from, sender, snapshot, to) = pair(&history, 10).await;
        let (opened, incoming) = receive(&to, &snapshot).await;
        send_file(&sender, &snapshot, &incoming, 0, 0, u64::MAX).await;
        send_file(&sender, &snapshot, &incoming, 1, 0, 100).await;
        drop(incoming);
        opened.store.close().await.unwrap();
        let (opened, incoming) = receive(&to, &snapshot).await;
        let wanted = incoming.wanted();
        assert_eq!(wanted[..3], [snapshot.files()[0].bytes, 100, 0]);
        send(&sender, &snapshot, &incoming).await;
        incoming.finish().await.unwrap();
        check(opened.store.install(incoming).await.unwrap(), &history);
    });
}

#[test]
fn the_remains_of_a_transfer_after_a_power_failure_are_not_trusted() {
    let history = history(40);
    for seed in 0..20 {
        process(async {
            let (_from, sender, snapshot, mut to) = pair(&history, 10).await;
            to.disk.reseed(seed);
            let (opened, incoming) = receive(&to, &snapshot).await;
            send(&sender, &snapshot, &incoming).await;
            drop(incoming);
            drop(opened);
            to.crash(Crash::Arbitrary);
            let (opened, incoming) = receive(&to, &snapshot).await;
            send(&sender, &snapshot, &incoming).await;
            if incoming.finish().await.is_err() {
                send(&sender, &snapshot, &incoming).await;
                incoming.finish().await.unwrap();
            }
            check(opened.store.install(incoming).await.unwrap(), &history);
        });
    }
}

#[test]
fn a_chunk_that_arrives_damaged_costs_its_file_only() {
    process(async {
        let history = history(40);
        let (_from, sender, snapshot, to) = pair(&history, 10).await;
        let (opened, incoming) = receive(&to, &snapshot).await;
        let wrong = vec![7; snapshot.files()[2].bytes as usize];
        incoming.write(2, 0, wrong.into()).await.unwrap();
        send(&sender, &snapshot, &incoming).await;
        let error = incoming.finish().await.unwrap_err();
        assert!(
            matches!(&error, StoreError::Refused(message) if message.contains("arrived damaged"))
        );
        let again: Vec<_> = incoming
            .wanted()
            .iter()
            .enumerate()
            .filter(|(_, at)| **at == 0)
            .map(|(n, _)| n)
            .collect();
        assert_eq!(again, [2]);
        send(&sender, &snapshot, &incoming).await;
        incoming.finish().await.unwrap();
        check(opened.store.install(incoming).await.unwrap(), &history);
    });
}

#[test]
fn a_block_of_ours_that_rotted_is_wanted_again() {
    process(async {
        let history = history(40);
        let (_from, sender, snapshot, to) = pair(&history[..30], 10).await;
        let (opened, incoming) = receive(&to, &snapshot).await;
        send(&sender, &snapshot, &incoming).await;
        incoming.finish().await.unwrap();
        opened.store.install(incoming).await.unwrap();
        let rotten = std::path::Path::new(DATA).join("blocks").join(&snapshot.files()[1].name);
        to.disk.flip_bit(&rotten, 20, 0).unwrap();
        let incoming = opened.store.receive(snapshot.files().to_vec()).await.unwrap();
        let wanted = incoming.wanted();
        assert_eq!((wanted[1], wanted[2]), (0, snapshot.files()[2].bytes));
    });
}

#[test]
fn wrong_offers_and_chunks_are_refused_and_do_no_harm() {
    process(async {
        let history = history(40);
        let (_from, sender, snapshot, to) = pair(&history, 10).await;
        let opened = to.open().await.unwrap();
        let good = snapshot.files().to_vec();
        let renamed = |name: &str| {
            let mut files = good.clone();
            files[1].name = name.into();
            files
        };
        let twice = [good.clone(), vec![good[1].clone()]].concat();
        let offers =
            [Vec::new(), good[1..].to_vec(), renamed("../../identity"), renamed("x.blk"), twice];
        for offer in offers {
            let outcome = opened.store.receive(offer).await;
            assert!(matches!(outcome, Err(StoreError::Refused(_))));
        }
        let incoming = opened.store.receive(good.clone()).await.unwrap();
        let second = opened.store.receive(good.clone()).await;
        assert!(matches!(second, Err(StoreError::Refused(_))), "one at a time");
        let byte = Bytes::from_static(b"x");
        for (file, offset) in [(99, 0), (0, 5), (0, good[0].bytes), (1, u64::MAX)] {
            let outcome = incoming.write(file, offset, byte.clone()).await;
            assert!(matches!(outcome, Err(StoreError::Refused(_))), "{file} at {offset}");
        }
        let incomplete = opened.store.install(incoming).await;
        assert!(matches!(incomplete, Err(StoreError::Refused(_))));
        // A snapshot that names a block outside the offer.
        let offer: Vec<_> = good[..good.len() - 1].to_vec();
        let incoming = opened.store.receive(offer).await.unwrap();
        send(&sender, &snapshot, &incoming).await;
        assert!(matches!(incoming.finish().await, Err(StoreError::Refused(_))));
        check(opened.recovered, &history);
    });
}

#[test]
fn a_snapshot_never_turns_the_state_back() {
    process(async {
        let history = history(40);
        let (_from, sender, snapshot, mut to) = pair(&history[..30], 30).await;
        let opened = to.open().await.unwrap();
        to.write(&opened.store, &history[30..]).await.unwrap();
        let incoming = opened.store.receive(snapshot.files().to_vec()).await.unwrap();
        send(&sender, &snapshot, &incoming).await;
        incoming.finish().await.unwrap();
        let outcome = opened.store.install(incoming).await;
        assert!(matches!(outcome, Err(StoreError::Stale { .. })));
        assert_eq!(opened.store.flush().await.unwrap(), Some(at(39)));
    });
}

#[test]
fn a_crash_in_the_middle_of_an_install_leaves_the_old_state_or_the_new_one() {
    let history = history(40);
    let mut seen = std::collections::BTreeSet::new();
    for changes in 0.. {
        let mut to = process(async {
            let (_from, sender, snapshot, to) = pair(&history, 10).await;
            to.disk.reseed(changes);
            let (opened, incoming) = receive(&to, &snapshot).await;
            send(&sender, &snapshot, &incoming).await;
            incoming.finish().await.unwrap();
            to.disk.power_off_after(changes);
            let done = opened.store.install(incoming).await.is_ok();
            done.then_some(()).map_or(Some(to), |()| None)
        });
        let Some(to) = &mut to else { break };
        to.crash(Crash::Arbitrary);
        process(async {
            let opened = to.open().await.unwrap();
            let position = opened.recovered.position.map(|position| position.index);
            assert!([Some(9), Some(39)].contains(&position), "{position:?}");
            seen.insert(position);
            check(opened.recovered, &history);
            opened.store.close().await.unwrap();
            assert_eq!(to.open().await.unwrap().rebuilt, None, "the next start needs no rebuild");
        });
    }
    assert_eq!(seen.len(), 2, "both outcomes occurred");
}

#[test]
fn a_snapshot_is_exactly_what_was_submitted_before_it() {
    process(async {
        let mut host = Host::new(1);
        let history = history(50);
        let opened = host.open().await.unwrap();
        history[..20].iter().for_each(|changes| opened.store.records().submit(changes.clone()));
        let snapshot = opened.store.snapshot();
        tokio::pin!(snapshot);
        let waited = tokio::time::timeout(std::time::Duration::ZERO, &mut snapshot).await;
        assert!(waited.is_err(), "the snapshot waits for the log");
        history[20..].iter().for_each(|changes| opened.store.records().submit(changes.clone()));
        host.wal.end = 50;
        opened.store.set_durable(49);
        assert_eq!(snapshot.await.unwrap().position(), at(19));
        assert_eq!(opened.store.flush().await.unwrap(), Some(at(49)));
    });
}

#[test]
fn files_of_a_replaced_snapshot_stay_while_it_is_sent() {
    process(async {
        let mut host = Host::new(1);
        let history = history(60);
        let opened = host.open().await.unwrap();
        host.write(&opened.store, &history[..30]).await.unwrap();
        let first = opened.store.snapshot().await.unwrap();
        host.write(&opened.store, &history[30..]).await.unwrap();
        let second = opened.store.snapshot().await.unwrap();
        assert_ne!(first.files(), second.files());
        let there = |host: &Host, file: &SnapshotFile| {
            let dirs = ["blocks", "snapshots"].map(|dir| std::path::Path::new(DATA).join(dir));
            dirs.iter().any(|dir| host.disk.exists(&dir.join(&file.name)).unwrap())
        };
        assert!(first.files().iter().all(|file| there(&host, file)));
        let only_first: Vec<_> =
            first.files().iter().filter(|file| !second.files().contains(file)).cloned().collect();
        assert!(only_first.len() > 1);
        drop(first);
        opened.store.flush().await.unwrap();
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(only_first.iter().all(|file| !there(&host, file)));
        assert!(second.files().iter().all(|file| there(&host, file)));
    });
}

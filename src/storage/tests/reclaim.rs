//! Compaction frees space, and never loses a live record.

use proptest::prelude::*;

use super::harness::{BLOCK_BYTES, Host, Model, at, check, history, process, record};
use crate::{
    state::{Changes, Storage, TableChange},
    storage::BlockStorage,
    types::{LogPosition, RecordId},
};

/// A step of a history.
#[derive(Debug, Clone)]
enum Step {
    /// A chunk with records of these sizes.
    Put(Vec<usize>),
    /// Discards about this percentage of the live records, by this seed.
    Discard {
        seed: u64,
        percent: u64,
    },
    Table(u8, Option<u8>),
    Flush,
    Snapshot,
    Reopen,
}

fn any_step() -> impl Strategy<Value = Step> {
    let size = prop_oneof![5 => 0..300_usize, 1 => 1000..5000_usize];
    let put = || proptest::collection::vec(size.clone(), 1..20).prop_map(Step::Put);
    let discard = (any::<u64>(), prop_oneof![Just(10_u64), Just(60), Just(97)]);
    prop_oneof![
        8 => put(),
        3 => discard.prop_map(|(seed, percent)| Step::Discard { seed, percent }),
        2 => (0..10_u8, any::<Option<u8>>()).prop_map(|(key, value)| Step::Table(key, value)),
        3 => Just(Step::Flush),
        1 => Just(Step::Snapshot),
        1 => Just(Step::Reopen),
    ]
}

/// A number below 100 that depends only on the id and the seed.
fn percentile(id: RecordId, seed: u64) -> u64 {
    let mixed = (id.main.0 as u64 ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 32) % 100
}

/// The next chunk that the step makes, if it makes one.
fn chunk(step: &Step, model: &Model, last: i64) -> Option<Changes> {
    let index = model.position.map_or(0, |position| position.index + 1);
    let mut changes = Changes { position: at(index), ..Changes::default() };
    match step {
        Step::Put(sizes) => {
            let sizes = sizes.iter().enumerate();
            let put = |(sub, bytes): (usize, &usize)| record(last + 1, sub as u32, "key", *bytes);
            changes.records = sizes.map(put).collect();
        }
        Step::Discard { seed, percent } => {
            let ids = model.records.keys().copied();
            changes.discarded = ids.filter(|id| percentile(*id, *seed) < *percent).collect();
            // The index is not walked in the order of revisions.
            changes.discarded.sort_by_key(|id| percentile(*id, seed ^ 1));
        }
        Step::Table(key, value) => {
            let key = vec![0x10, *key].into();
            changes.tables = vec![match value {
                Some(value) => TableChange::Put { key, value: vec![*value; 9].into() },
                None => TableChange::Delete { key },
            }];
        }
        Step::Flush | Step::Snapshot | Step::Reopen => return None,
    }
    Some(changes)
}

/// Waits until the writer is idle.
async fn settle(store: &BlockStorage) {
    store.flush().await.unwrap();
    for _ in 0..300 {
        tokio::task::yield_now().await;
    }
}

async fn run(steps: Vec<Step>) {
    let mut host = Host::new(1);
    let mut opened = host.open().await.unwrap();
    let mut model = Model::default();
    let mut last = 1;
    for step in steps {
        if let Some(changes) = chunk(&step, &model, last) {
            last += i64::from(!changes.records.is_empty());
            model.apply(&changes);
            host.wal.end = changes.position.index + 1;
            opened.store.records().submit(changes.clone());
            opened.store.set_durable(changes.position.index);
        }
        match step {
            Step::Flush => settle(&opened.store).await,
            Step::Snapshot if model.position.is_some() => {
                opened.store.snapshot().await.unwrap();
            }
            Step::Reopen => {
                opened.store.close().await.unwrap();
                opened = host.open().await.unwrap();
                assert_eq!(opened.rebuilt, None);
                assert_eq!(opened.recovered.position, model.position);
            }
            _ => {}
        }
        readable(&opened.store, &model);
    }
    // Drops all references to the blocks of older states.
    settle(&opened.store).await;
    if model.position.is_some() {
        opened.store.snapshot().await.unwrap();
    }
    settle(&opened.store).await;
    bounded(&host, &model);
    opened.store.close().await.unwrap();
    let opened = host.open().await.unwrap();
    let metas: Vec<_> = opened.recovered.records.collect();
    let expected: Vec<_> = model.records.values().map(|record| record.meta.clone()).collect();
    assert_eq!(metas, expected);
    assert_eq!(opened.recovered.tables, Vec::from_iter(model.tables.clone()));
    readable(&opened.store, &model);
}

fn readable(store: &BlockStorage, model: &Model) {
    let ids: Vec<_> = model.records.keys().copied().collect();
    let read = store.records().read(&ids).unwrap();
    assert_eq!(read, model.records.values().cloned().collect::<Vec<_>>());
}

/// Checks that blocks take at most about twice their live data, and that there are not too many.
fn bounded(host: &Host, model: &Model) {
    let files = host.block_files();
    let bytes: u64 =
        files.iter().map(|file| crate::disk::read(&host.disk, file).unwrap().len() as u64).sum();
    let record_bytes = |record: &crate::state::Record| {
        record.value.len() as u64 + 2 * record.meta.key.len() as u64 + 30
    };
    let live: u64 = model.records.values().map(|record| record_bytes(record)).sum();
    // The writer works with averages, which hide the size of dead records.
    let largest = model.records.values().map(|record| record.value.len() as u64).max();
    let slack = 100 * files.len() as u64 + 8 * (BLOCK_BYTES as u64) + 8 * largest.unwrap_or(0);
    assert!(bytes <= 3 * live + slack, "{bytes} bytes on disk, {live} alive");
    let blocks_min = (bytes / BLOCK_BYTES as u64) as usize;
    assert!(files.len() <= 5 * blocks_min + 16, "{} files for {bytes} bytes", files.len());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, max_shrink_iters: 400, ..Default::default() })]

    #[test]
    fn live_records_stay_readable_and_dead_ones_give_their_space_back(
        steps in proptest::collection::vec(any_step(), 1..80),
    ) {
        process(run(steps));
    }
}

#[test]
fn compacting_everything_leaves_no_block() {
    process(async {
        let mut host = Host::new(1);
        let history = history(60);
        let opened = host.open().await.unwrap();
        host.write(&opened.store, &history).await.unwrap();
        let model = Model::of(&history);
        let position = LogPosition { index: 60, ..at(0) };
        let discarded = model.records.into_keys().collect();
        let all = Changes { position, discarded, ..Changes::default() };
        host.write(&opened.store, &[all]).await.unwrap();
        settle(&opened.store).await;
        assert_eq!(host.block_files(), Vec::<std::path::PathBuf>::new());
        opened.store.close().await.unwrap();
        let opened = host.open().await.unwrap();
        assert_eq!(opened.rebuilt, None);
        assert_eq!(opened.recovered.records.count(), 0);
    });
}

#[test]
fn blocks_of_the_retained_snapshot_stay_until_the_next_one() {
    process(async {
        let mut host = Host::new(1);
        let history = history(60);
        let opened = host.open().await.unwrap();
        host.write(&opened.store, &history[..30]).await.unwrap();
        host.snapshot_and_purge(&opened.store).await.unwrap();
        host.write(&opened.store, &history[30..]).await.unwrap();
        settle(&opened.store).await;
        let before = host.block_files().len();
        // The tables are lost: the snapshot must be complete.
        host.tables.damage();
        let again = Host { disk: host.disk.kill(), ..host.clone() };
        let opened = again.open().await.unwrap();
        assert!(opened.rebuilt.is_some());
        check(opened.recovered, &history);
        assert!(again.block_files().len() < before, "the blocks of the lost tables are swept");
    });
}

#[test]
fn many_flushes_do_not_leave_many_files() {
    process(async {
        let mut host = Host::new(1);
        let opened = host.open().await.unwrap();
        for index in 0..300 {
            let records = vec![record(index as i64 + 2, 0, "k", 10)];
            let changes = Changes { position: at(index), records, ..Changes::default() };
            host.write(&opened.store, &[changes]).await.unwrap();
        }
        settle(&opened.store).await;
        let files = host.block_files().len();
        assert!(files < 40, "{files} files for 300 small records");
    });
}

#[test]
fn a_retained_snapshot_does_not_keep_the_blocks_that_a_large_compaction_freed() {
    process(async {
        let mut host = Host::new(1);
        let opened = host.open().await.unwrap();
        let mut history: Vec<_> = (0..100)
            .map(|index| {
                let records = vec![record(index as i64 + 2, 0, "k", 300)];
                Changes { position: at(index), records, ..Changes::default() }
            })
            .collect();
        let live = history.last().unwrap().records[0].meta.id;
        let ids = Model::of(&history).records.into_keys();
        let discarded = ids.filter(|id| *id != live).collect();
        history.push(Changes { position: at(100), discarded, ..Changes::default() });
        host.wal.end = 101;
        history.iter().for_each(|changes| opened.store.records().submit(changes.clone()));
        opened.store.set_durable(100);
        // At the position of the compaction, before its blocks are dropped.
        let first = opened.store.snapshot().await.unwrap();
        settle(&opened.store).await;
        assert!(host.block_files().len() > 10, "the snapshot keeps them");
        drop(first);
        settle(&opened.store).await;
        assert!(host.block_files().len() < 4);
        host.tables.damage();
        let again = Host { disk: host.disk.kill(), ..host.clone() };
        let opened = again.open().await.unwrap();
        assert!(opened.rebuilt.is_some());
        assert_eq!(opened.recovered.position, Some(at(100)));
        check(opened.recovered, &history);
    });
}

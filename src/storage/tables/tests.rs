use std::path::Path;

use bytes::Bytes;
use proptest::prelude::*;

use super::{Batch, CheckedTables, MemoryTables, SledTables, TablesEngine};

fn key(n: u8) -> Bytes {
    vec![0x10, n].into()
}

fn any_batch() -> impl Strategy<Value = Vec<(u8, Option<Vec<u8>>)>> {
    let value = proptest::option::of(proptest::collection::vec(any::<u8>(), 0..20));
    proptest::collection::vec((0..20_u8, value), 0..10)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_kept_checksum_is_that_of_the_content(
        batches in proptest::collection::vec(any_batch(), 0..10),
    ) {
        let (engine, dir) = (MemoryTables::default(), Path::new("t"));
        let (mut tables, _) = CheckedTables::create(&engine, dir, Vec::new()).unwrap();
        let mut model = std::collections::BTreeMap::new();
        for changes in batches {
            let changes = changes.into_iter();
            let batch: Batch = changes.map(|(n, value)| (key(n), value.map(Bytes::from))).collect();
            for (key, value) in &batch {
                match value {
                    Some(value) => drop(model.insert(key.clone(), value.clone())),
                    None => drop(model.remove(key)),
                }
            }
            tables.commit(batch).unwrap();
            tables.dump().unwrap();
        }
        let (_, content) = CheckedTables::open(&engine, dir).unwrap();
        let content: Vec<_> = content.into_iter().filter(|(key, _)| key[0] != 0).collect();
        prop_assert_eq!(content, Vec::from_iter(model));
    }
}

#[test]
fn a_value_that_changed_by_itself_is_noticed() {
    let (engine, dir) = (MemoryTables::default(), Path::new("t"));
    let content = vec![(key(1), Bytes::from_static(b"value"))];
    let (mut tables, _) = CheckedTables::create(&engine, dir, content).unwrap();
    engine.damage();
    assert!(tables.dump().is_err(), "by a snapshot");
    let error = CheckedTables::open(&engine, dir).unwrap_err();
    assert_eq!(error.to_string(), "tables t: wrong checksum");
}

#[test]
fn tables_that_lost_everything_are_not_taken_for_new_ones() {
    let (engine, dir) = (MemoryTables::default(), Path::new("t"));
    CheckedTables::create(&engine, dir, Vec::new()).unwrap();
    engine.removed(dir);
    assert!(CheckedTables::open(&engine, dir).is_err());
}

#[test]
fn both_engines_hold_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let memory = MemoryTables::default();
    let mut dumps = Vec::new();
    for engine in [&SledTables as &dyn TablesEngine, &memory] {
        let (mut tables, _) = CheckedTables::create(engine, dir.path(), Vec::new()).unwrap();
        let put = |n| (key(n), Some(Bytes::from(vec![n; 100])));
        tables.commit((0..200).map(put).collect()).unwrap();
        tables.commit((50..100).map(|n| (key(n), None)).collect()).unwrap();
        assert!(tables.size().unwrap() > 100 * 100);
        tables.close().unwrap();
        let (mut tables, content) = CheckedTables::open(engine, dir.path()).unwrap();
        assert_eq!(tables.dump().unwrap(), content);
        tables.close().unwrap();
        dumps.push(content);
    }
    assert_eq!(dumps[0], dumps[1]);
    assert_eq!(dumps[0].len(), 150 + 2);
}

#[test]
fn a_directory_is_free_as_soon_as_its_tables_are_closed() {
    let dir = tempfile::tempdir().unwrap();
    let (tables, _) = CheckedTables::create(&SledTables, dir.path(), Vec::new()).unwrap();
    tables.close().unwrap();
    for n in 0..30 {
        let (mut tables, _) = CheckedTables::open(&SledTables, dir.path()).unwrap();
        tables.commit([(key(n), Some(Bytes::from_static(b"value")))].into()).unwrap();
        tables.close().unwrap();
    }
}

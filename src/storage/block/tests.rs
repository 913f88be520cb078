use std::{path::Path, sync::Arc};

use proptest::prelude::*;

use super::{
    Block, BlockBuilder, BlockFacts, BlockName, MetaCursor,
    format::{DIRECTORY_ENTRY_BYTES, MAGIC_1, TRAILER_BYTES},
    record::put_meta,
};
use crate::{
    disk::{self, Disk, Open, sim::SimDisk},
    state::{Record, RecordMeta},
    storage::{error::StoreError, live_bytes::record_bytes},
    types::{LeaseId, MemberId, RecordId, Revision},
};

const NAME: BlockName = BlockName { member: MemberId(7), sequence: 3 };

fn record(main: i64, sub: u32, key: Vec<u8>, value: Vec<u8>) -> Arc<Record> {
    let meta = RecordMeta {
        id: RecordId { main: Revision(main), sub },
        key: key.into(),
        create_revision: Revision(main / 2),
        version: main % 17,
        lease: LeaseId(main % 3),
        tombstone: value.is_empty(),
    };
    Arc::new(Record { meta, value: value.into() })
}

fn write(records: &[Arc<Record>]) -> (SimDisk, Arc<Block>) {
    let disk = SimDisk::new(1);
    let mut builder = BlockBuilder::default();
    records.iter().for_each(|record| builder.push(record));
    let block = builder.write(&disk, Path::new(""), NAME).unwrap();
    (disk, block)
}

fn read_all(block: &Block, ids: &[RecordId]) -> Result<Vec<Arc<Record>>, StoreError> {
    let mut read = Vec::new();
    assert!(block.read(ids, &mut read)?, "a record is missing");
    Ok(read)
}

fn any_records() -> impl Strategy<Value = Vec<Arc<Record>>> {
    let bytes = |max| proptest::collection::vec(any::<u8>(), 0..max);
    let value = prop_oneof![4 => bytes(40), 1 => bytes(2_000), 1 => Just(vec![1; 40_000])];
    let parts = (1..1_000_000_000_i64, 0..3_u32, bytes(60), value);
    proptest::collection::vec(parts, 1..60).prop_map(|parts| {
        let mut main = 0;
        let step = |(step, sub, key, value)| {
            main += step;
            record(main, sub, key, value)
        };
        parts.into_iter().map(step).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn records_come_back_as_they_went(records in any_records(), step in 1..5_usize) {
        let (disk, written) = write(&records);
        let block = Block::open(&disk, Path::new(""), written.facts().clone()).unwrap();
        let metas: Vec<_> = block.sized_metas().unwrap().collect();
        let sized = |record: &Arc<Record>| {
            let meta = record.meta.clone();
            let bytes = record_bytes(meta.key.len(), record.value.len());
            (meta, bytes)
        };
        let expected: Vec<_> = records.iter().map(sized).collect();
        prop_assert_eq!(block.record_bytes(), expected.iter().map(|(_, bytes)| bytes).sum::<u64>());
        prop_assert!(block.record_bytes() <= block.facts().bytes, "more than the file");
        prop_assert_eq!(metas, expected);
        let some: Vec<_> = records.iter().step_by(step).cloned().collect();
        let ids: Vec<_> = some.iter().map(|record| record.meta.id).collect();
        prop_assert_eq!(read_all(&block, &ids).unwrap(), some);
        let mut each = Vec::new();
        block.each_record(|record| { each.push(Arc::new(record.clone())); Ok(()) }).unwrap();
        prop_assert_eq!(each, records);
    }

    #[test]
    fn no_bytes_make_the_record_decoder_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..100),
    ) {
        let mut cursor = MetaCursor::of_page(bytes.into());
        while cursor.record().is_some() {}
    }

    #[test]
    fn any_bytes_are_no_block_and_no_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        records in 0..10_u32,
    ) {
        let disk = SimDisk::new(1);
        let path = Path::new("any").join(NAME.to_string());
        disk.create_dir_all(Path::new("any")).unwrap();
        disk.open(&path, Open::CreateNew).unwrap().write_all_at(&bytes, 0).unwrap();
        let (first, last) = (RecordId::default(), RecordId::default());
        let facts = BlockFacts {
            name: NAME, bytes: bytes.len() as u64, crc: 0, records, first, last,
        };
        let opened = Block::open(&disk, Path::new("any"), facts);
        let refused = matches!(opened, Err(StoreError::Damaged { .. }));
        prop_assert!(refused);
    }
}

/// A block of one page as version 1 wrote it.
fn as_version_1(bytes: &[u8], records: &[Arc<Record>]) -> Vec<u8> {
    let trailer = &bytes[bytes.len() - TRAILER_BYTES..];
    let offset = u32::from_be_bytes(trailer[12..16].try_into().unwrap()) as usize;
    let mut footer = bytes[offset..offset + DIRECTORY_ENTRY_BYTES].to_vec();
    let mut before = Revision::ZERO;
    for record in records {
        put_meta(&mut footer, &record.meta, before);
        before = record.meta.id.main;
    }
    let mut trailer = trailer[..TRAILER_BYTES - 4].to_vec();
    trailer[16..20].copy_from_slice(&(footer.len() as u32).to_be_bytes());
    trailer[28..32].copy_from_slice(&crc32fast::hash(&footer).to_be_bytes());
    let crc = crc32fast::hash(&trailer);
    [MAGIC_1, &bytes[8..offset], &footer, &trailer, &crc.to_be_bytes()].concat()
}

#[test]
fn a_block_of_the_first_version_is_read_and_its_values_are_estimated() {
    let records: Vec<_> = (1..21).map(|n| record(n, 0, vec![b'k'; 5], vec![1; 90])).collect();
    let ids: Vec<_> = records.iter().map(|record| record.meta.id).collect();
    let (disk, written) = write(&records);
    let bytes = as_version_1(&disk::read(&disk, written.path()).unwrap(), &records);
    let dir = Path::new("old");
    disk.create_dir_all(dir).unwrap();
    let file = disk.open(&dir.join(NAME.to_string()), Open::CreateNew).unwrap();
    file.write_all_at(&bytes, 0).unwrap();
    let facts = BlockFacts { bytes: bytes.len() as u64, ..written.facts().clone() };
    let block = Block::open(&disk, dir, facts).unwrap();
    assert_eq!(read_all(&block, &ids).unwrap(), records);
    let estimated = block.record_bytes().abs_diff(written.record_bytes());
    assert!(estimated <= 2 * records.len() as u64, "{estimated} bytes off");
    let metas: Vec<_> = block.sized_metas().unwrap().map(|(meta, _)| meta.id).collect();
    assert_eq!(metas, ids);
}

#[test]
fn a_record_that_is_not_there_is_not_found() {
    let records: Vec<_> = (1..100).map(|n| record(n * 2, 1, vec![b'k'], vec![0; 900])).collect();
    let (_, block) = write(&records);
    for (main, sub) in [(1, 0), (2, 0), (2, 2), (101, 0), (198, 2), (500, 0)] {
        let id = RecordId { main: Revision(main), sub };
        assert!(!block.read(&[id], &mut Vec::new()).unwrap(), "{id}");
    }
}

#[test]
fn every_flipped_bit_is_noticed_with_file_and_offset() {
    let records: Vec<_> = (1..6).map(|n| record(n, 0, vec![b'k'; 5], vec![n as u8; 9])).collect();
    let ids: Vec<_> = records.iter().map(|record| record.meta.id).collect();
    let (disk, written) = write(&records);
    let path = Path::new(&NAME.to_string()).to_owned();
    let bytes = disk::read(&disk, &path).unwrap().len() as u64;
    for offset in 0..bytes {
        for bit in 0..8 {
            disk.flip_bit(&path, offset, bit).unwrap();
            let outcome = Block::open(&disk, Path::new(""), written.facts().clone())
                .and_then(|block| read_all(&block, &ids));
            let error = outcome.expect_err("a flipped bit is data");
            let StoreError::Damaged { path: named, offset: at, .. } = error else {
                panic!("bit {bit} at {offset}: {error}")
            };
            assert_eq!(named, path);
            assert!(at <= offset, "bit {bit} at {offset} is reported at {at}");
            disk.flip_bit(&path, offset, bit).unwrap();
        }
    }
    let block = Block::open(&disk, Path::new(""), written.facts().clone()).unwrap();
    assert_eq!(read_all(&block, &ids).unwrap(), records);
}

#[test]
fn a_block_under_another_name_is_refused() {
    let (disk, written) = write(&[record(1, 0, vec![1], vec![2])]);
    let other = BlockName { sequence: 4, ..NAME };
    disk.rename(Path::new(&NAME.to_string()), Path::new(&other.to_string())).unwrap();
    let facts = BlockFacts { name: other, ..written.facts().clone() };
    let error = Block::open(&disk, Path::new(""), facts).unwrap_err();
    assert!(error.to_string().contains("the trailer names another block"), "{error}");
}

#[test]
fn only_well_formed_names_are_block_names() {
    assert_eq!(BlockName::parse(&NAME.to_string()), Some(NAME));
    for wrong in ["", "../x.blk", "7-3.blk", "0000000000000007-00000003.blk.tmp", "next"] {
        assert_eq!(BlockName::parse(wrong), None);
    }
    assert_eq!(BlockName::parse("000000000000000A-00000003.blk"), None, "upper case");
}

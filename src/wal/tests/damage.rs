//! A damaged log returns all acknowledged changes, or is refused by file and offset. Only the final
//! frame may be cut.

use std::{
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use super::{
    DIR, MEMBER, Model, Op, TestRng, WalError, entry, open, options, position, segment_path, vote,
    write,
};
use crate::{
    disk::{self, Disk, Open, sim::SimDisk},
    types::MemberId,
    wal::{WalOptions, format::PAGE_BYTES, recovery::recover},
};

/// A log of three segments, and the states after each of its frames.
struct Recorded {
    disk: SimDisk,
    options: WalOptions,
    states: Vec<Model>,
}

async fn record() -> Recorded {
    let disk = SimDisk::new(1);
    let options = WalOptions { tail_bytes: usize::MAX, ..options(4) };
    let (log, _) = open(&disk, &options).unwrap();
    let ops = [
        Op::Vote(vote(1)),
        Op::Append(vec![entry(1, 0, 20), entry(1, 1, 0)]),
        Op::Append(vec![entry(1, 2, 30)]),
        Op::Append(vec![entry(2, 3, 4200)]),
        Op::TruncateAfter(Some(position(1, 2))),
        Op::Append(vec![entry(3, 3, 40), entry(3, 4, 5)]),
        Op::Purge(position(1, 0)),
        Op::Vote(vote(4)),
    ];
    let mut states = vec![Model::default()];
    for op in ops {
        let mut next = states.last().unwrap().clone();
        next.apply(&op);
        states.push(next);
        write(&log, op).await.unwrap();
    }
    log.close().await;
    let disk = disk.kill();
    let names = disk.list(Path::new(DIR)).unwrap();
    assert_eq!(names.iter().filter(|name| name.ends_with(".wal")).count(), 3, "{names:?}");
    Recorded { disk, options, states }
}

impl Recorded {
    /// Opens the log after `tamper`.
    fn after(&self, tamper: impl FnOnce(&SimDisk)) -> Result<Model, WalError> {
        let disk = self.disk.fork();
        tamper(&disk);
        recover(&disk, Path::new(DIR), &self.options).map(|found| Model::of_recovered(&found))
    }

    fn full(&self) -> &Model {
        self.states.last().unwrap()
    }

    fn without_final_frame(&self) -> &Model {
        &self.states[self.states.len() - 2]
    }

    fn segments(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let paths = (1..=3).map(segment_path);
        paths.map(|path| (path.clone(), disk::read(&self.disk, &path).unwrap())).collect()
    }
}

fn is_damage(error: &WalError, place: (&PathBuf, RangeInclusive<u64>)) -> bool {
    matches!(error, WalError::Damaged { file, offset, .. }
        if file == place.0 && place.1.contains(offset))
}

#[tokio::test]
async fn every_flipped_bit_is_harmless_or_refused_or_cuts_the_final_frame() {
    let recorded = record().await;
    let (mut harmless, mut refused, mut cut) = (0, 0, 0);
    for (path, bytes) in recorded.segments() {
        for (offset, byte) in bytes.iter().enumerate() {
            // All bits of written bytes and of some bytes around them; a sample of the padding.
            let near = offset.saturating_sub(8)..(offset + 8).min(bytes.len());
            let used = *byte != 0 || bytes[near].iter().any(|byte| *byte != 0);
            let long = offset % 97 != 0 && bytes[offset] == bytes[offset.saturating_sub(40)];
            let header = offset < 200;
            if !(header || used && !long || offset % 211 == 0) {
                continue;
            }
            for bit in 0..8 {
                let flip = |disk: &SimDisk| disk.flip_bit(&path, offset as u64, bit).unwrap();
                match recorded.after(flip) {
                    Ok(found) if found == *recorded.full() => harmless += 1,
                    Ok(found) if found == *recorded.without_final_frame() => cut += 1,
                    Ok(found) => panic!("{path:?} byte {offset} bit {bit}: {found:?}"),
                    Err(error) => {
                        let page = offset as u64 / PAGE_BYTES * PAGE_BYTES;
                        let place = (&path, page.saturating_sub(PAGE_BYTES)..=page);
                        assert!(is_damage(&error, place), "byte {offset} bit {bit}: {error}");
                        refused += 1;
                    }
                }
            }
        }
    }
    assert!(harmless > 0 && refused > 1000 && cut > 100, "{harmless} {refused} {cut}");
}

#[tokio::test]
async fn a_file_that_ends_early_is_refused_wherever_it_ends() {
    let recorded = record().await;
    for (path, bytes) in recorded.segments() {
        for len in (0..bytes.len()).filter(|len| len % 64 < 2 || len % 512 > 510) {
            let error = recorded.after(|disk| truncate(disk, &path, len)).unwrap_err();
            let WalError::Damaged { file, offset, .. } = &error else { panic!("{error}") };
            assert_eq!((file, *offset), (&path, len as u64), "{error}");
        }
    }
}

fn truncate(disk: &SimDisk, path: &Path, len: usize) {
    disk.open(path, Open::Write).unwrap().set_len(len as u64).unwrap();
}

/// As if the disk had never received the rest of a segment. In all segments but the last, recovery
/// detects it; in the last one it keeps the frames before.
#[tokio::test]
async fn every_prefix_holds_the_frames_before_its_end_or_is_refused() {
    let recorded = record().await;
    let segments = recorded.segments();
    let (last, _) = segments.last().unwrap();
    for (path, bytes) in &segments {
        for len in (PAGE_BYTES as usize..bytes.len()).filter(|len| len % 32 == 0) {
            let zeros = vec![0; bytes.len() - len];
            let cut = |disk: &SimDisk| {
                let file = disk.open(path, Open::Write).unwrap();
                file.write_all_at(&zeros, len as u64).unwrap();
            };
            match recorded.after(cut) {
                Ok(found) if path == last || bytes[len..].iter().all(|byte| *byte == 0) => {
                    assert!(recorded.states.contains(&found), "{path:?} up to {len}: {found:?}");
                }
                Ok(found) => panic!("{path:?} up to {len}: {found:?}"),
                Err(error) => {
                    let place = (path, 0..=len as u64 + PAGE_BYTES);
                    assert!(is_damage(&error, place), "{path:?} up to {len}: {error}");
                }
            }
        }
    }
}

#[tokio::test]
async fn bytes_of_garbage_never_make_up_entries() {
    let recorded = record().await;
    let segments = recorded.segments();
    let mut rng = TestRng(3);
    for _ in 0..3000 {
        let (path, bytes) = &segments[rng.below(segments.len() as u64) as usize];
        let offset = rng.below(bytes.len() as u64 - 1);
        let len = 1 + rng.below((bytes.len() as u64 - offset).min(5000));
        let garbage: Vec<u8> = (0..len).map(|_| rng.below(256) as u8).collect();
        let scribble = |disk: &SimDisk| {
            disk.open(path, Open::Write).unwrap().write_all_at(&garbage, offset).unwrap();
        };
        if let Ok(found) = recorded.after(scribble) {
            // Garbage over several frames up to the end of the last segment is a torn tail.
            assert!(recorded.states.contains(&found), "{path:?} at {offset}: {found:?}");
        }
    }
}

/// A misdirected write: all checksums hold.
#[tokio::test]
async fn a_frame_in_the_place_of_another_is_refused() {
    let recorded = record().await;
    let (path, bytes) = recorded.segments().swap_remove(2);
    let (first, second) = (PAGE_BYTES, 2 * PAGE_BYTES);
    let later = &bytes[second as usize..][..PAGE_BYTES as usize];
    let misplace = |disk: &SimDisk| {
        disk.open(&path, Open::Write).unwrap().write_all_at(later, first).unwrap();
    };
    let error = recorded.after(misplace).unwrap_err();
    assert!(is_damage(&error, (&path, first..=first)), "{error}");
}

#[tokio::test]
async fn a_missing_segment_is_refused_unless_it_was_purged() {
    let recorded = record().await;
    let remove = |sequence| move |disk: &SimDisk| disk.remove(&segment_path(sequence)).unwrap();
    let error = recorded.after(remove(1)).unwrap_err();
    assert!(error.to_string().contains("entries 1..3 are missing before it"), "{error}");
    let error = recorded.after(remove(2)).unwrap_err();
    assert!(error.to_string().contains("segment 0000000000000002 before it is missing"), "{error}");
}

#[tokio::test]
async fn a_segment_of_another_member_is_refused_by_name() {
    let recorded = record().await;
    let other = WalOptions { member: MemberId(8), ..recorded.options };
    let error = recover(&recorded.disk.fork(), Path::new(DIR), &other).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("{}: a segment of member {MEMBER}; this is member 8", segment_path(1).display())
    );
}

#[tokio::test]
async fn a_segment_in_another_place_is_refused_by_name() {
    let recorded = record().await;
    let error = recorded
        .after(|disk| disk.rename(&segment_path(1), &segment_path(4)).unwrap())
        .unwrap_err();
    assert!(error.to_string().contains("segment 0000000000000001 has this segment's name"));
}

/// An older copy of the same log: its segments have other salts.
#[tokio::test]
async fn a_segment_of_an_older_copy_is_refused() {
    let recorded = record().await;
    let disk = SimDisk::new(2);
    let options = WalOptions { salt_seed: 43, ..recorded.options.clone() };
    let (log, _) = open(&disk, &options).unwrap();
    for op in [1, 2, 3, 4].map(|index| Op::Append(vec![entry(1, index - 1, 4200)])) {
        write(&log, op).await.unwrap();
    }
    let stranger = disk::read(&disk, &segment_path(2)).unwrap();
    let error = recorded
        .after(|disk| {
            disk.open(&segment_path(2), Open::Write).unwrap().write_all_at(&stranger, 0).unwrap();
        })
        .unwrap_err();
    assert!(error.to_string().contains("it does not continue the segment before it"), "{error}");
}

#[tokio::test]
async fn a_newer_format_is_refused_by_its_number() {
    let recorded = record().await;
    let error = recorded
        .after(|disk| {
            let path = segment_path(1);
            let mut header = disk::read(disk, &path).unwrap()[..512].to_vec();
            header[8] = 9;
            let crc = crc32fast::hash(&header[..508]);
            header[508..].copy_from_slice(&crc.to_le_bytes());
            disk.open(&path, Open::Write).unwrap().write_all_at(&header, 0).unwrap();
        })
        .unwrap_err();
    assert!(error.to_string().contains("written in format 9; this program reads 1"), "{error}");
}

#[tokio::test]
async fn a_damaged_frame_read_back_from_disk_stops_the_member() {
    let disk = SimDisk::new(1);
    let (log, fault) = open(&disk, &options(64)).unwrap();
    for index in 0..20 {
        write(&log, Op::Append(vec![entry(1, index, 500)])).await.unwrap();
    }
    disk.flip_bit(&segment_path(1), PAGE_BYTES * 3 + 100, 0).unwrap();
    assert_eq!(log.read(0..2, 10_000).await.unwrap().len(), 2);
    let error = log.read(0..5, 10_000).await.unwrap_err();
    let expected = "wal/0000000000000001.wal at offset 12288: \
                    the frame's payload checksum does not match";
    assert_eq!(error.to_string(), expected);
    assert_eq!(*fault.stopped().await, *expected);
}

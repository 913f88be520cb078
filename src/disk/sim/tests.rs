use std::{io, path::Path};

use super::{Crash, DiskOp, HookAction, SimDisk};
use crate::disk::{self, Disk, File, Open};

fn synced_file(disk: &SimDisk, name: &str, bytes: &[u8]) -> std::sync::Arc<dyn File> {
    let file = disk.open(Path::new(name), Open::CreateNew).unwrap();
    file.write_all_at(bytes, 0).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir(Path::new("")).unwrap();
    file
}

fn read(disk: &SimDisk, name: &str) -> io::Result<Vec<u8>> {
    disk::read(disk, Path::new(name))
}

#[test]
fn a_crash_leaves_each_unsynced_sector_old_or_new() {
    let (mut mixed, mut whole) = (false, false);
    for seed in 0..200 {
        let disk = SimDisk::new(seed);
        let file = synced_file(&disk, "f", &[1; 2048]);
        file.write_all_at(&[2; 2048], 0).unwrap();
        let after = read(&disk.crash(Crash::Arbitrary), "f").unwrap();
        assert_eq!(after.len(), 2048);
        for sector in after.chunks(512) {
            assert!(sector.iter().all(|byte| *byte == sector[0]), "a sector is torn");
        }
        let new = after.chunks(512).filter(|sector| sector[0] == 2).count();
        mixed |= (1..4).contains(&new);
        whole |= new == 4;
    }
    assert!(mixed && whole);
}

#[test]
fn a_sector_that_was_written_twice_may_hold_either_version() {
    let mut seen = [false; 4];
    for seed in 0..200 {
        let disk = SimDisk::new(seed);
        let file = synced_file(&disk, "f", &[1; 512]);
        file.write_all_at(&[2; 512], 0).unwrap();
        file.write_all_at(&[3; 512], 0).unwrap();
        seen[usize::from(read(&disk.crash(Crash::Arbitrary), "f").unwrap()[0])] = true;
    }
    assert_eq!(seen, [false, true, true, true]);
}

#[test]
fn unsynced_growth_survives_in_part_and_lost_parts_are_zeros() {
    let mut lengths = std::collections::BTreeSet::new();
    for seed in 0..100 {
        let disk = SimDisk::new(seed);
        let file = synced_file(&disk, "f", &[7; 100]);
        file.write_all_at(&[8; 2000], 100).unwrap();
        let after = read(&disk.crash(Crash::Arbitrary), "f").unwrap();
        assert!((100..=2100).contains(&after.len()) && after[..100] == [7; 100]);
        assert!(after[100..].iter().all(|byte| [0, 8].contains(byte)));
        lengths.insert(after.len());
    }
    assert!(lengths.contains(&100) && lengths.contains(&2100) && lengths.len() > 2);
}

#[test]
fn a_name_is_durable_only_after_its_directory_is_synced() {
    let disk = SimDisk::new(1);
    synced_file(&disk, "a", b"a");
    disk.rename(Path::new("a"), Path::new("b")).unwrap();
    let file = disk.open(Path::new("c"), Open::CreateNew).unwrap();
    file.write_all_at(b"c", 0).unwrap();
    file.sync_data().unwrap();
    let disk = disk.crash(Crash::LoseAll);
    assert_eq!(disk.list(Path::new("")).unwrap(), ["a"]);
    disk.remove(Path::new("a")).unwrap();
    assert_eq!(disk.fork().crash(Crash::LoseAll).list(Path::new("")).unwrap(), ["a"]);
    disk.sync_dir(Path::new("")).unwrap();
    assert!(disk.crash(Crash::LoseAll).list(Path::new("")).unwrap().is_empty());
}

#[test]
fn removals_of_different_names_survive_in_any_order() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..100 {
        let disk = SimDisk::new(seed);
        synced_file(&disk, "a", b"a");
        synced_file(&disk, "b", b"b");
        disk.remove(Path::new("a")).unwrap();
        disk.remove(Path::new("b")).unwrap();
        seen.insert(disk.crash(Crash::Arbitrary).list(Path::new("")).unwrap().concat());
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["", "a", "ab", "b"]);
}

#[test]
fn a_killed_process_loses_its_mount_and_nothing_else() {
    let disk = SimDisk::new(1);
    let file = synced_file(&disk, "f", b"old");
    file.write_all_at(b"new", 0).unwrap();
    let next = disk.kill();
    assert!(file.write_all_at(b"bad", 0).is_err() && disk.list(Path::new("")).is_err());
    assert_eq!(read(&next, "f").unwrap(), b"new");
    assert_eq!(read(&next.crash(Crash::LoseAll), "f").unwrap(), b"old");
}

#[test]
fn after_a_failed_sync_the_cache_lies_until_the_crash() {
    let disk = SimDisk::new(1);
    let file = synced_file(&disk, "f", b"old");
    file.write_all_at(b"new", 0).unwrap();
    disk.set_hook(|op| match op {
        DiskOp::SyncData(_) => HookAction::Fail(io::ErrorKind::Other),
        _ => HookAction::Proceed,
    });
    assert!(file.sync_data().is_err());
    disk.remove_hook();
    file.sync_data().unwrap();
    assert_eq!(read(&disk, "f").unwrap(), b"new");
    assert_eq!(read(&disk.fork().crash(Crash::KeepAll), "f").unwrap(), b"old");
    file.write_all_at(b"new", 0).unwrap();
    file.sync_data().unwrap();
    assert_eq!(read(&disk.crash(Crash::LoseAll), "f").unwrap(), b"new");
}

#[test]
fn a_full_disk_stores_what_fits_and_recovers_with_space() {
    let disk = SimDisk::new(1);
    disk.set_budget_bytes(1000);
    let file = disk.open(Path::new("f"), Open::CreateNew).unwrap();
    let error = file.write_all_at(&[1; 1500], 0).unwrap_err();
    assert_eq!((error.kind(), file.len().unwrap()), (io::ErrorKind::StorageFull, 1000));
    file.write_all_at(&[2; 1000], 0).unwrap();
    assert_eq!(file.set_len(1001).unwrap_err().kind(), io::ErrorKind::StorageFull);
    disk.set_budget_bytes(1500);
    file.write_all_at(&[3; 500], 1000).unwrap();
    disk.remove(Path::new("f")).unwrap();
    assert_eq!(disk.used_bytes(), 0);
}

#[test]
fn the_same_seed_crashes_in_the_same_way() {
    let run = |seed| {
        let disk = SimDisk::new(seed);
        let file = synced_file(&disk, "f", &[0; 16 << 10]);
        file.write_all_at(&[1; 16 << 10], 0).unwrap();
        read(&disk.crash(Crash::Arbitrary), "f").unwrap()
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}

#[test]
fn the_power_can_fail_between_any_two_changes() {
    let disk = SimDisk::new(1);
    let file = synced_file(&disk, "f", b"old");
    disk.record();
    disk.power_off_after(1);
    file.write_all_at(b"new", 0).unwrap();
    assert!(file.sync_data().is_err() && read(&disk, "f").is_err());
    let write = DiskOp::Write { path: "f".into(), offset: 0, bytes: 3 };
    assert_eq!(disk.trace(), [write]);
    assert_eq!(read(&disk.crash(Crash::LoseAll), "f").unwrap(), b"old");
}

#[test]
fn a_directory_is_renamed_and_removed_with_all_in_it() {
    let disk = SimDisk::new(1);
    disk.create_dir_all(Path::new("/data/tables/1")).unwrap();
    disk::write_atomic(&disk, Path::new("/data/tables/1/f"), b"x").unwrap();
    disk.rename(Path::new("/data/tables/1"), Path::new("/data/tables/2")).unwrap();
    assert_eq!(read(&disk, "/data/tables/2/f").unwrap(), b"x");
    assert_eq!(disk.fork().crash(Crash::LoseAll).list(Path::new("/data/tables")).unwrap(), ["1"]);
    disk.remove_dir_all(Path::new("/data/tables")).unwrap();
    assert!(!disk.exists(Path::new("/data/tables")).unwrap());
    assert_eq!(disk.list(Path::new("/data/tables")).unwrap_err().kind(), io::ErrorKind::NotFound);
}

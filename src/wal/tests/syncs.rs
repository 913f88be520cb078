//! Each sync of the log is needed: without it, a crash loses something acknowledged or makes the log
//! refuse itself. With all of them, the same crashes are survived (`crashes.rs`).

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, atomic::AtomicBool, atomic::Ordering::Relaxed},
};

use bytes::Bytes;

use super::{Model, Op, crashes::crash_everywhere, entry, open, options, position, write};
use crate::disk::sim::{Crash, DiskOp, HookAction, SimDisk};

/// The sync calls of the log, classified by the operations before them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sync {
    Fill,
    Header,
    Name,
    Frame,
    OpenData,
    OpenName,
    Removal,
}

/// Follows the operations and classifies each sync.
#[derive(Debug, Default)]
struct Observer {
    /// How often each spare was synced.
    spares: HashMap<PathBuf, u32>,
    last: Option<DiskOp>,
}

impl Observer {
    fn classify(&mut self, op: &DiskOp, opening: bool) -> Option<Sync> {
        let last = self.last.replace(op.clone());
        match op {
            DiskOp::Create(path) => {
                self.spares.insert(path.clone(), 0);
                None
            }
            DiskOp::SyncData(path) if path.extension().is_some_and(|e| e == "tmp") => {
                let count = self.spares.entry(path.clone()).or_default();
                *count += 1;
                // A segment of these tests is filled in one step.
                Some(if *count == 1 { Sync::Fill } else { Sync::Header })
            }
            DiskOp::SyncData(_) if opening => Some(Sync::OpenData),
            DiskOp::SyncData(_) => Some(Sync::Frame),
            DiskOp::SyncDir(_) => Some(match last {
                Some(DiskOp::Rename { .. }) => Sync::Name,
                Some(DiskOp::Remove(_)) if !opening => Sync::Removal,
                _ => Sync::OpenName,
            }),
            _ => None,
        }
    }
}

fn ignore(disk: &SimDisk, sync: Sync, opening: Arc<AtomicBool>) {
    let observer = Mutex::new(Observer::default());
    disk.set_hook(move |op| {
        let seen = observer.lock().unwrap().classify(op, opening.load(Relaxed));
        if seen == Some(sync) { HookAction::Skip } else { HookAction::Proceed }
    });
}

async fn violation_without(sync: Sync) -> Result<usize, String> {
    crash_everywhere(|disk, opening| ignore(disk, sync, opening)).await
}

#[tokio::test]
async fn frame_sync_keeps_acknowledged_frames() {
    violation_without(Sync::Frame).await.unwrap_err();
}

#[tokio::test]
async fn header_sync_keeps_a_new_segment_readable() {
    violation_without(Sync::Header).await.unwrap_err();
}

#[tokio::test]
async fn name_sync_keeps_the_file_of_acknowledged_frames() {
    violation_without(Sync::Name).await.unwrap_err();
}

#[tokio::test]
async fn open_sync_keeps_reported_state() {
    violation_without(Sync::OpenData).await.unwrap_err();
}

#[tokio::test]
async fn open_name_sync_keeps_a_segment_that_was_being_made() {
    violation_without(Sync::OpenName).await.unwrap_err();
}

#[tokio::test]
async fn removal_sync_keeps_the_sequence_whole() {
    violation_without(Sync::Removal).await.unwrap_err();
}

/// The header's sync covers the zeros too; see the table in the module head for why there is one.
#[tokio::test]
async fn zero_fill_sync_is_for_speed_and_not_for_safety() {
    violation_without(Sync::Fill).await.unwrap();
}

/// A frame of two sectors loses the second and is cut. The next one has the same second sector. If
/// the cut was not durable, a crash in that write can put the old frame together again.
async fn a_cut_frame_comes_back(seed: u64, without_sync: bool) -> bool {
    let with = |term| {
        let data = Bytes::from(vec![9; 700]);
        Op::Append(vec![super::LogEntry { data, ..entry(term, 1, 0) }])
    };
    let disk = SimDisk::new(seed);
    let (log, _) = open(&disk, &options(8)).unwrap();
    write(&log, Op::Append(vec![entry(1, 0, 10)])).await.unwrap();
    // The power fails between the write and its sync.
    disk.power_off_after(1);
    write(&log, with(1)).await.unwrap_err();
    let disk = disk.crash(Crash::Arbitrary);

    let opening = Arc::new(AtomicBool::new(true));
    if without_sync {
        ignore(&disk, Sync::OpenData, opening.clone());
    }
    let (log, _) = open(&disk, &options(8)).unwrap();
    opening.store(false, Relaxed);
    if log.last() != Some(position(1, 0)) {
        return false;
    }
    disk.remove_hook();
    disk.power_off_after(1);
    write(&log, with(2)).await.unwrap_err();
    let (log, _) = open(&disk.crash(Crash::Arbitrary), &options(8)).unwrap();
    log.last() == Some(position(1, 1))
}

#[tokio::test]
async fn open_sync_keeps_a_cut_frame_away() {
    let mut came_back = 0;
    for seed in 0..500 {
        assert!(!a_cut_frame_comes_back(seed, false).await, "seed {seed}");
        came_back += u32::from(a_cut_frame_comes_back(seed, true).await);
    }
    assert!(came_back > 0, "no crash shows what the sync is for");
}

/// A failed sync leaves pages that read well, count as clean and are not on the disk. A restarted
/// process cannot detect that, but the state that it reports must be durable all the same.
#[tokio::test]
async fn open_writes_the_final_frame_again_because_a_failed_sync_made_it_look_clean() {
    let disk = SimDisk::new(1);
    let (log, fault) = open(&disk, &options(8)).unwrap();
    write(&log, Op::Append(vec![entry(1, 0, 10)])).await.unwrap();
    disk.set_hook(|op| match op {
        DiskOp::SyncData(_) => HookAction::Fail(std::io::ErrorKind::Other),
        _ => HookAction::Proceed,
    });
    let error = write(&log, Op::Append(vec![entry(1, 1, 10)])).await.unwrap_err();
    assert!(error.to_string().contains("0000000000000001.wal at offset 8192: cannot sync"));
    assert_eq!(*fault.stopped().await, *error.to_string());
    disk.remove_hook();
    // The disk works again, but the log never retries a failed sync: it stays stopped.
    let writes = disk.changes();
    write(&log, Op::Vote(super::vote(3))).await.unwrap_err();
    assert_eq!(disk.changes(), writes);

    let disk = disk.kill();
    let (log, _) = open(&disk, &options(8)).unwrap();
    let reported = Model::of(&log).await.unwrap();
    assert_eq!(reported.last, Some(position(1, 1)));
    let (log, _) = open(&disk.crash(Crash::LoseAll), &options(8)).unwrap();
    assert_eq!(Model::of(&log).await.unwrap(), reported);
}

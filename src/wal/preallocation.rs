//! Background work on segment files: fills the next segment with zeros ahead of need, and removes the
//! segments that a purge left behind. Runs on a lane of its own, off the write path.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::watch;

use super::{
    error::WalError,
    segment::{PreallocatedFile, Segment},
};
use crate::{disk::Disk, fault::Fault};

/// Whether the disk has room for the segment after the active one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskSpace {
    /// No preallocation has failed since the last success.
    Enough,
    /// The disk had no room for the next segment. The active one still takes requests, but the member
    /// should reject proposals, so that commands that free space still fit.
    Low,
}

/// A task for the segment worker. Bound on its queue: one task for each segment change, purge and call
/// of `Log::retry_space`.
#[derive(Debug)]
pub enum SegmentTask {
    /// Preallocate the next segment, unless that is done.
    Fill,
    /// Remove these segments, oldest first.
    Remove(Vec<Arc<Segment>>),
}

/// At most one preallocated file, shared by the segment worker and the writer.
#[derive(Debug)]
pub struct SegmentPool {
    pub disk: Arc<dyn Disk>,
    pub dir: PathBuf,
    segment_bytes: u64,
    spare: Mutex<Option<PreallocatedFile>>,
    made: std::sync::atomic::AtomicU64,
    space: watch::Sender<DiskSpace>,
}

impl SegmentPool {
    pub fn new(disk: Arc<dyn Disk>, dir: &Path, segment_bytes: u64) -> SegmentPool {
        SegmentPool {
            disk,
            dir: dir.into(),
            segment_bytes,
            spare: Mutex::new(None),
            made: Default::default(),
            space: watch::Sender::new(DiskSpace::Enough),
        }
    }

    pub fn space(&self) -> watch::Receiver<DiskSpace> {
        self.space.subscribe()
    }

    /// A file for a segment of at least `bytes`: the preallocated one, or one filled now.
    pub fn take(&self, bytes: u64) -> Result<PreallocatedFile, WalError> {
        if bytes <= self.segment_bytes
            && let Some(spare) = self.slot().take()
        {
            return Ok(spare);
        }
        self.prepare(bytes.max(self.segment_bytes))
    }

    fn prepare(&self, bytes: u64) -> Result<PreallocatedFile, WalError> {
        let number = self.made.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        PreallocatedFile::prepare(&*self.disk, &self.dir, number, bytes)
    }

    /// Preallocates a file unless there is one.
    fn fill(&self) -> Result<(), WalError> {
        if self.slot().is_some() {
            return Ok(());
        }
        let space = match self.prepare(self.segment_bytes) {
            Ok(spare) => {
                *self.slot() = Some(spare);
                DiskSpace::Enough
            }
            Err(error @ WalError::Full { .. }) => {
                tracing::warn!(%error, "segment preallocation failed");
                DiskSpace::Low
            }
            Err(error) => return Err(error),
        };
        self.space.send_if_modified(|now| std::mem::replace(now, space) != space);
        Ok(())
    }

    /// Removes the oldest first, each durably before the next, so that a crash never leaves a gap.
    fn remove(&self, segments: &[Arc<Segment>]) -> Result<(), WalError> {
        for segment in segments {
            self.disk
                .remove(&segment.path)
                .and_then(|()| self.disk.sync_dir(&self.dir))
                .map_err(WalError::io(&segment.path, 0, "remove"))?;
        }
        Ok(())
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Option<PreallocatedFile>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The lane's handler.
pub fn segment_worker(
    pool: Arc<SegmentPool>,
    fault: Fault,
) -> impl FnMut(&mut Vec<SegmentTask>) + Send {
    move |tasks| {
        for task in tasks.drain(..) {
            let done = match task {
                SegmentTask::Fill => pool.fill(),
                // The freed space may suffice for the next segment.
                SegmentTask::Remove(segments) => pool.remove(&segments).and_then(|()| pool.fill()),
            };
            if let Err(error) = done {
                fault.stop(error);
            }
        }
    }
}

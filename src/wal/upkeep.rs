//! The lane that looks after files nobody waits for: fills the next segment with zeros ahead of
//! need, and removes the segments that a purge left behind.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::watch;

use super::{
    error::WalError,
    segment::{Segment, Spare},
};
use crate::{disk::Disk, fault::Fault};

/// Whether the log can go on when its active segment is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    /// As far as anybody knows.
    Enough,
    /// The disk refused the next segment. What is asked for now still fits in the active one, but
    /// proposals should be refused while there is room to go on without them.
    Low,
}

/// The queue holds at most one of each for a segment change, a purge, or a call of
/// `Log::retry_space`.
#[derive(Debug)]
pub(super) enum Chore {
    /// Have a spare segment.
    Fill,
    /// These, oldest first.
    Remove(Vec<Arc<Segment>>),
}

/// What the upkeep and the writer share.
#[derive(Debug)]
pub(super) struct Spares {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) dir: PathBuf,
    segment_bytes: u64,
    spare: Mutex<Option<Spare>>,
    made: std::sync::atomic::AtomicU64,
    space: watch::Sender<Space>,
}

impl Spares {
    pub(super) fn new(disk: Arc<dyn Disk>, dir: &Path, segment_bytes: u64) -> Spares {
        Spares {
            disk,
            dir: dir.into(),
            segment_bytes,
            spare: Mutex::new(None),
            made: Default::default(),
            space: watch::Sender::new(Space::Enough),
        }
    }

    pub(super) fn space(&self) -> watch::Receiver<Space> {
        self.space.subscribe()
    }

    /// A file for a segment of at least `bytes`: the one filled ahead, or one filled now.
    pub(super) fn take(&self, bytes: u64) -> Result<Spare, WalError> {
        if bytes <= self.segment_bytes
            && let Some(spare) = self.slot().take()
        {
            return Ok(spare);
        }
        self.prepare(bytes.max(self.segment_bytes))
    }

    fn prepare(&self, bytes: u64) -> Result<Spare, WalError> {
        let number = self.made.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Spare::prepare(&*self.disk, &self.dir, number, bytes)
    }

    /// Fills a spare unless there is one.
    fn fill(&self) -> Result<(), WalError> {
        if self.slot().is_some() {
            return Ok(());
        }
        let space = match self.prepare(self.segment_bytes) {
            Ok(spare) => {
                *self.slot() = Some(spare);
                Space::Enough
            }
            Err(error @ WalError::Full { .. }) => {
                tracing::warn!(%error, "the next segment of the log cannot be made");
                Space::Low
            }
            Err(error) => return Err(error),
        };
        self.space.send_if_modified(|now| std::mem::replace(now, space) != space);
        Ok(())
    }

    /// One by one, oldest first, each durable before the next: a crash never leaves a gap.
    fn remove(&self, segments: &[Arc<Segment>]) -> Result<(), WalError> {
        for segment in segments {
            self.disk
                .remove(&segment.path)
                .and_then(|()| self.disk.sync_dir(&self.dir))
                .map_err(WalError::io(&segment.path, 0, "remove"))?;
        }
        Ok(())
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Option<Spare>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The lane's handler.
pub(super) fn upkeep(spares: Arc<Spares>, fault: Fault) -> impl FnMut(&mut Vec<Chore>) + Send {
    move |chores| {
        for chore in chores.drain(..) {
            let done = match chore {
                Chore::Fill => spares.fill(),
                // Space that comes free may be what the next segment lacks.
                Chore::Remove(segments) => spares.remove(&segments).and_then(|()| spares.fill()),
            };
            if let Err(error) = done {
                fault.stop(error);
            }
        }
    }
}

//! The data directory: who may use it, and what is in it.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::identity::{Identity, IdentityError, Stage};
use crate::disk::{Disk, FileLock};

const IDENTITY: &str = "identity";
const ARCHIVE: &str = "archive";
const OLD_ARCHIVE: &str = "archive.old";
/// What a member leaves, besides its identity.
const CONTENTS: [&str; 5] = ["wal", "snapshots", "incoming", "tables", "blocks"];

/// A data directory, locked by this process for as long as this lives.
#[derive(Debug)]
pub struct DataDir {
    disk: Arc<dyn Disk>,
    root: PathBuf,
    _lock: Box<dyn FileLock>,
}

/// Why a data directory was refused.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    #[error("{dir}: {source}")]
    Io { dir: String, source: io::Error },
    #[error("{0}: in use by another kvd; stop it, or choose another --data-dir")]
    InUse(String),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(
        "{dir}: has {found} but no identity: not a whole data directory; restore `identity`, or \
         move the directory away to start empty"
    )]
    NoIdentity { dir: String, found: &'static str },
    #[error(
        "{dir}: is member {member} of a cluster but its log is gone; it must not vote again \
         under this id. Move the directory away to start empty"
    )]
    NoLog { dir: String, member: crate::types::MemberId },
    #[error("{dir}: belongs to ordinal {found}, this is ordinal {expected}")]
    OtherOrdinal { dir: String, found: crate::types::Ordinal, expected: crate::types::Ordinal },
    #[error("{dir}: belongs to {found:?}, this is {expected:?}")]
    OtherHome { dir: String, found: String, expected: String },
}

impl DataDir {
    /// Creates the directory if it is missing, and locks it.
    pub fn open(disk: Arc<dyn Disk>, root: &Path) -> Result<DataDir, DataDirError> {
        let dir = root.display().to_string();
        let failed = |source| DataDirError::Io { dir: dir.clone(), source };
        disk.create_dir_all(root).map_err(failed)?;
        let lock = disk.lock(&root.join("lock")).map_err(|e| match e.kind() {
            io::ErrorKind::WouldBlock => DataDirError::InUse(dir.clone()),
            _ => failed(e),
        })?;
        let dir = DataDir { disk, root: root.to_owned(), _lock: lock };
        dir.free_spares().map_err(failed)?;
        Ok(dir)
    }

    /// Removes segments that were only being filled ahead: on a full disk they are the room that the
    /// start needs.
    fn free_spares(&self) -> io::Result<()> {
        let names = match self.disk.list(&self.wal()) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            names => names?,
        };
        for name in names.iter().filter(|name| name.ends_with(".tmp")) {
            self.disk.remove(&self.wal().join(name))?;
        }
        Ok(())
    }

    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn wal(&self) -> PathBuf {
        self.root.join("wal")
    }

    /// The identity, or `None` for a pristine directory: no identity, no log, no snapshots.
    /// (A new volume's `lost+found` is no matter.)
    pub fn identity(&self) -> Result<Option<Identity>, DataDirError> {
        let identity = Identity::load(self.disk.as_ref(), &self.identity_path())?;
        let dir = || self.root.display().to_string();
        match &identity {
            None => {
                for found in ["wal", "snapshots", "blocks", "tables"] {
                    if self.holds(found)? {
                        return Err(DataDirError::NoIdentity { dir: dir(), found });
                    }
                }
            }
            Some(identity) if identity.stage == Stage::Member && !self.holds("wal")? => {
                return Err(DataDirError::NoLog { dir: dir(), member: identity.member });
            }
            Some(_) => {}
        }
        Ok(identity)
    }

    /// Sets aside all that a dead member left, and is pristine then. What was set aside before goes
    /// first: one life is kept, for people to look at. The identity moves last, so that after a crash
    /// in between the next start goes on.
    pub fn archive(&self) -> Result<(), DataDirError> {
        let failed = |source| DataDirError::Io { dir: self.root.display().to_string(), source };
        self.move_to_archive().map_err(failed)
    }

    fn move_to_archive(&self) -> io::Result<()> {
        let (archive, old) = (self.root.join(ARCHIVE), self.root.join(OLD_ARCHIVE));
        self.remove_dir(&old)?;
        if self.disk.exists(&archive.join(IDENTITY))? {
            self.disk.rename(&archive, &old)?;
            self.disk.sync_dir(&self.root)?;
            self.remove_dir(&old)?;
        }
        self.disk.create_dir_all(&archive)?;
        for name in CONTENTS {
            if self.disk.exists(&self.root.join(name))? {
                self.disk.rename(&self.root.join(name), &archive.join(name))?;
            }
        }
        self.disk.sync_dir(&archive)?;
        self.disk.rename(&self.identity_path(), &archive.join(IDENTITY))?;
        self.disk.sync_dir(&archive)?;
        self.disk.sync_dir(&self.root)
    }

    /// Whose data was set aside here, if anybody's.
    pub fn set_aside(&self) -> Result<Option<Identity>, DataDirError> {
        Ok(Identity::load(self.disk.as_ref(), &self.root.join(ARCHIVE).join(IDENTITY))?)
    }

    /// Gives up what was set aside: where space is short, the living need it. Whether there was any.
    pub fn drop_archive(&self) -> Result<bool, DataDirError> {
        let failed = |source| DataDirError::Io { dir: self.root.display().to_string(), source };
        let mut dropped = false;
        for name in [ARCHIVE, OLD_ARCHIVE] {
            let path = self.root.join(name);
            dropped |= self.disk.exists(&path).map_err(failed)?;
            self.remove_dir(&path).map_err(failed)?;
        }
        Ok(dropped)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        if self.disk.exists(path)? { self.disk.remove_dir_all(path) } else { Ok(()) }
    }

    /// Forgets an identity under which nothing was begun.
    pub fn forget_identity(&self) -> Result<(), DataDirError> {
        let failed = |source| DataDirError::Io { dir: self.root.display().to_string(), source };
        match self.disk.remove(&self.identity_path()) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            removed => removed.map_err(failed)?,
        }
        self.disk.sync_dir(&self.root).map_err(failed)
    }

    pub fn store_identity(&self, identity: &Identity) -> Result<(), DataDirError> {
        Ok(identity.store(self.disk.as_ref(), &self.identity_path())?)
    }

    /// Whether this member has begun a log.
    pub fn has_log(&self) -> Result<bool, DataDirError> {
        self.holds("wal")
    }

    fn identity_path(&self) -> PathBuf {
        self.root.join(IDENTITY)
    }

    /// Whether there is anything in it that was finished: a segment that is only being filled ahead
    /// is no log.
    fn holds(&self, name: &str) -> Result<bool, DataDirError> {
        match self.disk.list(&self.root.join(name)) {
            Ok(names) => Ok(names.iter().any(|name| !name.ends_with(".tmp"))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => {
                Err(DataDirError::Io { dir: self.root.join(name).display().to_string(), source })
            }
        }
    }
}

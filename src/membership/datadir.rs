//! The data directory: its lock, its layout, and the archive of a removed member's data.

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
/// A member's data, besides its identity.
const CONTENTS: [&str; 5] = ["wal", "snapshots", "incoming", "tables", "blocks"];

/// A data directory, locked by this process until dropped.
#[derive(Debug)]
pub struct DataDir {
    disk: Arc<dyn Disk>,
    root: PathBuf,
    _lock: Box<dyn FileLock>,
}

/// A data directory was refused.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    #[error("{dir}: {source}")]
    Io { dir: String, source: io::Error },
    #[error("{0}: in use by another kvd; stop it, or choose another --data-dir")]
    InUse(String),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(
        "{dir}: has {found} but no identity, so it is incomplete; restore `identity`, or move the \
         directory away to start empty"
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
        dir.remove_preallocated().map_err(failed)?;
        Ok(dir)
    }

    /// Removes preallocated segments: on a full disk the start needs their space.
    fn remove_preallocated(&self) -> io::Result<()> {
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

    /// The identity, or `None` for a pristine directory: no identity, no log, no snapshots. Other
    /// files, such as a new volume's `lost+found`, are ignored.
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

    /// Archives a removed member's data; the directory is pristine then. An earlier archive is deleted
    /// first: the data of one incarnation is kept for inspection. The identity moves last, so that the
    /// next start continues after a crash in between.
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

    /// The identity in the archive.
    pub fn archived_identity(&self) -> Result<Option<Identity>, DataDirError> {
        Ok(Identity::load(self.disk.as_ref(), &self.root.join(ARCHIVE).join(IDENTITY))?)
    }

    /// Deletes the archive, to free space. Returns whether there was one.
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

    /// Deletes an identity without a log.
    pub fn discard_identity(&self) -> Result<(), DataDirError> {
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

    /// Whether this member has a log.
    pub fn has_log(&self) -> Result<bool, DataDirError> {
        self.holds("wal")
    }

    fn identity_path(&self) -> PathBuf {
        self.root.join(IDENTITY)
    }

    /// Whether the subdirectory has a finished file. A preallocated segment is not one.
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

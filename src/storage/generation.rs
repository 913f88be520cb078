//! Which directory holds the tables.
//!
//! ```text
//! tables/CURRENT        the number of the generation in use; replaced atomically
//! tables/OPENING        there while a generation is opened and not verified yet
//! tables/00000007/      a generation
//! tables/00000006.bad   the last one that was set aside
//! ```
//!
//! A generation is built beside the current one, and in use only once `CURRENT` names it: so a crash
//! in the middle leaves a directory that the next start removes. `OPENING` found at start means that
//! opening killed the process (or a power failure came in between): the generation is not tried
//! again.

use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::{
    error::StoreError,
    layout::Layout,
    tables::{CheckedTables, TablesEngine},
};
use crate::disk::Open;

/// The directories of the tables.
#[derive(Debug, Clone, Copy)]
pub(super) struct Generations<'a> {
    pub(super) layout: &'a Layout,
    pub(super) engine: &'a dyn TablesEngine,
}

/// The content of tables: every entry, in order of keys.
pub(super) type Entries = Vec<(Bytes, Bytes)>;

/// What `CURRENT` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Current {
    Absent,
    Number(u32),
    /// It names no generation that is there.
    Wrong,
}

impl Generations<'_> {
    fn path(&self, name: &str) -> PathBuf {
        self.layout.tables().join(name)
    }

    pub(super) fn dir(&self, number: u32) -> PathBuf {
        self.path(&format!("{number:08}"))
    }

    pub(super) fn current(&self) -> Result<Current, StoreError> {
        let path = self.path("CURRENT");
        if !self.layout.exists(&path)? {
            return Ok(Current::Absent);
        }
        let text = self.layout.read(&path)?;
        let number = str::from_utf8(&text).ok().and_then(|text| text.trim_end().parse().ok());
        match number {
            Some(number) if self.layout.exists(&self.dir(number))? => Ok(Current::Number(number)),
            _ => Ok(Current::Wrong),
        }
    }

    pub(super) fn is_opening(&self) -> Result<bool, StoreError> {
        self.layout.exists(&self.path("OPENING"))
    }

    pub(super) fn mark_opening(&self) -> Result<(), StoreError> {
        let path = self.path("OPENING");
        if !self.is_opening()? {
            let created = self.layout.disk.open(&path, Open::CreateNew);
            created.map_err(StoreError::io("create", &path))?;
            // Only the name matters, so the empty file itself needs no sync.
            self.layout.sync_dir(&self.layout.tables())?;
        }
        Ok(())
    }

    pub(super) fn unmark_opening(&self) -> Result<(), StoreError> {
        if self.is_opening()? {
            self.layout.remove(&self.path("OPENING"))?;
            self.layout.sync_dir(&self.layout.tables())?;
        }
        Ok(())
    }

    pub(super) fn open(&self, number: u32) -> Result<(CheckedTables, Entries), StoreError> {
        CheckedTables::open(self.engine, &self.dir(number))
    }

    /// Builds a generation with this content, verifies it and makes it the current one.
    pub(super) fn create(
        &self,
        content: Entries,
    ) -> Result<(u32, CheckedTables, Entries), StoreError> {
        let number = self.numbers()?.last().map_or(1, |last| last + 1);
        let dir = self.dir(number);
        // Only an engine that is not on this disk can still know the name.
        self.engine.removed(&dir);
        self.layout.disk.create_dir_all(&dir).map_err(StoreError::io("create", &dir))?;
        let (tables, entries) = CheckedTables::create(self.engine, &dir, content)?;
        let current = format!("{number:08}\n");
        self.layout.write_atomic(&self.path("CURRENT"), current.as_bytes())?;
        Ok((number, tables, entries))
    }

    /// All numbers that are or were in use, ascending.
    fn numbers(&self) -> Result<Vec<u32>, StoreError> {
        let names = self.layout.list(&self.layout.tables())?;
        let number = |name: &String| name.trim_end_matches(".bad").parse().ok();
        let mut numbers: Vec<u32> = names.iter().filter_map(number).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Keeps an unusable generation for who wants to know why; only the last one.
    pub(super) fn set_aside(&self, number: u32) -> Result<(), StoreError> {
        let dir = self.dir(number);
        if self.layout.exists(&dir)? {
            self.remove(|name| name.ends_with(".bad"))?;
            self.layout.rename(&dir, &dir.with_extension("bad"))?;
            self.engine.removed(&dir);
        }
        Ok(())
    }

    /// Removes every generation but this one and the one that was set aside.
    pub(super) fn sweep(&self, current: u32) -> Result<(), StoreError> {
        let current = format!("{current:08}");
        self.remove(|name| name != current && name.parse::<u32>().is_ok())
    }

    fn remove(&self, unwanted: impl Fn(&str) -> bool) -> Result<(), StoreError> {
        for name in self.layout.list(&self.layout.tables())?.iter().filter(|name| unwanted(name)) {
            let dir: &Path = &self.path(name);
            self.layout.remove_dir(dir)?;
            self.engine.removed(dir);
        }
        Ok(())
    }
}

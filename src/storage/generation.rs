//! The directories of the tables.
//!
//! ```text
//! tables/CURRENT        the number of the generation in use; replaced atomically
//! tables/OPENING        exists while a generation is being opened and verified
//! tables/00000007/      a generation
//! tables/00000006.bad   the last generation that was set aside
//! ```
//!
//! A new generation is built beside the current one, and used only after `CURRENT` names it: a crash
//! in between leaves a directory that the next start removes. If `OPENING` exists at start, opening
//! killed the process (or the power failed meanwhile), and that generation is not opened again.

use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::{
    error::StoreError,
    layout::Layout,
    table_contents::TableContents,
    tables::{CheckedTables, TablesEngine},
};
use crate::disk::Open;

/// The directories of the tables.
#[derive(Debug, Clone, Copy)]
pub struct Generations<'a> {
    pub layout: &'a Layout,
    pub engine: &'a dyn TablesEngine,
}

/// All entries of the tables, in key order.
pub type Entries = Vec<(Bytes, Bytes)>;

/// The content of `CURRENT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CurrentGeneration {
    Absent,
    Number(u32),
    /// It names no existing generation.
    Wrong,
}

impl Generations<'_> {
    fn path(&self, name: &str) -> PathBuf {
        self.layout.tables().join(name)
    }

    pub fn dir(&self, number: u32) -> PathBuf {
        self.path(&format!("{number:08}"))
    }

    pub fn current(&self) -> Result<CurrentGeneration, StoreError> {
        let path = self.path("CURRENT");
        if !self.layout.exists(&path)? {
            return Ok(CurrentGeneration::Absent);
        }
        let text = self.layout.read(&path)?;
        let number = str::from_utf8(&text).ok().and_then(|text| text.trim_end().parse().ok());
        match number {
            Some(number) if self.layout.exists(&self.dir(number))? => {
                Ok(CurrentGeneration::Number(number))
            }
            _ => Ok(CurrentGeneration::Wrong),
        }
    }

    pub fn is_opening(&self) -> Result<bool, StoreError> {
        self.layout.exists(&self.path("OPENING"))
    }

    pub fn mark_opening(&self) -> Result<(), StoreError> {
        let path = self.path("OPENING");
        if !self.is_opening()? {
            let created = self.layout.disk.open(&path, Open::CreateNew);
            created.map_err(StoreError::io("create", &path))?;
            // Only the name matters, so the empty file needs no sync.
            self.layout.sync_dir(&self.layout.tables())?;
        }
        Ok(())
    }

    pub fn unmark_opening(&self) -> Result<(), StoreError> {
        if self.is_opening()? {
            self.layout.remove(&self.path("OPENING"))?;
            self.layout.sync_dir(&self.layout.tables())?;
        }
        Ok(())
    }

    pub fn open(&self, number: u32) -> Result<(CheckedTables, Entries), StoreError> {
        CheckedTables::open(self.engine, &self.dir(number))
    }

    /// Decodes the entries of a generation.
    pub fn decode(&self, number: u32, entries: Entries) -> Result<TableContents, StoreError> {
        TableContents::decode(entries).ok_or_else(|| StoreError::Tables {
            path: self.dir(number),
            problem: "invalid entries".into(),
        })
    }

    /// Builds a generation with this content, verifies it and makes it the current one.
    pub fn create(&self, content: Entries) -> Result<(u32, CheckedTables, Entries), StoreError> {
        let number = self.numbers()?.last().map_or(1, |last| last + 1);
        let dir = self.dir(number);
        // An engine that is not on this disk may still know the name.
        self.engine.removed(&dir);
        self.layout.disk.create_dir_all(&dir).map_err(StoreError::io("create", &dir))?;
        let (tables, entries) = CheckedTables::create(self.engine, &dir, content)?;
        let current = format!("{number:08}\n");
        self.layout.write_atomic(&self.path("CURRENT"), current.as_bytes())?;
        Ok((number, tables, entries))
    }

    /// All existing numbers, including set-aside generations, ascending.
    fn numbers(&self) -> Result<Vec<u32>, StoreError> {
        let names = self.layout.list(&self.layout.tables())?;
        let number = |name: &String| name.trim_end_matches(".bad").parse().ok();
        let mut numbers: Vec<u32> = names.iter().filter_map(number).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Keeps an unusable generation for inspection; only the last one.
    pub fn set_aside(&self, number: u32) -> Result<(), StoreError> {
        let dir = self.dir(number);
        if self.layout.exists(&dir)? {
            self.remove(|name| name.ends_with(".bad"))?;
            self.layout.rename(&dir, &dir.with_extension("bad"))?;
            self.engine.removed(&dir);
        }
        Ok(())
    }

    /// Removes every generation except the current and the set-aside one.
    pub fn sweep(&self, current: u32) -> Result<(), StoreError> {
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

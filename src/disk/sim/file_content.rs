//! The content of one file: the bytes that a reader sees, and the bytes to which each sector reverts in
//! a power failure.

use std::{collections::BTreeMap, io};

use super::{crash::Crash, rng::SimRng};

/// The unit of atomic writes.
pub const SECTOR_BYTES: usize = 512;

/// A file's bytes in the page cache, and the differences to the platter.
#[derive(Debug, Clone, Default)]
pub struct FileContent {
    cached: Vec<u8>,
    durable_len: usize,
    /// Sectors that differ, or may differ, from the platter.
    unsynced: BTreeMap<usize, Unsynced>,
}

#[derive(Debug, Clone)]
struct Unsynced {
    /// Content on the platter; `None`: zeros.
    platter: Option<Box<[u8; SECTOR_BYTES]>>,
    /// A sync failed: the cache marks the sector as clean, so no later sync writes it.
    forgotten: bool,
}

impl FileContent {
    pub fn len(&self) -> usize {
        self.cached.len()
    }

    pub fn read(&self, buf: &mut [u8], offset: usize) -> io::Result<()> {
        let end = offset.saturating_add(buf.len());
        let Some(bytes) = self.cached.get(offset..end) else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        buf.copy_from_slice(bytes);
        Ok(())
    }

    pub fn write(&mut self, buf: &[u8], offset: usize, rng: &mut SimRng) {
        let end = offset + buf.len();
        self.touch(offset, end, rng);
        if self.cached.len() < end {
            self.cached.resize(end, 0);
        }
        self.cached[offset..end].copy_from_slice(buf);
    }

    pub fn set_len(&mut self, len: usize, rng: &mut SimRng) {
        if len < self.cached.len() {
            self.touch(len, self.cached.len(), rng);
        }
        self.cached.resize(len, 0);
    }

    pub fn flip_bit(&mut self, offset: usize, bit: u8) {
        self.cached[offset] ^= 1 << bit;
    }

    pub fn sync(&mut self) {
        self.unsynced.retain(|_, sector| sector.forgotten);
        self.durable_len = self.cached.len();
    }

    /// As on Linux, the dirty pages stay readable, are marked clean, and never reach the platter.
    pub fn fail_sync(&mut self) {
        for sector in self.unsynced.values_mut() {
            sector.forgotten = true;
        }
    }

    pub fn crash(&mut self, how: Crash, rng: &mut SimRng) {
        let len = self.surviving_len(how, rng);
        let longest = self.cached.len().max(self.durable_len);
        self.cached.resize(longest, 0);
        for (sector, Unsynced { platter, forgotten }) in std::mem::take(&mut self.unsynced) {
            let survives = how.survives(rng);
            if forgotten || !survives {
                let start = sector * SECTOR_BYTES;
                let end = (start + SECTOR_BYTES).min(longest);
                let old = platter.unwrap_or_else(|| Box::new([0; SECTOR_BYTES]));
                self.cached[start..end].copy_from_slice(&old[..end - start]);
            }
        }
        self.cached.truncate(len);
        self.durable_len = len;
    }

    fn surviving_len(&self, how: Crash, rng: &mut SimRng) -> usize {
        let (short, long) = (
            self.durable_len.min(self.cached.len()) as u64,
            self.durable_len.max(self.cached.len()) as u64,
        );
        match how {
            Crash::KeepAll => self.cached.len(),
            Crash::LoseAll => self.durable_len,
            Crash::Arbitrary if rng.coin() => self.durable_len,
            Crash::Arbitrary if rng.coin() => self.cached.len(),
            Crash::Arbitrary => (short + rng.below(long - short + 1)) as usize,
        }
    }

    /// Saves the sectors of `start..end` before they change.
    fn touch(&mut self, start: usize, end: usize, rng: &mut SimRng) {
        if start == end {
            return;
        }
        for sector in start / SECTOR_BYTES..=(end - 1) / SECTOR_BYTES {
            let now = sector_of(&self.cached, sector);
            match self.unsynced.entry(sector) {
                std::collections::btree_map::Entry::Vacant(vacant) => {
                    vacant.insert(Unsynced { platter: now, forgotten: false });
                }
                std::collections::btree_map::Entry::Occupied(mut occupied) => {
                    let unsynced = occupied.get_mut();
                    // The page cache may have written the previous content back.
                    if !unsynced.forgotten && rng.coin() {
                        unsynced.platter = now;
                    }
                    unsynced.forgotten = false;
                }
            }
        }
    }
}

fn sector_of(bytes: &[u8], sector: usize) -> Option<Box<[u8; SECTOR_BYTES]>> {
    let start = sector * SECTOR_BYTES;
    let held = bytes.get(start..)?;
    let held = &held[..held.len().min(SECTOR_BYTES)];
    let mut whole = Box::new([0; SECTOR_BYTES]);
    whole[..held.len()].copy_from_slice(held);
    Some(whole)
}

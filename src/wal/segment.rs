//! One segment file: its creation, and reads and writes of its frames.
//!
//! A file gets its segment name only when it is zero-filled to its full length and its header is
//! durable. So a file with a segment name and no valid header is damaged, never half created.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;

use super::{
    error::WalError,
    format::{
        FRAME_HEADER_BYTES, FrameHeader, PAGE_BYTES, SEGMENT_HEADER_BYTES, SegmentHeader,
        frame_bytes,
    },
};
use crate::{
    disk::{Disk, File, Open},
    types::MemberId,
};

/// Bytes of zeros per write and sync. A group commit in between waits for at most one step.
const FILL_STEP_BYTES: u64 = 1 << 20;
/// Bytes per read while recovery scans trailing pages.
const SCAN_BYTES: u64 = 1 << 20;
const ZERO_PAGE: [u8; PAGE_BYTES as usize] = [0; PAGE_BYTES as usize];

/// A zero-filled file that can become a segment.
#[derive(Debug)]
pub struct PreallocatedFile {
    path: PathBuf,
    file: Arc<dyn File>,
    pub bytes: u64,
}

#[derive(Debug)]
pub struct Segment {
    pub path: PathBuf,
    pub header: SegmentHeader,
    file: Arc<dyn File>,
}

/// Result of reading at a possible start of a frame.
pub enum Probe {
    Frame(FrameHeader, Bytes),
    /// No valid frame, with the reason.
    Invalid(&'static str),
}

/// The pages behind the last valid frame.
#[derive(Debug, Default)]
pub struct TrailingPages {
    /// Offsets of pages that are not zero.
    pub dirty: Vec<u64>,
    /// Offset of the first valid frame header with a higher batch number.
    pub later_frame: Option<u64>,
}

pub fn file_name(sequence: u64) -> String {
    format!("{sequence:016x}.wal")
}

/// The sequence number in a segment's name; `None`: not a segment.
pub fn parse_file_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".wal")?;
    let sequence = u64::from_str_radix(digits, 16).ok()?;
    (file_name(sequence) == name).then_some(sequence)
}

/// A segment is whole pages: one for the header, and at least one for frames.
pub fn is_segment_length(bytes: u64) -> bool {
    bytes.is_multiple_of(PAGE_BYTES) && bytes >= 2 * PAGE_BYTES
}

/// Whether this is a file that has not become a segment yet.
pub fn is_spare_name(name: &str) -> bool {
    name.starts_with("spare-") && name.ends_with(".tmp")
}

impl PreallocatedFile {
    /// Writes a file of zeros. `number` makes its name unique in this run. Removes the file when the
    /// write fails, since other files may need its space.
    pub fn prepare(
        disk: &dyn Disk,
        dir: &Path,
        number: u64,
        bytes: u64,
    ) -> Result<PreallocatedFile, WalError> {
        let path = dir.join(format!("spare-{number:x}.tmp"));
        let file =
            disk.open(&path, Open::CreateNew).map_err(WalError::io(&path, 0, "create the file"))?;
        let spare = PreallocatedFile { path, file, bytes };
        if let Err(error) = spare.fill() {
            // The first error is the relevant one. The next start removes leftover spares.
            let _ = disk.remove(&spare.path);
            return Err(error);
        }
        Ok(spare)
    }

    fn fill(&self) -> Result<(), WalError> {
        let zeros = vec![0; FILL_STEP_BYTES.min(self.bytes) as usize];
        let mut offset = 0;
        while offset < self.bytes {
            let step = FILL_STEP_BYTES.min(self.bytes - offset);
            self.file
                .write_all_at(&zeros[..step as usize], offset)
                .and_then(|()| self.file.sync_data())
                .map_err(WalError::io(&self.path, offset, "fill with zeros"))?;
            offset += step;
        }
        Ok(())
    }

    /// Turns the file into a segment: first the header, then the name, each durable before the next
    /// step.
    pub fn activate(
        self,
        disk: &dyn Disk,
        dir: &Path,
        header: SegmentHeader,
    ) -> Result<Segment, WalError> {
        let PreallocatedFile { path: spare, file, bytes } = self;
        let header = SegmentHeader { segment_bytes: bytes, ..header };
        file.write_all_at(&header.encode(), 0)
            .and_then(|()| file.sync_data())
            .map_err(WalError::io(&spare, 0, "write the segment header"))?;
        let path = dir.join(file_name(header.sequence));
        disk.rename(&spare, &path).and_then(|()| disk.sync_dir(dir)).map_err(WalError::io(
            &path,
            0,
            "name the segment",
        ))?;
        Ok(Segment { path, header, file })
    }
}

impl Segment {
    /// Opens a segment, and checks its member and its length.
    pub fn open(
        disk: &dyn Disk,
        dir: &Path,
        sequence: u64,
        member: MemberId,
    ) -> Result<Segment, WalError> {
        let path = dir.join(file_name(sequence));
        let file = disk.open(&path, Open::Write).map_err(WalError::io(&path, 0, "open"))?;
        let len = file.len().map_err(WalError::io(&path, 0, "measure"))?;
        if len < SEGMENT_HEADER_BYTES as u64 {
            return Err(WalError::damaged(&path, len, "the file ends within the segment header"));
        }
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        file.read_exact_at(&mut bytes, 0).map_err(WalError::io(&path, 0, "read the header"))?;
        let header = SegmentHeader::decode(&bytes)
            .map_err(|problem| WalError::damaged(&path, 0, problem))?;
        if header.member != member {
            return Err(WalError::Foreign { file: path, found: header.member, expected: member });
        }
        if header.sequence != sequence {
            let problem = format!("segment {:016x} has this segment's name", header.sequence);
            return Err(WalError::damaged(&path, 0, problem));
        }
        if !is_segment_length(header.segment_bytes) {
            let problem = format!("a segment cannot have {} bytes", header.segment_bytes);
            return Err(WalError::damaged(&path, 0, problem));
        }
        if len < header.segment_bytes {
            let problem =
                format!("the file ends here; the segment has {} bytes", header.segment_bytes);
            return Err(WalError::damaged(&path, len, problem));
        }
        Ok(Segment { path, header, file })
    }

    /// Whether a frame of this size fits at `offset`.
    pub fn has_room(&self, offset: u64, bytes: u64) -> bool {
        offset + bytes <= self.header.segment_bytes
    }

    pub fn write(&self, bytes: &[u8], offset: u64) -> Result<(), WalError> {
        self.file.write_all_at(bytes, offset).map_err(WalError::io(
            &self.path,
            offset,
            "write a frame",
        ))
    }

    /// Makes earlier writes durable. Errors name `offset`, the position of the last write.
    pub fn sync(&self, offset: u64) -> Result<(), WalError> {
        self.file.sync_data().map_err(WalError::io(&self.path, offset, "sync"))
    }

    pub fn zero_page(&self, offset: u64) -> Result<(), WalError> {
        self.write(&ZERO_PAGE, offset)
    }

    /// Reads the frame at `offset`, which must be in the segment and on a page boundary.
    pub fn probe(&self, offset: u64) -> Result<Probe, WalError> {
        let mut bytes = vec![0; PAGE_BYTES as usize];
        self.read(&mut bytes, offset)?;
        let Some(header) = FrameHeader::decode(&bytes, self.header.salt) else {
            return Ok(Probe::Invalid("no valid frame header"));
        };
        let payload_bytes = header.payload_bytes as usize;
        if !self.has_room(offset, frame_bytes(payload_bytes)) {
            return Ok(Probe::Invalid("the frame is longer than its segment"));
        }
        let end = FRAME_HEADER_BYTES + payload_bytes;
        let read = bytes.len().min(end);
        bytes.resize(end, 0);
        self.read(&mut bytes[read..], offset + read as u64)?;
        if crc32fast::hash(&bytes[FRAME_HEADER_BYTES..]) != header.payload_crc {
            return Ok(Probe::Invalid("the frame's payload checksum does not match"));
        }
        // Entries share this memory. A small frame must not keep a whole page.
        bytes.shrink_to_fit();
        Ok(Probe::Frame(header, Bytes::from(bytes).slice(FRAME_HEADER_BYTES..)))
    }

    /// Scans all pages from `offset` on, where frame number `batch` would begin.
    pub fn scan_trailing(&self, offset: u64, batch: u64) -> Result<TrailingPages, WalError> {
        let mut trailing = TrailingPages::default();
        let mut bytes = Vec::new();
        let mut at = offset;
        while at < self.header.segment_bytes {
            bytes.resize(SCAN_BYTES.min(self.header.segment_bytes - at) as usize, 0);
            self.read(&mut bytes, at)?;
            for page in bytes.chunks_exact(PAGE_BYTES as usize) {
                if *page != ZERO_PAGE {
                    trailing.dirty.push(at);
                    let header = FrameHeader::decode(page, self.header.salt);
                    if header.is_some_and(|header| header.batch > batch) {
                        trailing.later_frame.get_or_insert(at);
                    }
                }
                at += PAGE_BYTES;
            }
        }
        Ok(trailing)
    }

    fn read(&self, bytes: &mut [u8], offset: u64) -> Result<(), WalError> {
        self.file.read_exact_at(bytes, offset).map_err(WalError::io(&self.path, offset, "read"))
    }
}

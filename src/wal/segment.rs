//! One segment file: how it comes to be, and how its frames are read.
//!
//! A file gets its segment name only when it is zero-filled to its full length and its header is
//! durable. So whatever bears such a name and has no valid header is damaged, never half made.

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

/// Zeros are written, and synced, in steps of this size: a group commit that comes in between waits
/// for one step at most.
const FILL_STEP_BYTES: u64 = 1 << 20;
/// How much of a tail is looked at in one go.
const SCAN_BYTES: u64 = 1 << 20;
const ZERO_PAGE: [u8; PAGE_BYTES as usize] = [0; PAGE_BYTES as usize];

/// A zero-filled file that waits to become a segment.
#[derive(Debug)]
pub(super) struct Spare {
    path: PathBuf,
    file: Arc<dyn File>,
    pub(super) bytes: u64,
}

#[derive(Debug)]
pub(super) struct Segment {
    pub(super) path: PathBuf,
    pub(super) header: SegmentHeader,
    file: Arc<dyn File>,
}

/// What is where a frame could begin.
pub(super) enum Probe {
    Frame(FrameHeader, Bytes),
    /// No valid frame; says why.
    Bad(&'static str),
}

/// What lies behind the last valid frame.
#[derive(Debug, Default)]
pub(super) struct Remains {
    /// Pages that are not zero.
    pub(super) dirty: Vec<u64>,
    /// Where the header of a frame with a higher batch number is.
    pub(super) later_frame: Option<u64>,
}

pub(super) fn file_name(sequence: u64) -> String {
    format!("{sequence:016x}.wal")
}

/// The sequence number in a segment's name; `None`: no segment.
pub(super) fn parse_file_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".wal")?;
    let sequence = u64::from_str_radix(digits, 16).ok()?;
    (file_name(sequence) == name).then_some(sequence)
}

/// Whole pages: one for the header, and at least one for frames.
pub(super) fn is_segment_length(bytes: u64) -> bool {
    bytes.is_multiple_of(PAGE_BYTES) && bytes >= 2 * PAGE_BYTES
}

/// Whether this is a file that was on its way to become a segment.
pub(super) fn is_spare_name(name: &str) -> bool {
    name.starts_with("spare-") && name.ends_with(".tmp")
}

impl Spare {
    /// Writes a file full of zeros. `number` tells it from others of this run. What failed half-way
    /// is removed, so that it does not hold the space that others lack.
    pub(super) fn prepare(
        disk: &dyn Disk,
        dir: &Path,
        number: u64,
        bytes: u64,
    ) -> Result<Spare, WalError> {
        let path = dir.join(format!("spare-{number:x}.tmp"));
        let file =
            disk.open(&path, Open::CreateNew).map_err(WalError::io(&path, 0, "create the file"))?;
        let spare = Spare { path, file, bytes };
        if let Err(error) = spare.fill() {
            // The first error is the one that counts; at the next start spares are removed anyway.
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

    /// Makes it a segment: the header first, then the name, each durable before the next step.
    pub(super) fn activate(
        self,
        disk: &dyn Disk,
        dir: &Path,
        header: SegmentHeader,
    ) -> Result<Segment, WalError> {
        let Spare { path: spare, file, bytes } = self;
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
    /// Opens a segment and checks that it is this member's and whole.
    pub(super) fn open(
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
        let header =
            SegmentHeader::decode(&bytes).map_err(|what| WalError::damaged(&path, 0, what))?;
        if header.member != member {
            return Err(WalError::Foreign { file: path, found: header.member, expected: member });
        }
        if header.sequence != sequence {
            let what = format!("this is segment {:016x} under another name", header.sequence);
            return Err(WalError::damaged(&path, 0, what));
        }
        if !is_segment_length(header.segment_bytes) {
            let what = format!("a segment cannot have {} bytes", header.segment_bytes);
            return Err(WalError::damaged(&path, 0, what));
        }
        if len < header.segment_bytes {
            let what =
                format!("the file ends here; the segment has {} bytes", header.segment_bytes);
            return Err(WalError::damaged(&path, len, what));
        }
        Ok(Segment { path, header, file })
    }

    /// Whether a frame of this size fits in at `offset`.
    pub(super) fn has_room(&self, offset: u64, bytes: u64) -> bool {
        offset + bytes <= self.header.segment_bytes
    }

    pub(super) fn write(&self, bytes: &[u8], offset: u64) -> Result<(), WalError> {
        self.file.write_all_at(bytes, offset).map_err(WalError::io(
            &self.path,
            offset,
            "write a frame",
        ))
    }

    /// `offset` is where the write was that is to become durable: errors name it.
    pub(super) fn sync(&self, offset: u64) -> Result<(), WalError> {
        self.file.sync_data().map_err(WalError::io(&self.path, offset, "sync"))
    }

    pub(super) fn zero_page(&self, offset: u64) -> Result<(), WalError> {
        self.write(&ZERO_PAGE, offset)
    }

    /// What is at `offset`, which is within the segment and on a page boundary.
    pub(super) fn probe(&self, offset: u64) -> Result<Probe, WalError> {
        let mut bytes = vec![0; PAGE_BYTES as usize];
        self.read(&mut bytes, offset)?;
        let Some(header) = FrameHeader::decode(&bytes, self.header.salt) else {
            return Ok(Probe::Bad("no valid frame header"));
        };
        let payload_bytes = header.payload_bytes as usize;
        if !self.has_room(offset, frame_bytes(payload_bytes)) {
            return Ok(Probe::Bad("the frame is longer than its segment"));
        }
        let end = FRAME_HEADER_BYTES + payload_bytes;
        let read = bytes.len().min(end);
        bytes.resize(end, 0);
        self.read(&mut bytes[read..], offset + read as u64)?;
        if crc32fast::hash(&bytes[FRAME_HEADER_BYTES..]) != header.payload_crc {
            return Ok(Probe::Bad("the frame's payload checksum does not match"));
        }
        // Entries will share this memory: a small frame must not hold on to a whole page.
        bytes.shrink_to_fit();
        Ok(Probe::Frame(header, Bytes::from(bytes).slice(FRAME_HEADER_BYTES..)))
    }

    /// Looks at all pages from `offset` on; `batch` is the number of the frame that is due there.
    pub(super) fn remains(&self, offset: u64, batch: u64) -> Result<Remains, WalError> {
        let mut remains = Remains::default();
        let mut bytes = Vec::new();
        let mut at = offset;
        while at < self.header.segment_bytes {
            bytes.resize(SCAN_BYTES.min(self.header.segment_bytes - at) as usize, 0);
            self.read(&mut bytes, at)?;
            for page in bytes.chunks_exact(PAGE_BYTES as usize) {
                if *page != ZERO_PAGE {
                    remains.dirty.push(at);
                    let header = FrameHeader::decode(page, self.header.salt);
                    if header.is_some_and(|header| header.batch > batch) {
                        remains.later_frame.get_or_insert(at);
                    }
                }
                at += PAGE_BYTES;
            }
        }
        Ok(remains)
    }

    fn read(&self, bytes: &mut [u8], offset: u64) -> Result<(), WalError> {
        self.file.read_exact_at(bytes, offset).map_err(WalError::io(&self.path, offset, "read"))
    }
}

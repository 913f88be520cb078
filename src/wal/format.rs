//! The bytes of segment headers, frame headers and records. Integers are little-endian.
//!
//! Pure: touches no file. Every decoder takes arbitrary bytes and never panics.

use bytes::{Buf, BufMut, Bytes, TryGetError};

use crate::types::{EntryKind, HardState, LogEntry, LogPosition, MemberId, Term, Vote};

/// Frames begin on these boundaries; see the module head of `wal` for why.
pub const PAGE_BYTES: u64 = 4096;
pub const FRAME_HEADER_BYTES: usize = 28;
/// The part of a segment's first page that the header and its CRC occupy: one sector.
pub const SEGMENT_HEADER_BYTES: usize = 512;

const MAGIC: &[u8; 8] = b"ORDLWAL\n";
const FORMAT_VERSION: u32 = 1;
const CRC_BYTES: usize = 4;

/// The first sector of a segment: its member, its place in the sequence, and a summary of the log
/// before it, so that earlier segments can be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    pub member: MemberId,
    pub sequence: u64,
    /// In every frame of this segment, and in no other segment.
    pub salt: u64,
    /// The salt of the segment before; zero in the first.
    pub salt_before: u64,
    pub segment_bytes: u64,
    /// The batch number of its first frame. The previous segment ends with the number before it.
    pub first_batch: u64,
    /// The end of the log before this segment.
    pub last: Option<LogPosition>,
    pub hard: HardState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    pub salt: u64,
    /// One more than in the previous frame, across segments.
    pub batch: u64,
    pub payload_bytes: u32,
    pub payload_crc: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    Entry(LogEntry),
    Vote(Vote),
    Committed(LogPosition),
    /// Drops all entries after this position; `None`: all entries.
    TruncateAfter(Option<LogPosition>),
    Purge(LogPosition),
}

const ENTRY: u8 = 1;
const VOTE: u8 = 2;
const COMMITTED: u8 = 3;
const TRUNCATE_AFTER: u8 = 4;
const PURGE: u8 = 5;

/// The size on disk of a frame with this payload: whole pages.
pub fn frame_bytes(payload_bytes: usize) -> u64 {
    ((FRAME_HEADER_BYTES + payload_bytes) as u64).next_multiple_of(PAGE_BYTES)
}

/// Turns `frame`, which is room for the header and then the payload, into a frame: fills in the header
/// and pads to the page.
pub fn seal_frame(frame: &mut Vec<u8>, salt: u64, batch: u64) {
    let payload = &frame[FRAME_HEADER_BYTES..];
    let header = FrameHeader {
        salt,
        batch,
        payload_bytes: u32::try_from(payload.len()).expect("the writer bounds its frames"),
        payload_crc: crc32fast::hash(payload),
    };
    let bytes = frame_bytes(payload.len());
    frame[..FRAME_HEADER_BYTES].copy_from_slice(&header.encode());
    frame.resize(bytes as usize, 0);
}

/// A salt that no other segment of this log has, as unpredictable as the seed.
pub fn salt(seed: u64, sequence: u64) -> u64 {
    let mut z = seed.wrapping_add(sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl SegmentHeader {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(SEGMENT_HEADER_BYTES);
        out.put_slice(MAGIC);
        out.put_u32_le(FORMAT_VERSION);
        out.put_u64_le(self.member.0);
        out.put_u64_le(self.sequence);
        out.put_u64_le(self.salt);
        out.put_u64_le(self.salt_before);
        out.put_u64_le(self.segment_bytes);
        out.put_u64_le(self.first_batch);
        put_optional(&mut out, self.last, put_position);
        put_optional(&mut out, self.hard.vote, put_vote);
        put_optional(&mut out, self.hard.committed, put_position);
        put_optional(&mut out, self.hard.purged, put_position);
        out.resize(SEGMENT_HEADER_BYTES - CRC_BYTES, 0);
        out.put_u32_le(crc32fast::hash(&out));
        out
    }

    /// Decodes the first [`SEGMENT_HEADER_BYTES`] of a file. The error names the problem.
    pub fn decode(bytes: &[u8]) -> Result<SegmentHeader, String> {
        let (covered, mut crc) = bytes.split_at(SEGMENT_HEADER_BYTES - CRC_BYTES);
        if !bytes.starts_with(MAGIC) {
            return Err("not the header of a log segment".into());
        }
        if crc.try_get_u32_le() != Ok(crc32fast::hash(covered)) {
            return Err("the segment header's checksum does not match".into());
        }
        let mut input = &covered[MAGIC.len()..];
        let fields = |input: &mut &[u8]| -> Result<SegmentHeader, TryGetError> {
            Ok(SegmentHeader {
                member: MemberId(input.try_get_u64_le()?),
                sequence: input.try_get_u64_le()?,
                salt: input.try_get_u64_le()?,
                salt_before: input.try_get_u64_le()?,
                segment_bytes: input.try_get_u64_le()?,
                first_batch: input.try_get_u64_le()?,
                last: get_optional(input, get_position)?,
                hard: HardState {
                    vote: get_optional(input, get_vote)?,
                    committed: get_optional(input, get_position)?,
                    purged: get_optional(input, get_position)?,
                },
            })
        };
        match input.try_get_u32_le() {
            Ok(FORMAT_VERSION) => fields(&mut input).map_err(|e| e.to_string()),
            version => Err(format!(
                "written in format {}; this program reads {FORMAT_VERSION}",
                version.unwrap_or_default()
            )),
        }
    }
}

impl FrameHeader {
    pub fn encode(&self) -> [u8; FRAME_HEADER_BYTES] {
        let mut out = [0; FRAME_HEADER_BYTES];
        let mut rest = &mut out[..];
        rest.put_u64_le(self.salt);
        rest.put_u64_le(self.batch);
        rest.put_u32_le(self.payload_bytes);
        rest.put_u32_le(self.payload_crc);
        let crc = crc32fast::hash(&out[..FRAME_HEADER_BYTES - CRC_BYTES]);
        out[FRAME_HEADER_BYTES - CRC_BYTES..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// The header at the start of `bytes`, if it is valid and has this salt.
    pub fn decode(bytes: &[u8], salt: u64) -> Option<FrameHeader> {
        let (mut covered, mut crc) =
            bytes.get(..FRAME_HEADER_BYTES)?.split_at(FRAME_HEADER_BYTES - CRC_BYTES);
        if crc.try_get_u32_le() != Ok(crc32fast::hash(covered)) {
            return None;
        }
        let header = FrameHeader {
            salt: covered.try_get_u64_le().ok()?,
            batch: covered.try_get_u64_le().ok()?,
            payload_bytes: covered.try_get_u32_le().ok()?,
            payload_crc: covered.try_get_u32_le().ok()?,
        };
        (header.salt == salt).then_some(header)
    }
}

pub fn put_entry_record(out: &mut Vec<u8>, entry: &LogEntry) {
    out.put_u8(ENTRY);
    put_position(out, entry.position);
    out.put_u8(entry.kind as u8);
    let bytes = u32::try_from(entry.data.len()).expect("an entry is smaller than 4 GiB");
    out.put_u32_le(bytes);
    out.put_slice(&entry.data);
}

pub fn put_vote_record(out: &mut Vec<u8>, vote: Vote) {
    out.put_u8(VOTE);
    put_vote(out, vote);
}

pub fn put_committed_record(out: &mut Vec<u8>, position: LogPosition) {
    out.put_u8(COMMITTED);
    put_position(out, position);
}

pub fn put_truncate_record(out: &mut Vec<u8>, position: Option<LogPosition>) {
    out.put_u8(TRUNCATE_AFTER);
    put_optional(out, position, put_position);
}

pub fn put_purge_record(out: &mut Vec<u8>, position: LogPosition) {
    out.put_u8(PURGE);
    put_position(out, position);
}

/// The records of a frame, in order. Entries share the payload's memory.
pub fn records(mut payload: Bytes) -> Result<Vec<Record>, String> {
    let mut records = Vec::new();
    while payload.has_remaining() {
        records.push(record(&mut payload).ok_or("an invalid record")?);
    }
    Ok(records)
}

fn record(input: &mut Bytes) -> Option<Record> {
    Some(match input.try_get_u8().ok()? {
        ENTRY => {
            let position = get_position(input).ok()?;
            let kind = match input.try_get_u8().ok()? {
                0 => EntryKind::Blank,
                1 => EntryKind::Commands,
                2 => EntryKind::Membership,
                _ => return None,
            };
            let bytes = input.try_get_u32_le().ok()? as usize;
            if bytes > input.len() {
                return None;
            }
            Record::Entry(LogEntry { position, kind, data: input.split_to(bytes) })
        }
        VOTE => Record::Vote(get_vote(input).ok()?),
        COMMITTED => Record::Committed(get_position(input).ok()?),
        TRUNCATE_AFTER => Record::TruncateAfter(get_optional(input, get_position).ok()?),
        PURGE => Record::Purge(get_position(input).ok()?),
        _ => return None,
    })
}

fn put_position(out: &mut Vec<u8>, position: LogPosition) {
    out.put_u64_le(position.term.0);
    out.put_u64_le(position.index);
}

fn get_position<B: Buf>(input: &mut B) -> Result<LogPosition, TryGetError> {
    Ok(LogPosition { term: Term(input.try_get_u64_le()?), index: input.try_get_u64_le()? })
}

fn put_vote(out: &mut Vec<u8>, vote: Vote) {
    out.put_u64_le(vote.term.0);
    put_optional(out, vote.voted_for, |out, member| out.put_u64_le(member.0));
    out.put_u8(u8::from(vote.committed));
}

fn get_vote<B: Buf>(input: &mut B) -> Result<Vote, TryGetError> {
    Ok(Vote {
        term: Term(input.try_get_u64_le()?),
        voted_for: get_optional(input, |input| Ok(MemberId(input.try_get_u64_le()?)))?,
        committed: input.try_get_u8()? != 0,
    })
}

fn put_optional<T>(out: &mut Vec<u8>, value: Option<T>, put: impl FnOnce(&mut Vec<u8>, T)) {
    out.put_u8(u8::from(value.is_some()));
    if let Some(value) = value {
        put(out, value);
    }
}

fn get_optional<B: Buf, T>(
    input: &mut B,
    get: impl FnOnce(&mut B) -> Result<T, TryGetError>,
) -> Result<Option<T>, TryGetError> {
    Ok(if input.try_get_u8()? == 0 { None } else { Some(get(input)?) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn positions() -> impl Strategy<Value = LogPosition> {
        (any::<u64>(), any::<u64>())
            .prop_map(|(term, index)| LogPosition { term: Term(term), index })
    }

    fn votes() -> impl Strategy<Value = Vote> {
        (any::<u64>(), any::<Option<u64>>(), any::<bool>()).prop_map(|(term, member, committed)| {
            Vote { term: Term(term), voted_for: member.map(MemberId), committed }
        })
    }

    fn any_record() -> impl Strategy<Value = Record> {
        let kinds = [EntryKind::Blank, EntryKind::Commands, EntryKind::Membership];
        let kinds = proptest::sample::select(kinds.to_vec());
        let data = proptest::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from);
        prop_oneof![
            (positions(), kinds, data).prop_map(|(position, kind, data)| Record::Entry(LogEntry {
                position,
                kind,
                data
            })),
            votes().prop_map(Record::Vote),
            positions().prop_map(Record::Committed),
            proptest::option::of(positions()).prop_map(Record::TruncateAfter),
            positions().prop_map(Record::Purge),
        ]
    }

    fn put(out: &mut Vec<u8>, record: &Record) {
        match record {
            Record::Entry(entry) => put_entry_record(out, entry),
            Record::Vote(vote) => put_vote_record(out, *vote),
            Record::Committed(position) => put_committed_record(out, *position),
            Record::TruncateAfter(position) => put_truncate_record(out, *position),
            Record::Purge(position) => put_purge_record(out, *position),
        }
    }

    proptest! {
        #[test]
        fn records_are_read_as_they_were_written(
            written in proptest::collection::vec(any_record(), 0..10)
        ) {
            let mut bytes = Vec::new();
            written.iter().for_each(|record| put(&mut bytes, record));
            prop_assert_eq!(records(bytes.into()), Ok(written));
        }

        #[test]
        fn arbitrary_bytes_are_refused_without_a_panic(
            bytes in proptest::collection::vec(0_u8..8, SEGMENT_HEADER_BYTES)
        ) {
            prop_assert!(SegmentHeader::decode(&bytes).is_err());
            prop_assert_eq!(FrameHeader::decode(&bytes, 0), None);
            let _ = records(bytes.into());
        }

        #[test]
        fn a_segment_header_is_read_as_it_was_written(
            numbers: [u64; 6],
            last in proptest::option::of(positions()),
            vote in proptest::option::of(votes()),
            committed in proptest::option::of(positions()),
            purged in proptest::option::of(positions()),
        ) {
            let [member, sequence, salt, salt_before, segment_bytes, first_batch] = numbers;
            let member = MemberId(member);
            let hard = HardState { vote, committed, purged };
            let header = SegmentHeader {
                member, sequence, salt, salt_before, segment_bytes, first_batch, last, hard,
            };
            prop_assert_eq!(SegmentHeader::decode(&header.encode()), Ok(header));
        }
    }

    /// Any change of the bytes on disk requires another format version.
    #[test]
    fn the_format_of_version_1_does_not_change() {
        let mut frame = vec![0; FRAME_HEADER_BYTES];
        let position = LogPosition { term: Term(2), index: 3 };
        let entry = LogEntry { position, kind: EntryKind::Commands, data: Bytes::from("x") };
        let vote = Vote { term: Term(4), voted_for: Some(MemberId(5)), committed: true };
        put(&mut frame, &Record::Entry(entry));
        put(&mut frame, &Record::Vote(vote));
        put(&mut frame, &Record::Committed(position));
        put(&mut frame, &Record::TruncateAfter(None));
        put(&mut frame, &Record::Purge(position));
        seal_frame(&mut frame, 6, 7);
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(hex(&frame[..28]), "060000000000000007000000000000004e00000029f38a6e79a1ccd3");
        let hard = HardState { vote: Some(vote), committed: Some(position), purged: None };
        let header = SegmentHeader {
            member: MemberId(1),
            sequence: 2,
            salt: 3,
            salt_before: 4,
            segment_bytes: 8192,
            first_batch: 5,
            last: Some(position),
            hard,
        };
        assert_eq!(hex(&header.encode()[508..]), "9d644255");
    }
}

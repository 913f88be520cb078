//! The encoding of records and metas.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    state::{Record, RecordMeta},
    storage::{
        codec::{Decoder, put_bytes, put_varint},
        live_bytes::record_bytes,
    },
    types::{LeaseId, RecordId, Revision},
};

const TOMBSTONE: u8 = 1;
const LEASED: u8 = 2;

/// `previous` is the revision of the previous record in the same run, or zero.
pub fn put_meta(out: &mut Vec<u8>, meta: &RecordMeta, previous: Revision) {
    let main = meta.id.main.0;
    put_varint(out, main.wrapping_sub(previous.0) as u64);
    put_varint(out, u64::from(meta.id.sub));
    let leased = meta.lease != LeaseId(0);
    out.push(if meta.tombstone { TOMBSTONE } else { 0 } | if leased { LEASED } else { 0 });
    put_varint(out, main.wrapping_sub(meta.create_revision.0) as u64);
    put_varint(out, meta.version as u64);
    if leased {
        out.extend_from_slice(&meta.lease.0.to_be_bytes());
    }
    put_bytes(out, &meta.key);
}

pub fn put_record(out: &mut Vec<u8>, record: &Record, previous: Revision) {
    put_meta(out, &record.meta, previous);
    put_bytes(out, &record.value);
}

/// A meta in the footer, with the length of the value.
pub fn put_sized_meta(out: &mut Vec<u8>, record: &Record, previous: Revision) {
    put_meta(out, &record.meta, previous);
    put_varint(out, record.value.len() as u64);
}

/// The source of value lengths for a run of metas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueLengths {
    Stored,
    /// Not stored: this is the mean.
    Estimated(usize),
}

/// Decodes records in order; keys and values are slices of the buffer. The iterator is over a checked
/// run of metas, each with the live bytes of its record.
#[derive(Debug)]
pub struct MetaCursor {
    bytes: Bytes,
    at: usize,
    previous: Revision,
    lengths: ValueLengths,
}

impl MetaCursor {
    /// Over the records of a page.
    pub fn of_page(bytes: Bytes) -> MetaCursor {
        MetaCursor::of_metas(bytes, ValueLengths::Estimated(0))
    }

    /// Over a run of metas.
    pub fn of_metas(bytes: Bytes, lengths: ValueLengths) -> MetaCursor {
        MetaCursor { bytes, at: 0, previous: Revision::ZERO, lengths }
    }

    pub fn is_done(&self) -> bool {
        self.at == self.bytes.len()
    }

    /// Number of bytes decoded so far: the offset of a record that is `None`.
    pub fn position(&self) -> usize {
        self.at
    }

    /// The next meta of a run, and the live bytes of its record. `None` at the end, or if it is
    /// invalid.
    pub fn sized_meta(&mut self) -> Option<(RecordMeta, u64)> {
        let meta = self.meta()?;
        let value_bytes = match self.lengths {
            ValueLengths::Estimated(bytes) => bytes,
            ValueLengths::Stored => {
                let mut decoder = Decoder::at(&self.bytes, self.at);
                let length = usize::try_from(decoder.varint()?).ok()?;
                self.at = decoder.position();
                length
            }
        };
        let bytes = record_bytes(meta.key.len(), value_bytes);
        Some((meta, bytes))
    }

    fn meta(&mut self) -> Option<RecordMeta> {
        let mut decoder = Decoder::at(&self.bytes, self.at);
        let main = self.previous.0.wrapping_add(decoder.varint()? as i64);
        let sub = u32::try_from(decoder.varint()?).ok()?;
        let flags = decoder.u8().filter(|flags| *flags <= (TOMBSTONE | LEASED))?;
        let create = main.wrapping_sub(decoder.varint()? as i64);
        let version = decoder.varint()? as i64;
        let lease = if flags & LEASED == 0 { 0 } else { decoder.u64()? as i64 };
        let key = self.bytes.slice(decoder.bytes_span()?);
        self.at = decoder.position();
        self.previous = Revision(main);
        Some(RecordMeta {
            id: RecordId { main: Revision(main), sub },
            key,
            create_revision: Revision(create),
            version,
            lease: LeaseId(lease),
            tombstone: flags & TOMBSTONE != 0,
        })
    }

    /// The next record of a page. `None` if it is invalid.
    pub fn record(&mut self) -> Option<Arc<Record>> {
        let meta = self.meta()?;
        let mut decoder = Decoder::at(&self.bytes, self.at);
        let value = self.bytes.slice(decoder.bytes_span()?);
        self.at = decoder.position();
        Some(Arc::new(Record { meta, value }))
    }
}

impl Iterator for MetaCursor {
    type Item = (RecordMeta, u64);

    fn next(&mut self) -> Option<(RecordMeta, u64)> {
        self.sized_meta()
    }
}

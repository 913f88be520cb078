//! One record as bytes.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    state::{Record, RecordMeta},
    storage::codec::{Decoder, put_bytes, put_varint},
    types::{LeaseId, RecordId, Revision},
};

const TOMBSTONE: u8 = 1;
const LEASED: u8 = 2;

/// `previous` is the revision of the record before this one in the same run, or zero.
pub(super) fn put_meta(out: &mut Vec<u8>, meta: &RecordMeta, previous: Revision) {
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

pub(super) fn put_record(out: &mut Vec<u8>, record: &Record, previous: Revision) {
    put_meta(out, &record.meta, previous);
    put_bytes(out, &record.value);
}

/// Walks encoded records; keys and values are slices of the buffer. As an iterator: over a run of
/// metas that is known to be well formed.
#[derive(Debug)]
pub(in crate::storage) struct MetaCursor {
    bytes: Bytes,
    at: usize,
    previous: Revision,
}

impl MetaCursor {
    pub(super) fn new(bytes: Bytes) -> MetaCursor {
        MetaCursor { bytes, at: 0, previous: Revision::ZERO }
    }

    pub(super) fn is_done(&self) -> bool {
        self.at == self.bytes.len()
    }

    /// How many bytes were taken: where a record that is `None` begins.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// The next meta, from a run of metas. `None` at the end, or if it is no meta.
    pub(super) fn meta(&mut self) -> Option<RecordMeta> {
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

    /// The next record, from a page. `None` if it is no record.
    pub(super) fn record(&mut self) -> Option<Arc<Record>> {
        let meta = self.meta()?;
        let mut decoder = Decoder::at(&self.bytes, self.at);
        let value = self.bytes.slice(decoder.bytes_span()?);
        self.at = decoder.position();
        Some(Arc::new(Record { meta, value }))
    }
}

impl Iterator for MetaCursor {
    type Item = RecordMeta;

    fn next(&mut self) -> Option<RecordMeta> {
        self.meta()
    }
}

//! Encodes events, once for all watches that deliver the same ones.
//!
//! Each event is encoded at most twice: with and without the previous value. Each distinct set of events
//! is assembled once. So thousands of watches on one prefix, or on one key, share the encoded bytes.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;

use crate::{
    proto::convert::encode_event,
    state::{Record, RecordMeta},
    types::Revision,
};

/// Which events of its keys a watch delivers, and in which form.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventOptions {
    /// Filters puts out.
    pub no_put: bool,
    /// Filters deletions out.
    pub no_delete: bool,
    /// Adds the previous value to each event.
    pub prev_kv: bool,
    /// Splits large revisions into several messages.
    pub fragment: bool,
}

impl EventOptions {
    /// Whether the event of this record passes the filters.
    pub fn includes(&self, record: &RecordMeta) -> bool {
        !(if record.tombstone { self.no_delete } else { self.no_put })
    }
}

/// A set of encoded events, shared by all watches that deliver exactly these. One message, or several
/// fragments.
#[derive(Debug, Clone)]
pub struct EncodedEvents {
    first: Bytes,
    /// The fragments after the first. Each has its own allocation, so that sending one does not keep all
    /// of them in memory.
    others: Option<Arc<[Bytes]>>,
    pub count: u32,
}

impl EncodedEvents {
    /// The bytes of one fragment, and whether another one follows.
    pub fn fragment(&self, number: usize) -> (Bytes, bool) {
        let others = self.others.as_deref().unwrap_or_default();
        let fragment = number.checked_sub(1).map_or(&self.first, |other| &others[other]);
        (fragment.clone(), number < others.len())
    }

    pub fn bytes(&self) -> usize {
        let others = self.others.iter().flat_map(|others| others.iter());
        self.first.len() + others.map(Bytes::len).sum::<usize>()
    }

    /// Whether both share their bytes in memory.
    pub fn is_same(&self, other: &EncodedEvents) -> bool {
        self.first.as_ptr() == other.first.as_ptr()
            && self.first.len() == other.first.len()
            && self.others.is_some() == other.others.is_some()
    }
}

/// Looks up the previous value of one of the records, by position.
pub type PrevKvLookup<'a, E> = &'a dyn Fn(usize) -> Result<Option<Arc<Record>>, E>;

/// Encodes the events of some records. Fails with `E` if a lookup of a needed previous value fails.
pub struct Encoder<'a, E> {
    records: &'a [Arc<Record>],
    prev_kv: PrevKvLookup<'a, E>,
    fragment_bytes: usize,
    /// The encoded event of each record, without and with the previous value.
    single: Vec<[Option<Bytes>; 2]>,
    sets: HashMap<(Vec<u32>, EventOptions), EncodedEvents>,
}

impl<'a, E> Encoder<'a, E> {
    pub fn new(
        records: &'a [Arc<Record>],
        prev_kv: PrevKvLookup<'a, E>,
        fragment_bytes: usize,
    ) -> Encoder<'a, E> {
        let single = vec![[None, None]; records.len()];
        Encoder { records, prev_kv, fragment_bytes, single, sets: HashMap::new() }
    }

    fn revision(&self, at: u32) -> Revision {
        self.records[at as usize].meta.id.main
    }

    /// The events of the records at `positions`, from revision `from` on. `None` if the filters leave no
    /// event.
    pub fn encode(
        &mut self,
        positions: &[u32],
        from: Revision,
        options: EventOptions,
    ) -> Result<Option<EncodedEvents>, E> {
        let start = positions.partition_point(|at| self.revision(*at) < from);
        let included = positions[start..].iter().copied();
        let included = included.filter(|at| options.includes(&self.records[*at as usize].meta));
        let included: Vec<u32> = included.collect();
        match included[..] {
            [] => Ok(None),
            [one] => {
                let encoded = self.single(one, options.prev_kv)?;
                Ok(Some(EncodedEvents { first: encoded, others: None, count: 1 }))
            }
            _ => self.set(included, options).map(Some),
        }
    }

    fn set(&mut self, positions: Vec<u32>, options: EventOptions) -> Result<EncodedEvents, E> {
        // The positions already reflect the filters.
        let options = EventOptions { no_put: false, no_delete: false, ..options };
        let set = (positions, options);
        if let Some(events) = self.sets.get(&set) {
            return Ok(events.clone());
        }
        let single = set.0.iter().map(|at| self.single(*at, options.prev_kv));
        let single = single.collect::<Result<Vec<Bytes>, E>>()?;
        let mut fragments = match options.fragment {
            true => self.fragments(&single),
            false => vec![single.concat().into()],
        };
        let others = (fragments.len() > 1).then(|| fragments.split_off(1).into());
        let first = fragments.pop().unwrap_or_default();
        let events = EncodedEvents { first, others, count: single.len() as u32 };
        self.sets.insert(set, events.clone());
        Ok(events)
    }

    fn single(&mut self, at: u32, with_prev_kv: bool) -> Result<Bytes, E> {
        let record = &self.records[at as usize];
        let with_prev_kv = with_prev_kv && !record.meta.is_creation();
        let slot = &mut self.single[at as usize][usize::from(with_prev_kv)];
        if let Some(encoded) = slot {
            return Ok(encoded.clone());
        }
        let prev_kv = if with_prev_kv { (self.prev_kv)(at as usize)? } else { None };
        let prev_kv = prev_kv.map(|record| record.key_value());
        let encoded = encode_event(record.meta.tombstone, record.key_value(), prev_kv);
        Ok(slot.insert(encoded.into()).clone())
    }

    /// Packs as many events into each fragment as fit, at least one.
    fn fragments(&self, events: &[Bytes]) -> Vec<Bytes> {
        let (mut fragments, mut start, mut bytes) = (Vec::new(), 0, 0);
        for (end, event) in events.iter().enumerate() {
            if end > start && bytes + event.len() >= self.fragment_bytes {
                fragments.push(events[start..end].concat().into());
                (start, bytes) = (end, 0);
            }
            bytes += event.len();
        }
        fragments.push(events[start..].concat().into());
        fragments
    }
}

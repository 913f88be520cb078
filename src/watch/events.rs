//! Encodes what happened, once for all who hear the same of it.
//!
//! An event is encoded at most twice: with and without what was there before. Those that a watcher
//! hears of are put together once for each set of events, whoever hears of them: thousands of watches
//! on one prefix, or on one key, share their bytes.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;

use crate::{
    proto::convert::encode_event,
    state::{Record, RecordMeta},
    types::Revision,
};

/// What a watcher wants to hear of its keys.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wants {
    pub no_puts: bool,
    pub no_deletions: bool,
    /// With each event, what was there before.
    pub previous: bool,
    /// Events that are too large for one message in several.
    pub fragments: bool,
}

impl Wants {
    pub(super) fn hears(&self, record: &RecordMeta) -> bool {
        !(if record.tombstone { self.no_deletions } else { self.no_puts })
    }
}

/// Encoded events, for everybody who hears of just these.
#[derive(Debug, Clone)]
pub(super) struct Events {
    /// Of the first message, which mostly is the only one.
    first: Bytes,
    /// Of the others. Each has memory of its own, so that one that is being sent does not keep all.
    others: Option<Arc<[Bytes]>>,
    pub(super) count: u32,
}

impl Events {
    /// The bytes of one message, and whether another follows.
    pub(super) fn part(&self, number: usize) -> (Bytes, bool) {
        let others = self.others.as_deref().unwrap_or_default();
        let part = number.checked_sub(1).map_or(&self.first, |other| &others[other]);
        (part.clone(), number < others.len())
    }

    pub(super) fn bytes(&self) -> usize {
        let others = self.others.iter().flat_map(|others| others.iter());
        self.first.len() + others.map(Bytes::len).sum::<usize>()
    }

    pub(super) fn is_same(&self, other: &Events) -> bool {
        self.first.as_ptr() == other.first.as_ptr()
            && self.first.len() == other.first.len()
            && self.others.is_some() == other.others.is_some()
    }
}

/// Answers what there was before one of the records.
pub(super) type Previous<'a, E> = &'a dyn Fn(usize) -> Result<Option<Arc<Record>>, E>;

/// Encodes the events of some records. Fails with `E` where what there was before is needed and not
/// to be had.
pub(super) struct Encoder<'a, E> {
    records: &'a [Arc<Record>],
    previous: Previous<'a, E>,
    message_bytes_max: usize,
    /// Of each record, without and with what was there before.
    single: Vec<[Option<Bytes>; 2]>,
    sets: HashMap<(Vec<u32>, Wants), Events>,
}

impl<'a, E> Encoder<'a, E> {
    pub(super) fn new(
        records: &'a [Arc<Record>],
        previous: Previous<'a, E>,
        message_bytes_max: usize,
    ) -> Encoder<'a, E> {
        let single = vec![[None, None]; records.len()];
        Encoder { records, previous, message_bytes_max, single, sets: HashMap::new() }
    }

    fn revision(&self, record: u32) -> Revision {
        self.records[record as usize].meta.id.main
    }

    /// The events of `records`, at revision `from` and later. `None`: nothing that is wanted.
    pub(super) fn encode(
        &mut self,
        records: &[u32],
        from: Revision,
        wants: Wants,
    ) -> Result<Option<Events>, E> {
        let known = records.partition_point(|at| self.revision(*at) < from);
        let wanted = records[known..].iter().copied();
        let wanted = wanted.filter(|at| wants.hears(&self.records[*at as usize].meta));
        let wanted: Vec<u32> = wanted.collect();
        match wanted[..] {
            [] => Ok(None),
            [one] => {
                let encoded = self.single(one, wants.previous)?;
                Ok(Some(Events { first: encoded, others: None, count: 1 }))
            }
            _ => self.set(wanted, wants).map(Some),
        }
    }

    fn set(&mut self, records: Vec<u32>, wants: Wants) -> Result<Events, E> {
        // Which ones were left out is in `records`.
        let wants = Wants { no_puts: false, no_deletions: false, ..wants };
        let set = (records, wants);
        if let Some(events) = self.sets.get(&set) {
            return Ok(events.clone());
        }
        let single = set.0.iter().map(|at| self.single(*at, wants.previous));
        let single = single.collect::<Result<Vec<Bytes>, E>>()?;
        let mut messages = match wants.fragments {
            true => self.messages(&single),
            false => vec![single.concat().into()],
        };
        let others = (messages.len() > 1).then(|| messages.split_off(1).into());
        let first = messages.pop().unwrap_or_default();
        let events = Events { first, others, count: single.len() as u32 };
        self.sets.insert(set, events.clone());
        Ok(events)
    }

    fn single(&mut self, at: u32, with_previous: bool) -> Result<Bytes, E> {
        let record = &self.records[at as usize];
        let with_previous = with_previous && !record.meta.is_creation();
        let known = &mut self.single[at as usize][usize::from(with_previous)];
        if let Some(encoded) = known {
            return Ok(encoded.clone());
        }
        let previous = if with_previous { (self.previous)(at as usize)? } else { None };
        let previous = previous.map(|record| record.key_value());
        let encoded = encode_event(record.meta.tombstone, record.key_value(), previous);
        Ok(known.insert(encoded.into()).clone())
    }

    /// As many events in each message as fit, and one at least.
    fn messages(&self, events: &[Bytes]) -> Vec<Bytes> {
        let (mut messages, mut start, mut bytes) = (Vec::new(), 0, 0);
        for (end, event) in events.iter().enumerate() {
            if end > start && bytes + event.len() >= self.message_bytes_max {
                messages.push(events[start..end].concat().into());
                (start, bytes) = (end, 0);
            }
            bytes += event.len();
        }
        messages.push(events[start..].concat().into());
        messages
    }
}

//! The streams that are open, and what one pass of the hub sends on them.
//!
//! A pass collects for each stream what its watches hear of, and puts it into the outbox at once: so
//! a stream is locked and its task woken once for a pass, however many watches it has.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    events::Events,
    outbox::{Delivery, Outbox},
    slab::Slab,
    stream::StreamId,
};
use crate::types::Revision;

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) outbox: Arc<Outbox>,
    /// Where its client is.
    pub(super) peer: Box<str>,
    /// Its watches, by the client's names.
    pub(super) watches: BTreeMap<i64, u32>,
    pub(super) next_id: i64,
    /// Its client asked how far all have come, and not all had come as far as the store.
    pub(super) progress_asked: bool,
    /// One of those that had not.
    pub(super) awaited: Option<i64>,
    pass: Vec<Delivery>,
    /// Bytes that wait, with those of this pass, and that may.
    room: Option<(usize, usize)>,
}

/// All streams.
#[derive(Debug, Default)]
pub(super) struct Streams {
    slab: Slab<Stream>,
    ids: BTreeMap<StreamId, u32>,
    /// Those that this pass sends on.
    touched: Vec<u32>,
}

impl Streams {
    pub(super) fn open(&mut self, id: StreamId, outbox: Arc<Outbox>, peer: Box<str>) {
        let stream = Stream {
            outbox,
            peer,
            watches: BTreeMap::new(),
            next_id: 0,
            progress_asked: false,
            awaited: None,
            pass: Vec::new(),
            room: None,
        };
        let at = self.slab.insert(stream);
        self.ids.insert(id, at);
    }

    pub(super) fn close(&mut self, id: StreamId) -> Option<Stream> {
        let at = self.ids.remove(&id)?;
        self.slab.remove(at)
    }

    pub(super) fn find(&self, id: StreamId) -> Option<u32> {
        self.ids.get(&id).copied()
    }

    pub(super) fn count(&self) -> usize {
        self.ids.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Stream> {
        self.slab.iter().map(|(_, stream)| stream)
    }

    /// Adds to this pass. False: the stream is full.
    pub(super) fn deliver(
        &mut self,
        at: u32,
        events: &Events,
        revision: Revision,
        watch_id: i64,
    ) -> bool {
        let Stream { outbox, pass, room, .. } = &mut self.slab[at];
        let (bytes, bytes_max) = room.get_or_insert_with(|| {
            self.touched.push(at);
            outbox.room()
        });
        if *bytes > 0 && *bytes >= *bytes_max {
            return false;
        }
        let shared = pass.last_mut().and_then(|last| last.share(events, revision, watch_id));
        *bytes += shared.unwrap_or_else(|| {
            let delivery = Delivery::new(events.clone(), revision, watch_id);
            let bytes = delivery.bytes();
            pass.push(delivery);
            bytes
        });
        true
    }

    /// Ends the pass.
    pub(super) fn send(&mut self) {
        for at in self.touched.drain(..) {
            let Stream { outbox, pass, room, .. } = &mut self.slab[at];
            *room = None;
            if !pass.is_empty() {
                outbox.deliver(pass.drain(..));
            }
            // A stream that was busy once need not hold on to the room for it.
            pass.shrink_to(8);
        }
    }
}

impl std::ops::Index<u32> for Streams {
    type Output = Stream;

    fn index(&self, at: u32) -> &Stream {
        &self.slab[at]
    }
}

impl std::ops::IndexMut<u32> for Streams {
    fn index_mut(&mut self, at: u32) -> &mut Stream {
        &mut self.slab[at]
    }
}

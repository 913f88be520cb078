//! The open streams, and the deliveries that the hub collects for them.
//!
//! The hub collects the events of all watches of a stream first, and then puts them into the outbox at
//! once. So it locks the outbox and wakes the stream's task once, however many watches the stream has.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    events::EncodedEvents,
    messages::StreamId,
    outbox::{Delivery, Outbox},
    slab::Slab,
};
use crate::types::Revision;

#[derive(Debug)]
pub struct OpenStream {
    pub outbox: Arc<Outbox>,
    /// The address of the client.
    pub peer: Box<str>,
    /// The keys of its watches in the registry, by watch ID.
    pub watches: BTreeMap<i64, u32>,
    pub next_id: i64,
    /// A progress request waits until all watches are synced.
    pub progress_requested: bool,
    /// One of the watches for which the progress request waits.
    pub behind: Option<i64>,
    collected: Vec<Delivery>,
    /// The bytes queued in the outbox and collected, and their bound. Set while the hub collects.
    bytes_and_max: Option<(usize, usize)>,
}

/// All streams.
#[derive(Debug, Default)]
pub struct OpenStreams {
    slab: Slab<OpenStream>,
    ids: BTreeMap<StreamId, u32>,
    /// Streams with a bound set: [`OpenStreams::flush`] resets them.
    touched: Vec<u32>,
}

impl OpenStreams {
    pub fn open(&mut self, id: StreamId, outbox: Arc<Outbox>, peer: Box<str>) {
        let stream = OpenStream {
            outbox,
            peer,
            watches: BTreeMap::new(),
            next_id: 0,
            progress_requested: false,
            behind: None,
            collected: Vec::new(),
            bytes_and_max: None,
        };
        let at = self.slab.insert(stream);
        self.ids.insert(id, at);
    }

    pub fn close(&mut self, id: StreamId) -> Option<OpenStream> {
        let at = self.ids.remove(&id)?;
        self.slab.remove(at)
    }

    pub fn find(&self, id: StreamId) -> Option<u32> {
        self.ids.get(&id).copied()
    }

    pub fn count(&self) -> usize {
        self.ids.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = &OpenStream> {
        self.slab.iter().map(|(_, stream)| stream)
    }

    /// Collects events for a watch. False: the stream's queue is full.
    pub fn deliver(
        &mut self,
        at: u32,
        events: &EncodedEvents,
        revision: Revision,
        watch_id: i64,
    ) -> bool {
        let OpenStream { outbox, collected, bytes_and_max, .. } = &mut self.slab[at];
        let (bytes, bytes_max) = bytes_and_max.get_or_insert_with(|| {
            self.touched.push(at);
            outbox.queued_bytes_and_max()
        });
        if *bytes > 0 && *bytes >= *bytes_max {
            return false;
        }
        let shared = collected.last_mut().and_then(|last| last.share(events, revision, watch_id));
        *bytes += shared.unwrap_or_else(|| {
            let delivery = Delivery::new(events.clone(), revision, watch_id);
            let bytes = delivery.bytes();
            collected.push(delivery);
            bytes
        });
        true
    }

    /// Puts all collected events into the outboxes.
    pub fn flush(&mut self) {
        for at in self.touched.drain(..) {
            let OpenStream { outbox, collected, bytes_and_max, .. } = &mut self.slab[at];
            *bytes_and_max = None;
            if !collected.is_empty() {
                outbox.deliver(collected.drain(..));
            }
            // One large batch must not leave a large buffer on each stream.
            collected.shrink_to(8);
        }
    }
}

impl std::ops::Index<u32> for OpenStreams {
    type Output = OpenStream;

    fn index(&self, at: u32) -> &OpenStream {
        &self.slab[at]
    }
}

impl std::ops::IndexMut<u32> for OpenStreams {
    fn index_mut(&mut self, at: u32) -> &mut OpenStream {
        &mut self.slab[at]
    }
}

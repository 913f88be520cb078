//! The hub, the state of the watch lane: owns all watches and delivers events to them.
//!
//! `position` is the last revision that the hub has delivered. Every synced watch has delivered all its
//! events up to `position`, or starts later. An unsynced watch becomes synced in the same step that
//! brings it to `position`, so no change can fall between. That last step mostly comes from memory: from
//! the records that the hub delivered last ([`RecentRecords`]).

mod unsynced;

use std::{collections::BTreeSet, sync::Arc};

use tokio::sync::mpsc;

use super::{
    counters::Counters,
    events::{EncodedEvents, Encoder},
    feed::{Feed, FeedBatch},
    groups::WatchGroup,
    messages::{HistoryJob, HubMessage, NewWatch, StreamId},
    open_streams::{OpenStream, OpenStreams},
    options::Options,
    prev_kv::{self, NotInMemory},
    recent_records::RecentRecords,
    registry::{Registry, State},
    response::{CreateError, Response, ResponseKind},
    watch_index::by_keys,
};
use crate::{
    fault::Fault,
    state::{Record, StorageError, View},
    types::{KeyRange, Revision},
};

/// Pairs of a record and watched keys that the hub matches at once, exceeded by at most one revision.
const PAIRS_MAX: usize = 1 << 16;

/// The synced watches whose state must change after a delivery.
#[derive(Debug, Default)]
struct Delivered {
    /// Watches with `progress_notify` that received events.
    with_progress_notify: Vec<u32>,
    /// Watches whose stream is full, and the revision from which they continue.
    full: Vec<(u32, Revision)>,
    /// Watches that need a previous value from disk, and the revision from which they continue.
    need_history: Vec<(u32, Revision)>,
}

/// The groups of a job of the history lane, and the watches of each.
#[derive(Debug)]
pub struct PendingJob {
    groups: Arc<[WatchGroup]>,
    watchers: Vec<Vec<u32>>,
}

#[derive(Debug)]
pub struct Hub {
    options: Options,
    feed: Arc<Feed>,
    view: View,
    history: mpsc::UnboundedSender<HistoryJob>,
    counters: Arc<Counters>,
    fault: Fault,
    position: Revision,
    recent: RecentRecords,
    registry: Registry,
    streams: OpenStreams,
    /// Streams with a progress request that waits.
    progress_requests: BTreeSet<StreamId>,
    /// The job of the history lane. At most one at a time.
    pending_job: Option<PendingJob>,
    /// The next job starts with the oldest unsynced watch, otherwise with the newest. Alternates, so that
    /// neither starves the other.
    oldest_first: bool,
}

impl Hub {
    pub fn new(
        options: Options,
        feed: Arc<Feed>,
        view: View,
        history: mpsc::UnboundedSender<HistoryJob>,
        counters: Arc<Counters>,
        fault: Fault,
    ) -> Hub {
        let position = view.revision();
        Hub {
            options,
            feed,
            view,
            history,
            counters,
            fault,
            position,
            recent: RecentRecords::new(options.limits.recent_bytes),
            registry: Registry::default(),
            streams: OpenStreams::default(),
            progress_requests: BTreeSet::new(),
            pending_job: None,
            oldest_first: true,
        }
    }

    /// Handles all queued messages. A failed read of the disk stops the member.
    pub fn handle(&mut self, messages: &mut Vec<HubMessage>) {
        for message in messages.drain(..) {
            if self.fault.is_stopped() {
                return;
            }
            self.drain_feed();
            if let Err(error) = self.handle_one(message) {
                self.fault.stop(&error);
            }
        }
        self.counters.streams.set(self.streams.count() as u64);
        self.counters.watchers.set(self.registry.count() as u64);
        self.counters.slow_watchers.set(self.registry.slow_count() as u64);
    }

    fn handle_one(&mut self, message: HubMessage) -> Result<(), StorageError> {
        match message {
            // Handled already: the feed is drained before each message.
            HubMessage::Published => {}
            HubMessage::Open(id, outbox, peer) => self.streams.open(id, outbox, peer),
            HubMessage::Create(id, watch) => self.create(id, &watch),
            HubMessage::Cancel(id, watch_id) => self.cancel(id, watch_id),
            HubMessage::Progress(id) => self.progress(id),
            HubMessage::Tick(id) => self.tick(id),
            HubMessage::Drained(id) => self.release_victims(id),
            HubMessage::Close(id) => self.close(id),
            HubMessage::HistoryRead(batch) => self.finish_job(batch)?,
        }
        self.sync_unsynced();
        self.answer_progress_requests();
        Ok(())
    }

    /// Delivers all published changes.
    fn drain_feed(&mut self) {
        while let Some(batch) = self.feed.take(self.options.limits.batch_bytes) {
            match batch {
                FeedBatch::Records(records, revision) => {
                    // The first records may be older than the first watch.
                    let new = records.partition_point(|r| r.meta.id.main <= self.position);
                    let mut rest = &records[new..];
                    while !rest.is_empty() {
                        rest = &rest[self.deliver(rest)..];
                    }
                    self.position = self.position.max(revision);
                }
                FeedBatch::Gap(revision) => self.skip_gap(revision),
            }
        }
    }

    /// Delivers the first of the records, whole revisions. Returns their number.
    fn deliver(&mut self, records: &[Arc<Record>]) -> usize {
        let (pairs, count) = self.registry.index().matching(records, PAIRS_MAX);
        let records = &records[..count];
        let Some(last) = records.last() else { return 0 };
        let delivered = self.deliver_to_synced(records, &pairs);
        self.streams.flush();
        for at in delivered.with_progress_notify {
            self.registry.set_delivered_since_tick(at, true);
        }
        for (at, next) in delivered.full {
            self.make_victim(at, next);
        }
        for (at, next) in delivered.need_history {
            self.registry.set_state(at, State::Unsynced, next);
        }
        self.recent.push(records);
        self.position = self.position.max(last.meta.id.main);
        count
    }

    /// Never waits for the disk: a watch that needs a previous value from disk reads the history.
    fn deliver_to_synced(&mut self, records: &[Arc<Record>], pairs: &[(u32, u32)]) -> Delivered {
        let Hub { registry, streams, view, options, .. } = self;
        let revision = records.last().map_or(self.position, |record| record.meta.id.main);
        let prev_kv = prev_kv::in_memory(view, records, options.limits.read_bytes);
        let mut encoder = Encoder::new(records, &prev_kv, options.fragment_bytes);
        let mut delivered = Delivered::default();
        for (keys_id, positions) in by_keys(pairs) {
            // Most watches on the same keys have the same options.
            let mut last: Option<(_, Result<Option<EncodedEvents>, NotInMemory>)> = None;
            for at in registry.synced_on(keys_id) {
                let Some(watcher) = registry.get(*at) else { continue };
                let from = watcher.next.max(self.position.next());
                let events = match &last {
                    Some((same, events)) if *same == (from, watcher.options) => events,
                    _ => {
                        let events = encoder.encode(&positions, from, watcher.options);
                        &last.insert(((from, watcher.options), events)).1
                    }
                };
                match events {
                    Ok(None) => {}
                    Ok(Some(events)) => {
                        if !streams.deliver(watcher.stream, events, revision, watcher.id) {
                            delivered.full.push((*at, from));
                        } else if watcher.progress_notify {
                            delivered.with_progress_notify.push(*at);
                        }
                    }
                    Err(NotInMemory) => delivered.need_history.push((*at, from)),
                }
            }
        }
        delivered
    }

    /// Makes synced watches read the changes up to `revision` from the history.
    fn skip_gap(&mut self, revision: Revision) {
        if revision <= self.position {
            return;
        }
        for at in self.registry.synced() {
            let next = self.registry.get(at).map_or(self.position, |watcher| watcher.next);
            if next <= revision {
                self.registry.set_state(at, State::Unsynced, next.max(self.position.next()));
            }
        }
        self.position = revision;
        self.recent.clear(revision.next());
    }

    fn create(&mut self, id: StreamId, watch: &NewWatch) {
        let Some(stream) = self.streams.find(id) else { return };
        if self.registry.count() == 0 {
            // In this order: a change published in between reaches the feed, and `position` shows that it
            // is old.
            self.feed.activate();
            self.position = self.view.revision();
            self.recent.clear(self.position.next());
        }
        match self.choose_id(stream, watch) {
            Ok(watch_id) => self.add(stream, watch_id, watch),
            Err(error) => {
                let kind = ResponseKind::CreateFailed(error);
                self.respond(stream, -1, self.position, kind, true);
            }
        }
        self.deactivate_feed_if_idle();
    }

    /// Validates the request, in etcd's order, and chooses the ID of the watch.
    fn choose_id(&mut self, stream: u32, watch: &NewWatch) -> Result<i64, CreateError> {
        if watch.start_revision < Revision::ZERO {
            return Err(CreateError::Compacted);
        }
        if matches!(&watch.keys, KeyRange::Span { start, end } if start >= end) {
            return Err(CreateError::EmptyRange);
        }
        if self.registry.bytes() >= self.options.limits.watches_bytes {
            return Err(CreateError::TooMany);
        }
        let stream = &mut self.streams[stream];
        if watch.watch_id == 0 {
            while stream.watches.contains_key(&stream.next_id) {
                stream.next_id += 1;
            }
            stream.next_id += 1;
            return Ok(stream.next_id - 1);
        }
        match stream.watches.contains_key(&watch.watch_id) {
            true => Err(CreateError::DuplicateId),
            false => Ok(watch.watch_id),
        }
    }

    fn add(&mut self, stream: u32, watch_id: i64, watch: &NewWatch) {
        self.respond(stream, watch_id, self.position, ResponseKind::Created, true);
        let compacted = self.view.compacted();
        let starts_now = watch.start_revision == Revision::ZERO;
        if !starts_now && watch.start_revision < compacted {
            let kind = ResponseKind::Compacted(compacted);
            return self.respond(stream, watch_id, Revision::ZERO, kind, false);
        }
        let now = self.position.next();
        let next = if starts_now { now } else { watch.start_revision };
        let at = self.registry.add(stream, watch_id, watch, next);
        self.streams[stream].watches.insert(watch_id, at);
        if next >= now {
            self.registry.set_state(at, State::Synced, next);
        }
        if starts_now {
            self.registry.set_started(at);
        }
    }

    fn cancel(&mut self, id: StreamId, watch_id: i64) {
        let Some(stream) = self.streams.find(id) else { return };
        match self.streams[stream].watches.remove(&watch_id) {
            Some(at) => {
                self.registry.remove(at);
                self.respond(stream, watch_id, self.position, ResponseKind::Canceled, true);
                self.deactivate_feed_if_idle();
            }
            None => self.streams[stream].outbox.complete_request(),
        }
    }

    fn close(&mut self, id: StreamId) {
        self.progress_requests.remove(&id);
        if let Some(stream) = self.streams.close(id) {
            stream.watches.into_values().for_each(|at| self.registry.remove(at));
            self.deactivate_feed_if_idle();
        }
    }

    fn deactivate_feed_if_idle(&mut self) {
        if self.registry.count() == 0 {
            self.feed.deactivate();
            self.recent.clear(Revision::ZERO);
        }
    }

    fn progress(&mut self, id: StreamId) {
        let Some(at) = self.streams.find(id) else { return };
        let stream = &mut self.streams[at];
        if stream.watches.is_empty() || stream.progress_requested {
            return stream.outbox.complete_request();
        }
        stream.progress_requested = true;
        self.progress_requests.insert(id);
    }

    /// Answers the progress requests of streams whose watches are all up to date.
    fn answer_progress_requests(&mut self) {
        for id in std::mem::take(&mut self.progress_requests) {
            let Some(at) = self.streams.find(id) else { continue };
            let OpenStream { watches, behind, .. } = &self.streams[at];
            // Mostly the same watch as last time is still behind: then the others need no look.
            let last = behind.and_then(|id| watches.get_key_value(&id)).into_iter();
            let behind = last.chain(watches).find(|(_, at)| !self.is_up_to_date(**at));
            let behind = behind.map(|(id, _)| *id);
            if behind.is_some() {
                self.progress_requests.insert(id);
            } else if watches.is_empty() {
                self.streams[at].outbox.complete_request();
            } else {
                self.respond(at, -1, self.position, ResponseKind::Progress, true);
            }
            let stream = &mut self.streams[at];
            (stream.behind, stream.progress_requested) = (behind, behind.is_some());
        }
    }

    /// Whether a watch has delivered everything published, and does not start later: a client may resume
    /// from the revision of a progress message.
    fn is_up_to_date(&self, at: u32) -> bool {
        let now = self.position.next();
        self.registry.get(at).is_some_and(|watcher| {
            let delivered = watcher.next < now || watcher.next == now && watcher.started;
            watcher.state == State::Synced && delivered
        })
    }

    fn tick(&mut self, id: StreamId) {
        let Some(stream) = self.streams.find(id) else { return };
        let (queued, _) = self.streams[stream].outbox.queued_bytes_and_max();
        let watches: Vec<_> =
            self.streams[stream].watches.iter().map(|(id, at)| (*id, *at)).collect();
        for (watch_id, at) in watches {
            let Some(watcher) = self.registry.get(at).filter(|watcher| watcher.progress_notify)
            else {
                continue;
            };
            // A client that does not read needs no further messages.
            if !watcher.delivered_since_tick && queued == 0 && self.is_up_to_date(at) {
                self.respond(stream, watch_id, self.position, ResponseKind::Progress, false);
            }
            self.registry.set_delivered_since_tick(at, false);
        }
    }

    fn respond(
        &self,
        stream: u32,
        watch_id: i64,
        revision: Revision,
        kind: ResponseKind,
        to_request: bool,
    ) {
        self.streams[stream].outbox.respond(Response { watch_id, revision, kind }, to_request);
    }
}

/// Ends the streams that are still open when the lane stops.
impl Drop for Hub {
    fn drop(&mut self) {
        self.streams.iter().for_each(|stream| stream.outbox.close());
    }
}

//! The watch lane: it owns all watches, and brings each what it is to hear of.
//!
//! `position` is how far the hub has passed on what the state published. Every synced watch has
//! heard of all up to there, or starts later. A slow one becomes synced when it has come as far, in one
//! go with the last step, so that nothing can come in between; mostly that is taken from what the hub
//! itself passed on last ([`Recent`]).

mod behind;

use std::{collections::BTreeSet, sync::Arc};

use tokio::sync::mpsc;

use self::behind::Reading;
use super::{
    Options,
    before::{ForHistory, remembered},
    counters::Counters,
    events::{Encoder, Events},
    feed::{Feed, News},
    history::{Found, Job},
    outbox::Outbox,
    recent::Recent,
    registry::{Registry, State},
    response::{Kind, Refusal, Response},
    stream::{NewWatch, StreamId},
    streams::{Stream, Streams},
    topics::{Keys, by_topic},
};
use crate::{
    fault::Fault,
    state::{ReadError, Record, StorageError, View},
    types::{KeyRange, Revision},
};

/// So many pairs of a change and some keys that are watched are looked at together, and a revision's.
const PAIRS_MAX: usize = 1 << 16;

/// What the lane is told. Never more than a stream has requests outstanding, and a few of each other
/// kind for each stream.
#[derive(Debug)]
pub(super) enum Command {
    /// The feed has news.
    Published,
    Open(StreamId, Arc<Outbox>, Box<str>),
    Create(StreamId, Box<NewWatch>),
    Cancel(StreamId, i64),
    Progress(StreamId),
    Tick(StreamId),
    /// The stream, which was full, has room.
    Room(StreamId),
    Close(StreamId),
    /// The history lane's answer to the last job.
    Read(Result<Found, ReadError>),
}

/// What became of those who were told something, or were to be.
#[derive(Debug, Default)]
struct Passed {
    /// They tell of progress, and were told.
    told: Vec<u32>,
    /// Their stream is full; and where they go on.
    full: Vec<(u32, Revision)>,
    /// The history is to tell them; from where on.
    behind: Vec<(u32, Revision)>,
}

/// The lane's state.
#[derive(Debug)]
pub(super) struct Hub {
    options: Options,
    feed: Arc<Feed>,
    view: View,
    history: mpsc::UnboundedSender<Job>,
    counters: Arc<Counters>,
    fault: Fault,
    position: Revision,
    recent: Recent,
    registry: Registry,
    streams: Streams,
    /// Streams that wait to be told their progress.
    asked: BTreeSet<StreamId>,
    /// What the history lane is at. One job at a time.
    reading: Option<Reading>,
    /// Who is furthest behind is next; else who is closest: in turns, so that neither waits for
    /// ever for the other.
    furthest_is_next: bool,
}

impl Hub {
    pub(super) fn new(
        options: Options,
        feed: Arc<Feed>,
        view: View,
        history: mpsc::UnboundedSender<Job>,
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
            recent: Recent::new(options.limits.recent_bytes),
            registry: Registry::default(),
            streams: Streams::default(),
            asked: BTreeSet::new(),
            reading: None,
            furthest_is_next: true,
        }
    }

    /// Handles all that waits. What the disk cannot give stops the member.
    pub(super) fn handle(&mut self, commands: &mut Vec<Command>) {
        for command in commands.drain(..) {
            if self.fault.is_stopped() {
                return;
            }
            self.catch_up();
            if let Err(error) = self.command(command) {
                self.fault.stop(&error);
            }
        }
        self.counters.streams.set(self.streams.count() as u64);
        self.counters.watchers.set(self.registry.count() as u64);
        self.counters.slow.set(self.registry.behind() as u64);
    }

    fn command(&mut self, command: Command) -> Result<(), StorageError> {
        match command {
            // Before each command.
            Command::Published => {}
            Command::Open(id, outbox, peer) => self.streams.open(id, outbox, peer),
            Command::Create(id, watch) => self.create(id, *watch),
            Command::Cancel(id, watch_id) => self.cancel(id, watch_id),
            Command::Progress(id) => self.progress(id),
            Command::Tick(id) => self.tick(id),
            Command::Room(id) => self.unpark(id),
            Command::Close(id) => self.close(id),
            Command::Read(read) => self.read(read)?,
        }
        self.bring_forward();
        self.answer_asked();
        Ok(())
    }

    /// Passes on what was published.
    fn catch_up(&mut self) {
        while let Some(news) = self.feed.take(self.options.limits.pass_bytes) {
            match news {
                News::Records(records, revision) => {
                    // The first ones may be older than the first watch.
                    let new = records.partition_point(|r| r.meta.id.main <= self.position);
                    let mut rest = &records[new..];
                    while !rest.is_empty() {
                        rest = &rest[self.pass_on(rest)..];
                    }
                    self.position = self.position.max(revision);
                }
                News::Lost(revision) => self.lose(revision),
            }
        }
    }

    /// Passes on some of the records, and says how many: whole revisions.
    fn pass_on(&mut self, records: &[Arc<Record>]) -> usize {
        let (matching, count) = self.registry.index().matching(records, PAIRS_MAX);
        let records = &records[..count];
        let Some(last) = records.last() else { return 0 };
        let Passed { told, full, behind } = self.tell(records, &matching);
        self.streams.send();
        told.into_iter().for_each(|at| self.registry.set_told(at, true));
        full.into_iter().for_each(|(at, next)| self.park(at, next));
        behind.into_iter().for_each(|(at, next)| self.registry.place(at, State::Slow, next));
        self.recent.push(records);
        self.position = self.position.max(last.meta.id.main);
        count
    }

    /// Tells the synced watches. Never waits for the disk: who wants to know what was there before, and
    /// it is not in memory, reads the history.
    fn tell(&mut self, records: &[Arc<Record>], matching: &[(u32, u32)]) -> Passed {
        let Hub { registry, streams, view, options, .. } = self;
        let revision = records.last().map_or(self.position, |record| record.meta.id.main);
        let previous = remembered(view, records, options.limits.read_bytes);
        let mut encoder = Encoder::new(records, &previous, options.fragment_bytes);
        let mut passed = Passed::default();
        for (topic, which) in by_topic(matching) {
            // Most watches of a topic want the same.
            let mut last: Option<(_, Result<Option<Events>, ForHistory>)> = None;
            for at in registry.synced_of(topic) {
                let Some(watcher) = registry.get(*at) else { continue };
                let from = watcher.next.max(self.position.next());
                let events = match &last {
                    Some((same, events)) if *same == (from, watcher.wants) => events,
                    _ => {
                        let events = encoder.encode(&which, from, watcher.wants);
                        &last.insert(((from, watcher.wants), events)).1
                    }
                };
                match events {
                    Ok(None) => {}
                    Ok(Some(events)) => {
                        if !streams.deliver(watcher.stream, events, revision, watcher.id) {
                            passed.full.push((*at, from));
                        } else if watcher.progress {
                            passed.told.push(*at);
                        }
                    }
                    Err(ForHistory) => passed.behind.push((*at, from)),
                }
            }
        }
        passed
    }

    /// What was published up to `revision` must be read from the history.
    fn lose(&mut self, revision: Revision) {
        if revision <= self.position {
            return;
        }
        for at in self.registry.synced() {
            let next = self.registry.get(at).map_or(self.position, |watcher| watcher.next);
            if next <= revision {
                self.registry.place(at, State::Slow, next.max(self.position.next()));
            }
        }
        self.position = revision;
        self.recent.clear(revision.next());
    }

    fn create(&mut self, id: StreamId, watch: NewWatch) {
        let Some(stream) = self.streams.find(id) else { return };
        if self.registry.count() == 0 {
            // In this order: what is published in between is passed on, and known to be old.
            self.feed.activate();
            self.position = self.view.revision();
            self.recent.clear(self.position.next());
        }
        match self.choose_id(stream, &watch) {
            Ok(watch_id) => self.add(stream, watch_id, &watch),
            Err(refusal) => self.respond(stream, -1, self.position, Kind::Refused(refusal), true),
        }
        self.rest_if_unwatched();
    }

    /// Checks in etcd's order.
    fn choose_id(&mut self, stream: u32, watch: &NewWatch) -> Result<i64, Refusal> {
        if watch.start < Revision::ZERO {
            return Err(Refusal::Compacted);
        }
        if matches!(&watch.keys, KeyRange::Span { start, end } if start >= end) {
            return Err(Refusal::EmptyRange);
        }
        if self.registry.bytes() >= self.options.limits.watches_bytes {
            return Err(Refusal::TooMany);
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
            true => Err(Refusal::DuplicateId),
            false => Ok(watch.watch_id),
        }
    }

    fn add(&mut self, stream: u32, watch_id: i64, watch: &NewWatch) {
        self.respond(stream, watch_id, self.position, Kind::Created, true);
        let compacted = self.view.compacted();
        let starts_now = watch.start == Revision::ZERO;
        if !starts_now && watch.start < compacted {
            let kind = Kind::Compacted(compacted);
            return self.respond(stream, watch_id, Revision::ZERO, kind, false);
        }
        let now = self.position.next();
        let next = if starts_now { now } else { watch.start };
        let NewWatch { wants, progress, .. } = *watch;
        let keys = Keys::of(&watch.keys);
        let at = self.registry.add(stream, watch_id, keys, wants, progress, next);
        self.streams[stream].watches.insert(watch_id, at);
        if next >= now {
            self.registry.place(at, State::Synced, next);
        }
        if starts_now {
            self.registry.set_begun(at);
        }
    }

    fn cancel(&mut self, id: StreamId, watch_id: i64) {
        let Some(stream) = self.streams.find(id) else { return };
        match self.streams[stream].watches.remove(&watch_id) {
            Some(at) => {
                self.registry.remove(at);
                self.respond(stream, watch_id, self.position, Kind::Canceled, true);
                self.rest_if_unwatched();
            }
            None => self.streams[stream].outbox.no_answer(),
        }
    }

    fn close(&mut self, id: StreamId) {
        self.asked.remove(&id);
        if let Some(stream) = self.streams.close(id) {
            stream.watches.into_values().for_each(|at| self.registry.remove(at));
            self.rest_if_unwatched();
        }
    }

    fn rest_if_unwatched(&mut self) {
        if self.registry.count() == 0 {
            self.feed.deactivate();
            self.recent.clear(Revision::ZERO);
        }
    }

    fn progress(&mut self, id: StreamId) {
        let Some(at) = self.streams.find(id) else { return };
        let stream = &mut self.streams[at];
        if stream.watches.is_empty() || stream.progress_asked {
            return stream.outbox.no_answer();
        }
        stream.progress_asked = true;
        self.asked.insert(id);
    }

    /// Tells those their progress who asked and whose watches have all come as far as the store.
    fn answer_asked(&mut self) {
        for id in std::mem::take(&mut self.asked) {
            let Some(at) = self.streams.find(id) else { continue };
            let Stream { watches, awaited, .. } = &self.streams[at];
            // Mostly it is the same one as last time: so the others are not looked at.
            let last = awaited.and_then(|id| watches.get_key_value(&id)).into_iter();
            let behind = last.chain(watches).find(|(_, watcher)| !self.is_level(**watcher));
            let behind = behind.map(|(id, _)| *id);
            if behind.is_some() {
                self.asked.insert(id);
            } else if watches.is_empty() {
                self.streams[at].outbox.no_answer();
            } else {
                self.respond(at, -1, self.position, Kind::Progress, true);
            }
            let stream = &mut self.streams[at];
            (stream.awaited, stream.progress_asked) = (behind, behind.is_some());
        }
    }

    /// Whether a watch has heard of all that was published, and does not start later: a client may
    /// take a revision that it is told as one to go on from.
    fn is_level(&self, at: u32) -> bool {
        let level = self.position.next();
        self.registry.get(at).is_some_and(|watcher| {
            let heard = watcher.next < level || watcher.next == level && watcher.begun;
            watcher.state == State::Synced && heard
        })
    }

    fn tick(&mut self, id: StreamId) {
        let Some(stream) = self.streams.find(id) else { return };
        let (waiting, _) = self.streams[stream].outbox.room();
        let watches: Vec<_> =
            self.streams[stream].watches.iter().map(|(id, at)| (*id, *at)).collect();
        for (watch_id, at) in watches {
            let Some(watcher) = self.registry.get(at).filter(|watcher| watcher.progress) else {
                continue;
            };
            // Who does not read needs no more to read.
            if !watcher.told && waiting == 0 && self.is_level(at) {
                self.respond(stream, watch_id, self.position, Kind::Progress, false);
            }
            self.registry.set_told(at, false);
        }
    }

    fn respond(&self, stream: u32, watch_id: i64, revision: Revision, kind: Kind, answer: bool) {
        self.streams[stream].outbox.respond(Response { watch_id, revision, kind }, answer);
    }
}

/// Streams that outlive the lane end.
impl Drop for Hub {
    fn drop(&mut self) {
        self.streams.iter().for_each(|stream| stream.outbox.close());
    }
}

//! Random histories, random watches, and clients that stall: every watch delivers exactly its events.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proptest::{collection::vec, prelude::*, sample::select};

use super::rig::{Rig, events};
use crate::{
    proto::mvccpb::{self, event::EventType},
    types::*,
    watch::{EventOptions, Limits, NewWatch, Response, ResponseKind},
};

const STREAMS: [&str; 3] = ["one", "two", "three"];
const KEYS: [&str; 6] = ["a", "b", "ba", "c", "d", "e"];

/// One step of a test run.
#[derive(Debug, Clone)]
enum Step {
    /// One revision: puts with values of this size, and deletions.
    Write(Vec<(&'static str, Option<usize>)>),
    Delete(KeyRange),
    Publish,
    /// Holds published changes back from the watch lane; readers see them.
    Pause(bool),
    Compact {
        back: i64,
    },
    Prune,
    Install(Vec<&'static str>),
    /// Values are on disk only from now on.
    Evict,
    Watch {
        stream: usize,
        watch: NewWatch,
        back: i64,
    },
    Cancel {
        stream: usize,
        id: i64,
    },
    Progress {
        stream: usize,
    },
    Tick {
        stream: usize,
    },
    Read {
        stream: usize,
        messages: usize,
    },
    Run {
        turns: usize,
    },
    Reopen {
        stream: usize,
    },
}

fn key_range() -> impl Strategy<Value = KeyRange> {
    let key = || select(&KEYS[..]).prop_map(Bytes::from);
    prop_oneof![
        3 => key().prop_map(KeyRange::One),
        3 => (key(), key()).prop_map(|(start, end)| KeyRange::Span { start, end }),
        1 => key().prop_map(KeyRange::From),
    ]
}

fn new_watch() -> impl Strategy<Value = NewWatch> {
    let rarely = || prop::bool::weighted(0.2);
    (key_range(), rarely(), rarely(), any::<bool>(), rarely(), any::<bool>(), 0i64..4).prop_map(
        |(keys, no_put, no_delete, prev_kv, fragment, progress_notify, id)| NewWatch {
            watch_id: if id == 3 { 5 } else { 0 },
            keys,
            start_revision: Revision::ZERO,
            options: EventOptions { no_put, no_delete, prev_kv, fragment },
            progress_notify,
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let write = (select(&KEYS[..]), prop::option::weighted(0.8, select(vec![0, 1, 30, 400, 2500])));
    let stream = || 0..STREAMS.len();
    prop_oneof![
        12 => vec(write, 1..4).prop_map(Step::Write),
        2 => key_range().prop_map(Step::Delete),
        8 => Just(Step::Publish),
        2 => any::<bool>().prop_map(Step::Pause),
        1 => (0i64..20).prop_map(|back| Step::Compact { back }),
        1 => Just(Step::Prune),
        1 => vec(select(&KEYS[..]), 0..4).prop_map(Step::Install),
        1 => Just(Step::Evict),
        5 => (stream(), new_watch(), prop_oneof![Just(0), -3i64..30])
            .prop_map(|(stream, watch, back)| Step::Watch { stream, watch, back }),
        1 => (stream(), 0i64..8).prop_map(|(stream, id)| Step::Cancel { stream, id }),
        2 => stream().prop_map(|stream| Step::Progress { stream }),
        2 => stream().prop_map(|stream| Step::Tick { stream }),
        6 => (stream(), 1usize..6).prop_map(|(stream, messages)| Step::Read { stream, messages }),
        8 => prop_oneof![Just(500usize), 1usize..6].prop_map(|turns| Step::Run { turns }),
        1 => stream().prop_map(|stream| Step::Reopen { stream }),
    ]
}

/// One change of one key.
#[derive(Debug, Clone, PartialEq)]
struct Change {
    deleted: bool,
    kv: mvccpb::KeyValue,
    prev_kv: Option<mvccpb::KeyValue>,
}

/// A model of the store: the present keys and all past changes.
#[derive(Debug, Default)]
struct Model {
    keys: BTreeMap<Bytes, mvccpb::KeyValue>,
    changes: Vec<Change>,
    revision: i64,
    compacted: i64,
}

impl Model {
    fn write(&mut self, key: &Bytes, value: Option<Bytes>, revision: i64) {
        let prev_kv = self.keys.get(key).cloned();
        let kv = match value {
            Some(value) => mvccpb::KeyValue {
                key: key.clone(),
                value,
                create_revision: prev_kv.as_ref().map_or(revision, |kv| kv.create_revision),
                mod_revision: revision,
                version: prev_kv.as_ref().map_or(1, |kv| kv.version + 1),
                lease: 0,
            },
            None => mvccpb::KeyValue {
                key: key.clone(),
                mod_revision: revision,
                ..mvccpb::KeyValue::default()
            },
        };
        let deleted = kv.version == 0;
        match deleted {
            true => self.keys.remove(key),
            false => self.keys.insert(key.clone(), kv.clone()),
        };
        self.changes.push(Change { deleted, kv, prev_kv });
    }

    /// Applies one revision to the model, and returns it as a command.
    fn revise(&mut self, writes: Vec<(Bytes, Option<Bytes>)>) -> Command {
        let mut success = Vec::new();
        let next = self.revision + 1;
        for (key, value) in writes {
            let keys = KeyRange::One(key.clone());
            success.push(match &value {
                Some(value) => {
                    TxnOp::Put(Put { key: key.clone(), value: value.clone(), ..Put::default() })
                }
                None => TxnOp::DeleteRange(DeleteRange { keys, prev_kv: false }),
            });
            if value.is_some() || self.keys.contains_key(&key) {
                self.write(&key, value, next);
                self.revision = next;
            }
        }
        Command::Txn(Txn { success, ..Txn::default() })
    }

    fn delete(&mut self, range: &KeyRange) {
        let next = self.revision + 1;
        let gone: Vec<_> = self.keys.keys().filter(|key| holds(range, key)).cloned().collect();
        for key in gone {
            self.write(&key, None, next);
            self.revision = next;
        }
    }
}

fn holds(range: &KeyRange, key: &Bytes) -> bool {
    match range {
        KeyRange::One(one) => key == one,
        KeyRange::Span { start, end } => key >= start && key < end,
        KeyRange::From(start) => key >= start,
    }
}

/// The events of a watch that its client has received.
#[derive(Debug)]
struct Received {
    watch: NewWatch,
    /// The first revision that the watch must deliver.
    from: i64,
    events: Vec<Change>,
    /// The watch has claimed to be complete up to this revision.
    through: i64,
    in_fragments: bool,
}

/// The client of a stream.
#[derive(Debug, Default)]
struct Client {
    /// Watches that were requested and not created yet.
    requested: Vec<NewWatch>,
    watches: BTreeMap<i64, Received>,
}

impl Client {
    fn receive(&mut self, model: &Model, response: &Response) {
        let Response { watch_id: id, revision, kind } = response;
        match kind {
            ResponseKind::Created => {
                let watch = self.requested.remove(0);
                let from = if watch.start_revision.0 == 0 {
                    revision.0 + 1
                } else {
                    watch.start_revision.0
                };
                let (events, through) = (Vec::new(), from - 1);
                let received = Received { watch, from, events, through, in_fragments: false };
                assert!(self.watches.insert(*id, received).is_none(), "{id} is used twice");
            }
            ResponseKind::CreateFailed(_) => drop(self.requested.remove(0)),
            ResponseKind::Canceled => self.watches.remove(id).unwrap().check(model),
            ResponseKind::Compacted(compacted) => {
                let received = self.watches.remove(id).unwrap();
                assert!(
                    received.through + 1 < compacted.0,
                    "{received:?} is canceled at {compacted}"
                );
                received.check(model);
            }
            ResponseKind::Progress if *id == -1 => {
                assert!(!self.watches.is_empty());
                self.watches.values_mut().for_each(|received| received.progress(model, revision.0));
            }
            ResponseKind::Progress => {
                let received = self.watches.get_mut(id).unwrap();
                assert!(received.watch.progress_notify);
                received.progress(model, revision.0);
            }
            ResponseKind::Events { fragment, .. } => {
                let received = self.watches.get_mut(id).unwrap();
                received.events.extend(events(response).into_iter().map(change));
                received.in_fragments = *fragment;
                if *fragment {
                    assert!(received.watch.options.fragment);
                } else {
                    received.progress(model, revision.0);
                }
            }
        }
    }
}

fn change(event: mvccpb::Event) -> Change {
    let deleted = event.r#type == EventType::Delete as i32;
    Change { deleted, kv: event.kv.unwrap(), prev_kv: event.prev_kv }
}

impl Received {
    /// The watch claims to be complete up to this revision: checks the claim.
    fn progress(&mut self, model: &Model, revision: i64) {
        assert!(!self.in_fragments);
        assert!(revision >= self.through, "{self:?} goes back to {revision}");
        self.through = revision;
        self.check(model);
    }

    fn check(&self, model: &Model) {
        let EventOptions { no_put, no_delete, prev_kv, .. } = self.watch.options;
        let expected = model.changes.iter().filter(|change| {
            holds(&self.watch.keys, &change.kv.key)
                && (self.from..=self.through).contains(&change.kv.mod_revision)
                && !(if change.deleted { no_delete } else { no_put })
        });
        let expected: Vec<_> = expected.collect();
        assert_eq!(self.events.len(), expected.len(), "{self:#?}\nexpected {expected:#?}");
        for (received, expected) in self.events.iter().zip(expected) {
            assert_eq!((received.deleted, &received.kv), (expected.deleted, &expected.kv));
            let compacted = expected.kv.mod_revision - 1 < model.compacted;
            match &received.prev_kv {
                Some(_) => assert!(prev_kv && received.prev_kv == expected.prev_kv),
                None => assert!(!prev_kv || expected.prev_kv.is_none() || compacted),
            }
        }
    }
}

struct World {
    rig: Rig,
    model: Model,
    clients: BTreeMap<usize, Client>,
    limits: Limits,
}

impl World {
    fn new() -> World {
        let limits = Limits {
            feed_bytes: 6 << 10,
            batch_bytes: 1 << 10,
            recent_bytes: 1 << 10,
            read_bytes: 1 << 10,
            stream_bytes: 2 << 10,
            all_streams_bytes: 12 << 10,
            watches_bytes: 1 << 20,
        };
        let mut rig = Rig::new(limits, 1 << 10);
        STREAMS.iter().for_each(|name| rig.open(name));
        let clients = (0..STREAMS.len()).map(|at| (at, Client::default())).collect();
        let model = Model { revision: 1, compacted: -1, ..Model::default() };
        World { rig, model, clients, limits }
    }

    fn run(&mut self, step: Step, number: usize) {
        match step {
            Step::Write(writes) => {
                let mut keys = BTreeSet::new();
                let writes = writes.into_iter().filter(|(key, _)| keys.insert(*key));
                let value = |bytes| Bytes::from(format!("{number:-<bytes$}"));
                let writes = writes.map(|(key, bytes)| (key.into(), bytes.map(value))).collect();
                let command = self.model.revise(writes);
                self.apply(command);
            }
            Step::Delete(keys) => {
                self.model.delete(&keys);
                self.apply(Command::DeleteRange(DeleteRange { keys, prev_kv: false }));
            }
            Step::Publish => self.rig.publish(),
            Step::Pause(paused) => self.rig.set_paused(paused),
            Step::Compact { back } => {
                let revision = self.model.revision - back;
                if revision > self.model.compacted && revision > 0 {
                    self.model.compacted = revision;
                    self.apply(Command::Compact(Revision(revision)));
                }
            }
            Step::Prune => drop(self.rig.prune()),
            Step::Install(keys) => {
                // Another member takes a snapshot of published changes only.
                self.rig.publish();
                let value = Bytes::from(number.to_string());
                let write = |key: &str| vec![(key.to_owned().into(), Some(value.clone()))];
                let more = keys.into_iter().map(|key| self.model.revise(write(key)));
                let more = more.collect();
                self.rig.install_snapshot(more);
            }
            Step::Evict => self.rig.evict(),
            Step::Watch { stream, mut watch, back } => {
                if back != 0 {
                    watch.start_revision = Revision((self.model.revision - back).max(1));
                }
                if self.rig.is_ready(STREAMS[stream]) {
                    self.rig.create(STREAMS[stream], watch.clone());
                    self.client(stream).requested.push(watch);
                }
            }
            Step::Cancel { stream, id } => self.rig.stream(STREAMS[stream]).cancel(id),
            Step::Progress { stream } => self.rig.stream(STREAMS[stream]).progress(),
            Step::Tick { stream } => self.rig.stream(STREAMS[stream]).tick(),
            Step::Read { stream, messages } => drop(self.read(stream, messages)),
            Step::Run { turns } => self.rig.step(turns),
            Step::Reopen { stream } => {
                self.rig.close(STREAMS[stream]);
                self.rig.open(STREAMS[stream]);
                *self.client(stream) = Client::default();
            }
        }
        assert!(!self.rig.fault.is_stopped());
        let queued = self.rig.watches.counters().queued_bytes.get() as usize;
        // Beyond the bound, each stream may have one delivery: at most one batch and one revision, with
        // previous values.
        let largest = 2 * self.limits.read_bytes + 6 * 2600;
        assert!(queued <= self.limits.all_streams_bytes + STREAMS.len() * largest, "{queued}");
    }

    fn apply(&mut self, command: Command) {
        self.rig.apply(command).unwrap();
    }

    fn client(&mut self, stream: usize) -> &mut Client {
        self.clients.get_mut(&stream).unwrap()
    }

    /// Returns whether the stream had a message.
    fn read(&mut self, stream: usize, messages: usize) -> bool {
        let mut any = false;
        for _ in 0..messages {
            let Some(response) = self.rig.next(STREAMS[stream]) else { break };
            let response = response.expect("the stream goes on");
            self.clients.get_mut(&stream).unwrap().receive(&self.model, &response);
            any = true;
        }
        any
    }

    /// Reads everything, and requests progress to check that it is complete.
    fn finish(mut self) {
        self.rig.publish();
        self.rig.set_paused(false);
        self.drain();
        for (stream, name) in STREAMS.iter().enumerate() {
            // A progress request waits for watches that start later: cancel those.
            let watches = self.clients[&stream].watches.iter();
            let later = watches
                .filter(|(_, received)| {
                    received.watch.start_revision > Revision(self.model.revision)
                })
                .map(|(id, _)| *id);
            later.for_each(|id| self.rig.stream(name).cancel(id));
            self.rig.stream(name).progress();
        }
        self.drain();
        for client in self.clients.values() {
            assert!(client.requested.is_empty(), "no response to {:?}", client.requested);
            for received in client.watches.values() {
                assert_eq!(received.through, self.model.revision, "{received:?} stayed behind");
            }
        }
        let counters = self.rig.watches.counters();
        assert_eq!((counters.queued_bytes.get(), counters.pending_events.get()), (0, 0));
        assert_eq!(counters.slow_watchers.get(), 0);
    }

    fn drain(&mut self) {
        loop {
            self.rig.settle();
            let mut any = false;
            for stream in 0..STREAMS.len() {
                any |= self.read(stream, usize::MAX);
            }
            if !any {
                return;
            }
        }
    }
}

/// Reads a watch that starts in the past up to the present. Returns the revisions of each message.
fn read_past(
    revisions: &[(usize, usize)],
    options: EventOptions,
    evicted: bool,
) -> (Vec<Vec<i64>>, Limits) {
    let World { mut rig, mut model, limits, .. } = World::new();
    for (keys, bytes) in revisions {
        let value = Bytes::from(vec![b'v'; *bytes]);
        let writes = KEYS.iter().take(*keys);
        let writes = writes.map(|key| (Bytes::from(*key), Some(value.clone()))).collect();
        rig.apply(model.revise(writes)).unwrap();
        rig.publish();
    }
    if evicted {
        rig.evict();
    }
    let keys = KeyRange::From("a".into());
    let start_revision = Revision(2);
    let watch = NewWatch { watch_id: 0, keys, start_revision, options, progress_notify: false };
    rig.create(STREAMS[0], watch);
    let mut messages = Vec::new();
    loop {
        rig.settle();
        let Some(Some(response)) = rig.next(STREAMS[0]) else { return (messages, limits) };
        let revisions = events(&response).into_iter().map(|e| e.kv.unwrap().mod_revision);
        messages.extend(
            matches!(response.kind, ResponseKind::Events { .. }).then(|| revisions.collect()),
        );
    }
}

proptest! {
    /// Fewer and larger messages are cheaper for both sides.
    #[test]
    fn a_watch_of_the_past_gets_as_many_revisions_in_a_message_as_the_bounds_allow(
        revisions in vec((1..4usize, select(vec![0, 10, 300, 1500])), 1..60),
        prev_kv: bool,
        evicted: bool,
    ) {
        let options = EventOptions { prev_kv, ..EventOptions::default() };
        let (messages, limits) = read_past(&revisions, options, evicted);
        let expected = revisions.iter().zip(2i64..);
        let expected = expected.flat_map(|((keys, _), revision)| std::iter::repeat_n(revision, *keys));
        prop_assert_eq!(messages.concat(), expected.collect::<Vec<_>>());
        for (message, next) in messages.iter().zip(&messages[1..]) {
            prop_assert!(message.last() < next.first(), "a revision in two messages");
            // Keys and values, with previous values: only after a full message may another follow.
            let bytes_of = |revision: &i64| revisions[*revision as usize - 2].1 + "ba".len();
            let bytes: usize = message.iter().map(bytes_of).sum();
            let prev_kvs = if prev_kv { 1500 * message.len() } else { 0 };
            prop_assert!(bytes + prev_kvs >= limits.read_bytes, "{} bytes, and more follow", bytes);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn every_watch_delivers_all_its_events_once_and_in_order(steps in vec(step(), 1..120)) {
        let mut world = World::new();
        for (number, step) in steps.into_iter().enumerate() {
            world.run(step, number);
        }
        world.finish();
    }
}

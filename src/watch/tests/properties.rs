//! Random histories, random watches of them, clients that stall: every watch hears what it should.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proptest::{collection::vec, prelude::*, sample::select};

use super::rig::{Rig, events};
use crate::{
    proto::mvccpb::{self, event::EventType},
    types::*,
    watch::{Kind, Limits, NewWatch, Response, Wants},
};

const STREAMS: [&str; 3] = ["one", "two", "three"];
const KEYS: [&str; 6] = ["a", "b", "ba", "c", "d", "e"];

/// What happens.
#[derive(Debug, Clone)]
enum Step {
    /// One revision: puts of so many bytes, deletions of ranges.
    Write(Vec<(&'static str, Option<usize>)>),
    Delete(KeyRange),
    Publish,
    /// The lane hears of what is published later than readers.
    Late(bool),
    Compact {
        back: i64,
    },
    Prune,
    Install(Vec<&'static str>),
    /// From now on values are on disk.
    Chill,
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
        |(keys, no_puts, no_deletions, previous, fragments, progress, id)| NewWatch {
            watch_id: if id == 3 { 5 } else { 0 },
            keys,
            start: Revision::ZERO,
            wants: Wants { no_puts, no_deletions, previous, fragments },
            progress,
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
        2 => any::<bool>().prop_map(Step::Late),
        1 => (0i64..20).prop_map(|back| Step::Compact { back }),
        1 => Just(Step::Prune),
        1 => vec(select(&KEYS[..]), 0..4).prop_map(Step::Install),
        1 => Just(Step::Chill),
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
    before: Option<mvccpb::KeyValue>,
}

/// What a store is and was.
#[derive(Debug, Default)]
struct Model {
    keys: BTreeMap<Bytes, mvccpb::KeyValue>,
    changes: Vec<Change>,
    revision: i64,
    compacted: i64,
}

impl Model {
    fn write(&mut self, key: &Bytes, value: Option<Bytes>, revision: i64) {
        let before = self.keys.get(key).cloned();
        let kv = match value {
            Some(value) => mvccpb::KeyValue {
                key: key.clone(),
                value,
                create_revision: before.as_ref().map_or(revision, |kv| kv.create_revision),
                mod_revision: revision,
                version: before.as_ref().map_or(1, |kv| kv.version + 1),
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
        self.changes.push(Change { deleted, kv, before });
    }

    /// The command, and its effect.
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

/// What a client knows of a watch.
#[derive(Debug)]
struct Heard {
    watch: NewWatch,
    /// The first revision it is to hear of.
    from: i64,
    events: Vec<Change>,
    /// It was told that this is all up to here.
    through: i64,
    in_fragments: bool,
}

/// A stream as its client sees it.
#[derive(Debug, Default)]
struct Client {
    /// Asked for, and not answered.
    asked: Vec<NewWatch>,
    watches: BTreeMap<i64, Heard>,
}

impl Client {
    fn hear(&mut self, model: &Model, response: &Response) {
        let Response { watch_id: id, revision, kind } = response;
        match kind {
            Kind::Created => {
                let watch = self.asked.remove(0);
                let from = if watch.start.0 == 0 { revision.0 + 1 } else { watch.start.0 };
                let (events, through) = (Vec::new(), from - 1);
                let heard = Heard { watch, from, events, through, in_fragments: false };
                assert!(self.watches.insert(*id, heard).is_none(), "{id} is used twice");
            }
            Kind::Refused(_) => drop(self.asked.remove(0)),
            Kind::Canceled => self.watches.remove(id).unwrap().check(model),
            Kind::Compacted(compacted) => {
                let heard = self.watches.remove(id).unwrap();
                assert!(heard.through + 1 < compacted.0, "{heard:?} is cut off at {compacted}");
                heard.check(model);
            }
            Kind::Progress if *id == -1 => {
                assert!(!self.watches.is_empty());
                self.watches.values_mut().for_each(|heard| heard.progress(model, revision.0));
            }
            Kind::Progress => {
                let heard = self.watches.get_mut(id).unwrap();
                assert!(heard.watch.progress);
                heard.progress(model, revision.0);
            }
            Kind::Events { more, .. } => {
                let heard = self.watches.get_mut(id).unwrap();
                heard.events.extend(events(response).into_iter().map(change));
                heard.in_fragments = *more;
                if *more {
                    assert!(heard.watch.wants.fragments);
                } else {
                    heard.progress(model, revision.0);
                }
            }
        }
    }
}

fn change(event: mvccpb::Event) -> Change {
    let deleted = event.r#type == EventType::Delete as i32;
    Change { deleted, kv: event.kv.unwrap(), before: event.prev_kv }
}

impl Heard {
    /// All up to this revision was told: then it must be so.
    fn progress(&mut self, model: &Model, revision: i64) {
        assert!(!self.in_fragments);
        assert!(revision >= self.through, "{self:?} goes back to {revision}");
        self.through = revision;
        self.check(model);
    }

    fn check(&self, model: &Model) {
        let Wants { no_puts, no_deletions, previous, .. } = self.watch.wants;
        let expected = model.changes.iter().filter(|change| {
            holds(&self.watch.keys, &change.kv.key)
                && (self.from..=self.through).contains(&change.kv.mod_revision)
                && !(if change.deleted { no_deletions } else { no_puts })
        });
        let expected: Vec<_> = expected.collect();
        assert_eq!(self.events.len(), expected.len(), "{self:#?}\nexpected {expected:#?}");
        for (heard, expected) in self.events.iter().zip(expected) {
            assert_eq!((heard.deleted, &heard.kv), (expected.deleted, &expected.kv));
            let compacted = expected.kv.mod_revision - 1 < model.compacted;
            match &heard.before {
                Some(_) => assert!(previous && heard.before == expected.before),
                None => assert!(!previous || expected.before.is_none() || compacted),
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
            pass_bytes: 1 << 10,
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

    fn happen(&mut self, step: Step, number: usize) {
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
            Step::Late(late) => self.rig.set_late(late),
            Step::Compact { back } => {
                let revision = self.model.revision - back;
                if revision > self.model.compacted && revision > 0 {
                    self.model.compacted = revision;
                    self.apply(Command::Compact(Revision(revision)));
                }
            }
            Step::Prune => drop(self.rig.prune()),
            Step::Install(keys) => {
                // A snapshot is of what was published, by somebody.
                self.rig.publish();
                let value = Bytes::from(number.to_string());
                let write = |key: &str| vec![(key.to_owned().into(), Some(value.clone()))];
                let more = keys.into_iter().map(|key| self.model.revise(write(key)));
                let more = more.collect();
                self.rig.install_snapshot(more);
            }
            Step::Chill => self.rig.chill(),
            Step::Watch { stream, mut watch, back } => {
                if back != 0 {
                    watch.start = Revision((self.model.revision - back).max(1));
                }
                if self.rig.may_ask(STREAMS[stream]) {
                    self.rig.create(STREAMS[stream], watch.clone());
                    self.client(stream).asked.push(watch);
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
        // Beyond the bound, each stream may have one delivery: at most a pass and one revision, with what
        // was there before.
        let largest = 2 * self.limits.read_bytes + 6 * 2600;
        assert!(queued <= self.limits.all_streams_bytes + STREAMS.len() * largest, "{queued}");
    }

    fn apply(&mut self, command: Command) {
        self.rig.apply(command).unwrap();
    }

    fn client(&mut self, stream: usize) -> &mut Client {
        self.clients.get_mut(&stream).unwrap()
    }

    /// Whether there was something to read.
    fn read(&mut self, stream: usize, messages: usize) -> bool {
        let mut any = false;
        for _ in 0..messages {
            let Some(response) = self.rig.next(STREAMS[stream]) else { break };
            let response = response.expect("the stream goes on");
            self.clients.get_mut(&stream).unwrap().hear(&self.model, &response);
            any = true;
        }
        any
    }

    /// Reads everything, and asks all whether that was all.
    fn end(mut self) {
        self.rig.publish();
        self.rig.set_late(false);
        self.drain();
        for (stream, name) in STREAMS.iter().enumerate() {
            // Who starts later is not told its progress.
            let watches = self.clients[&stream].watches.iter();
            let later = watches
                .filter(|(_, heard)| heard.watch.start > Revision(self.model.revision))
                .map(|(id, _)| *id);
            later.for_each(|id| self.rig.stream(name).cancel(id));
            self.rig.stream(name).progress();
        }
        self.drain();
        for client in self.clients.values() {
            assert!(client.asked.is_empty(), "{:?} were not answered", client.asked);
            for heard in client.watches.values() {
                assert_eq!(heard.through, self.model.revision, "{heard:?} was left behind");
            }
        }
        let counters = self.rig.watches.counters();
        assert_eq!((counters.queued_bytes.get(), counters.pending_events.get()), (0, 0));
        assert_eq!(counters.slow.get(), 0);
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn every_watch_hears_all_of_its_events_once_and_in_order(steps in vec(step(), 1..120)) {
        let mut world = World::new();
        for (number, step) in steps.into_iter().enumerate() {
            world.happen(step, number);
        }
        world.end();
    }
}

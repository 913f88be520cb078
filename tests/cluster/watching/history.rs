//! The history of the store, read by a watch from its first revision, and its invariants.

use std::collections::BTreeMap;

use bytes::Bytes;
use ordinal::proto::{
    etcdserverpb::watch_create_request::FilterType,
    mvccpb::{Event, KeyValue, event::EventType},
};

use super::{
    changes::Written,
    watcher::{Seen, Watched, Watcher},
};
use crate::{
    cluster::harness::Cluster,
    support::{retry::promise, rng::Rng},
};

/// All events of all keys with their previous values, in order.
pub struct History {
    events: Vec<Event>,
}

impl History {
    /// Reads the history up to this revision from each member; the members must agree.
    pub async fn read(cluster: &Cluster, end: i64, rng: &mut Rng) -> History {
        let all = Watched { key: "\0", end: "\0", without: None, prev_kv: true, slow: false };
        let mut histories: Vec<Vec<Event>> = Vec::new();
        for member in 0..cluster.members.len() {
            let mut seen = Watcher::start_at(cluster, member, all, rng).until(end).await;
            assert_eq!(seen.resumed, 0, "a watcher resumed, and no member was killed");
            seen.events.retain(|event| revision(event) <= end);
            histories.push(seen.events);
        }
        for (member, events) in histories.iter().enumerate() {
            promise(|| {
                assert!(*events == histories[0], "members 0 and {member} have other histories");
            });
        }
        let history = History { events: histories.swap_remove(0) };
        promise(|| history.check_itself(end));
        history
    }

    /// Every revision has an event, and each event follows from its predecessors.
    fn check_itself(&self, end: i64) {
        let mut revisions: Vec<i64> = self.events.iter().map(revision).collect();
        assert!(revisions.is_sorted());
        revisions.dedup();
        assert_eq!(revisions, (2..=end).collect::<Vec<_>>(), "every revision changed something");
        let mut store: BTreeMap<Bytes, KeyValue> = BTreeMap::new();
        for event in &self.events {
            let kv = event.kv.as_ref().unwrap();
            let before = store.get(&kv.key);
            assert_eq!(event.prev_kv.as_ref(), before, "the value before {event:?}");
            if event.r#type() == EventType::Delete {
                let tombstone = KeyValue {
                    key: kv.key.clone(),
                    mod_revision: kv.mod_revision,
                    ..Default::default()
                };
                assert_eq!(*kv, tombstone, "a deletion carries a key and its revision");
                assert!(store.remove(&kv.key).is_some(), "deleted without being there: {event:?}");
            } else {
                let created = before.map_or(kv.mod_revision, |before| before.create_revision);
                let version = before.map_or(1, |before| before.version + 1);
                assert_eq!((kv.create_revision, kv.version), (created, version), "{event:?}");
                store.insert(kv.key.clone(), kv.clone());
            }
        }
    }

    /// The history contains every acknowledged change, at its revision.
    pub fn check_against(&self, written: &Written) {
        promise(|| self.contains_all(written));
    }

    fn contains_all(&self, written: &Written) {
        let mut by_revision: BTreeMap<i64, BTreeMap<&Bytes, Option<&Bytes>>> = BTreeMap::new();
        for event in &self.events {
            let kv = event.kv.as_ref().unwrap();
            let value = (event.r#type() == EventType::Put).then_some(&kv.value);
            by_revision.entry(kv.mod_revision).or_default().insert(&kv.key, value);
        }
        for (revision, changed) in written {
            let histories = by_revision.get(revision);
            for (key, value) in changed {
                let histories = histories.and_then(|histories| histories.get(key));
                assert_eq!(
                    histories,
                    Some(&value.as_ref()),
                    "{key:?} was acknowledged at {revision}"
                );
            }
        }
    }

    /// The watcher saw all events that it watches, each once, in order.
    pub fn check_watcher(&self, seen: &Seen) {
        promise(|| self.seen_by(seen));
    }

    fn seen_by(&self, seen: &Seen) {
        let what = seen.what;
        let mut expected = self.events.iter().filter(|event| watches(what, event)).map(|event| {
            let prev_kv = event.prev_kv.clone().filter(|_| what.prev_kv);
            Event { prev_kv, ..event.clone() }
        });
        let end = self.events.last().map_or(0, revision);
        let mut seen = seen.events.iter().filter(|event| revision(event) <= end);
        loop {
            let (expected, seen) = (expected.next(), seen.next());
            assert_eq!(seen, expected.as_ref(), "the next event of {what:?}");
            if seen.is_none() {
                return;
            }
        }
    }
}

fn watches(what: Watched, event: &Event) -> bool {
    let filtered = match what.without {
        Some(FilterType::Noput) => EventType::Put,
        Some(FilterType::Nodelete) => EventType::Delete,
        None => return what.covers(&event.kv.as_ref().unwrap().key),
    };
    event.r#type() != filtered && what.covers(&event.kv.as_ref().unwrap().key)
}

fn revision(event: &Event) -> i64 {
    event.kv.as_ref().unwrap().mod_revision
}

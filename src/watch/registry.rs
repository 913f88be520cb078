//! Who watches what, and how far each watch has come.
//!
//! Kept small: an idle watch costs a [`Watcher`], its keys if nobody else watches them, and its
//! place in the maps, some 300 bytes in all.

use std::collections::BTreeSet;

use super::{
    events::Wants,
    slab::Slab,
    topics::{Keys, Topics},
};
use crate::types::Revision;

/// What a watch costs in memory beside its keys, about.
const WATCH_BYTES: usize = 256;

/// One watch.
#[derive(Debug)]
pub(super) struct Watcher {
    pub(super) stream: u32,
    /// What its client calls it.
    pub(super) id: i64,
    topic: u32,
    pub(super) wants: Wants,
    pub(super) state: State,
    /// It tells of progress.
    pub(super) progress: bool,
    /// It was told something since its stream's last tick.
    pub(super) told: bool,
    /// There was a revision that it was to hear of.
    pub(super) begun: bool,
    /// It hears of nothing before this revision any more. A synced one has also heard of all up to
    /// where the hub is.
    pub(super) next: Revision,
    /// Its place in its topic's list, while it is synced.
    slot: u32,
}

/// How a watch comes to what it has not heard of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// As it is published.
    Synced,
    /// From the history.
    Slow,
    /// From the history, once its stream has room.
    Parked,
}

/// Keys that somebody watches.
#[derive(Debug)]
struct Topic {
    keys: Keys,
    synced: Vec<u32>,
    /// Synced or not.
    watchers: u32,
}

/// All watches.
#[derive(Debug, Default)]
pub(super) struct Registry {
    watchers: Slab<Watcher>,
    topics: Slab<Topic>,
    index: Topics,
    /// Slow ones, by where they go on.
    slow: BTreeSet<(Revision, u32)>,
    /// Parked ones, by stream.
    parked: BTreeSet<(u32, u32)>,
    synced: usize,
    bytes: usize,
}

impl Watcher {
    /// The number of its keys; another one's once nobody watches them.
    pub(super) fn topic(&self) -> u32 {
        self.topic
    }
}

impl Registry {
    /// Adds a slow watch.
    pub(super) fn add(
        &mut self,
        stream: u32,
        id: i64,
        keys: Keys,
        wants: Wants,
        progress: bool,
        next: Revision,
    ) -> u32 {
        self.bytes += WATCH_BYTES + keys.bytes();
        let topic = self.index.get(&keys).unwrap_or_else(|| {
            let topic = Topic { keys: keys.clone(), synced: Vec::new(), watchers: 0 };
            let topic = self.topics.insert(topic);
            self.index.insert(keys, topic);
            topic
        });
        self.topics[topic].watchers += 1;
        let state = State::Slow;
        let told = false;
        let watcher = Watcher {
            stream,
            id,
            topic,
            wants,
            state,
            progress,
            told,
            begun: false,
            next,
            slot: 0,
        };
        let at = self.watchers.insert(watcher);
        self.slow.insert((next, at));
        at
    }

    pub(super) fn remove(&mut self, at: u32) {
        self.leave(at);
        let Some(watcher) = self.watchers.remove(at) else { return };
        let topic = &mut self.topics[watcher.topic];
        topic.watchers -= 1;
        self.bytes -= WATCH_BYTES + topic.keys.bytes();
        if topic.watchers == 0
            && let Some(topic) = self.topics.remove(watcher.topic)
        {
            self.index.remove(&topic.keys);
        }
    }

    /// A watch goes on in another way, from `next`.
    pub(super) fn place(&mut self, at: u32, state: State, next: Revision) {
        self.leave(at);
        let watcher = &mut self.watchers[at];
        (watcher.state, watcher.next) = (state, next);
        match state {
            State::Synced => {
                let synced = &mut self.topics[watcher.topic].synced;
                watcher.slot = synced.len() as u32;
                synced.push(at);
                self.synced += 1;
            }
            State::Slow => drop(self.slow.insert((next, at))),
            State::Parked => drop(self.parked.insert((watcher.stream, at))),
        }
    }

    fn leave(&mut self, at: u32) {
        let Watcher { state, next, stream, topic, slot, .. } = self.watchers[at];
        match state {
            State::Synced => {
                let synced = &mut self.topics[topic].synced;
                synced.swap_remove(slot as usize);
                if let Some(moved) = synced.get(slot as usize) {
                    self.watchers[*moved].slot = slot;
                }
                if synced.capacity() > 8 && synced.len() < synced.capacity() / 4 {
                    synced.shrink_to_fit();
                }
                self.synced -= 1;
            }
            State::Slow => drop(self.slow.remove(&(next, at))),
            State::Parked => drop(self.parked.remove(&(stream, at))),
        }
    }

    pub(super) fn get(&self, at: u32) -> Option<&Watcher> {
        self.watchers.get(at)
    }

    pub(super) fn keys(&self, watcher: &Watcher) -> &Keys {
        &self.topics[watcher.topic].keys
    }

    pub(super) fn set_begun(&mut self, at: u32) {
        self.watchers[at].begun = true;
    }

    pub(super) fn set_told(&mut self, at: u32, told: bool) {
        self.watchers[at].told = told;
    }

    /// Finds topics; see [`Registry::synced_of`].
    pub(super) fn index(&self) -> &Topics {
        &self.index
    }

    /// The synced watches of a topic.
    pub(super) fn synced_of(&self, topic: u32) -> &[u32] {
        &self.topics[topic].synced
    }

    pub(super) fn synced(&self) -> Vec<u32> {
        let synced = self.watchers.iter().filter(|(_, watcher)| watcher.state == State::Synced);
        synced.map(|(at, _)| at).collect()
    }

    pub(super) fn slow(&self) -> &BTreeSet<(Revision, u32)> {
        &self.slow
    }

    pub(super) fn parked_of(&self, stream: u32) -> Vec<u32> {
        self.parked.range((stream, 0)..=(stream, u32::MAX)).map(|(_, at)| *at).collect()
    }

    /// How many watches there are.
    pub(super) fn count(&self) -> usize {
        self.synced + self.behind()
    }

    /// How many of them are not synced.
    pub(super) fn behind(&self) -> usize {
        self.slow.len() + self.parked.len()
    }

    /// What they cost, about.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

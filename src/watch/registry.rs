//! The registry of all watches: their keys, their state, and their next revision.
//!
//! Small on purpose: an idle watch costs a [`Watcher`], its keys unless another watch shares them, and
//! its entries in the maps, about 300 bytes in all.

use std::collections::BTreeSet;

use super::{
    events::EventOptions,
    messages::NewWatch,
    slab::Slab,
    watch_index::{Keys, WatchIndex},
};
use crate::types::Revision;

/// The approximate memory of a watch without its keys.
const WATCH_BYTES: usize = 256;

/// One watch.
#[derive(Debug)]
pub struct Watcher {
    pub stream: u32,
    /// The watch ID, unique on its stream.
    pub id: i64,
    keys_id: u32,
    pub options: EventOptions,
    pub state: State,
    pub progress_notify: bool,
    /// It delivered events since the last tick of its stream.
    pub delivered_since_tick: bool,
    /// The hub has passed its start revision.
    pub started: bool,
    /// It delivers no event before this revision any more. A synced watch has also delivered everything up
    /// to the hub's position.
    pub next: Revision,
    /// Its position in the list of synced watches on its keys, while it is synced.
    slot: u32,
}

/// The state of a watch, in etcd's terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The hub delivers changes as they are published.
    Synced,
    /// The watch reads the history.
    Unsynced,
    /// The watch waits until the queue of its stream is empty, and then reads the history.
    Victim,
}

/// Keys with at least one watch.
#[derive(Debug)]
struct WatchedKeys {
    keys: Keys,
    synced: Vec<u32>,
    /// In any state.
    watcher_count: u32,
}

/// All watches.
#[derive(Debug, Default)]
pub struct Registry {
    watchers: Slab<Watcher>,
    watched: Slab<WatchedKeys>,
    index: WatchIndex,
    /// Unsynced watches, by next revision.
    unsynced: BTreeSet<(Revision, u32)>,
    /// Victims, by stream.
    victims: BTreeSet<(u32, u32)>,
    synced_count: usize,
    bytes: usize,
}

impl Watcher {
    /// The ID of its keys. Reused after the last watch on them is removed.
    pub fn keys_id(&self) -> u32 {
        self.keys_id
    }
}

impl Registry {
    /// Adds an unsynced watch.
    pub fn add(&mut self, stream: u32, id: i64, watch: &NewWatch, next: Revision) -> u32 {
        let keys = Keys::of(&watch.keys);
        self.bytes += WATCH_BYTES + keys.bytes();
        let keys_id = self.index.get(&keys).unwrap_or_else(|| {
            let watched = WatchedKeys { keys: keys.clone(), synced: Vec::new(), watcher_count: 0 };
            let keys_id = self.watched.insert(watched);
            self.index.insert(keys, keys_id);
            keys_id
        });
        self.watched[keys_id].watcher_count += 1;
        let watcher = Watcher {
            stream,
            id,
            keys_id,
            options: watch.options,
            state: State::Unsynced,
            progress_notify: watch.progress_notify,
            delivered_since_tick: false,
            started: false,
            next,
            slot: 0,
        };
        let at = self.watchers.insert(watcher);
        self.unsynced.insert((next, at));
        at
    }

    pub fn remove(&mut self, at: u32) {
        self.unlink(at);
        let Some(watcher) = self.watchers.remove(at) else { return };
        let watched = &mut self.watched[watcher.keys_id];
        watched.watcher_count -= 1;
        self.bytes -= WATCH_BYTES + watched.keys.bytes();
        if watched.watcher_count == 0
            && let Some(watched) = self.watched.remove(watcher.keys_id)
        {
            self.index.remove(&watched.keys);
        }
    }

    /// Moves a watch to a state, to continue from `next`.
    pub fn set_state(&mut self, at: u32, state: State, next: Revision) {
        self.unlink(at);
        let watcher = &mut self.watchers[at];
        (watcher.state, watcher.next) = (state, next);
        match state {
            State::Synced => {
                let synced = &mut self.watched[watcher.keys_id].synced;
                watcher.slot = synced.len() as u32;
                synced.push(at);
                self.synced_count += 1;
            }
            State::Unsynced => drop(self.unsynced.insert((next, at))),
            State::Victim => drop(self.victims.insert((watcher.stream, at))),
        }
    }

    /// Removes a watch from the list of its state.
    fn unlink(&mut self, at: u32) {
        let Watcher { state, next, stream, keys_id, slot, .. } = self.watchers[at];
        match state {
            State::Synced => {
                let synced = &mut self.watched[keys_id].synced;
                synced.swap_remove(slot as usize);
                if let Some(moved) = synced.get(slot as usize) {
                    self.watchers[*moved].slot = slot;
                }
                if synced.capacity() > 8 && synced.len() < synced.capacity() / 4 {
                    synced.shrink_to_fit();
                }
                self.synced_count -= 1;
            }
            State::Unsynced => drop(self.unsynced.remove(&(next, at))),
            State::Victim => drop(self.victims.remove(&(stream, at))),
        }
    }

    pub fn get(&self, at: u32) -> Option<&Watcher> {
        self.watchers.get(at)
    }

    pub fn keys(&self, watcher: &Watcher) -> &Keys {
        &self.watched[watcher.keys_id].keys
    }

    pub fn set_started(&mut self, at: u32) {
        self.watchers[at].started = true;
    }

    pub fn set_delivered_since_tick(&mut self, at: u32, delivered: bool) {
        self.watchers[at].delivered_since_tick = delivered;
    }

    /// Finds the IDs of keys, for [`Registry::synced_on`].
    pub fn index(&self) -> &WatchIndex {
        &self.index
    }

    /// The synced watches on the keys with this ID.
    pub fn synced_on(&self, keys_id: u32) -> &[u32] {
        &self.watched[keys_id].synced
    }

    pub fn synced(&self) -> Vec<u32> {
        let synced = self.watchers.iter().filter(|(_, watcher)| watcher.state == State::Synced);
        synced.map(|(at, _)| at).collect()
    }

    pub fn unsynced(&self) -> &BTreeSet<(Revision, u32)> {
        &self.unsynced
    }

    pub fn victims_of(&self, stream: u32) -> Vec<u32> {
        self.victims.range((stream, 0)..=(stream, u32::MAX)).map(|(_, at)| *at).collect()
    }

    /// The number of watches in any state.
    pub fn count(&self) -> usize {
        self.synced_count + self.slow_count()
    }

    /// The number of watches that are not synced.
    pub fn slow_count(&self) -> usize {
        self.unsynced.len() + self.victims.len()
    }

    /// The approximate memory of all watches.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

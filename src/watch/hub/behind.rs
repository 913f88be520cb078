//! Watches that are behind: those that start in the past, and those whose stream was full.
//!
//! They are brought forward several together, from what the hub passed on last or by jobs for the history
//! lane, and cut off where what they need is compacted.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    super::{
        before::remembered,
        events::{Encoder, Events},
        history::{Found, Interest, Job, find},
        registry::State,
        response::Kind,
        stream::StreamId,
        topics::Keys,
    },
    Hub,
};
use crate::{
    state::{ReadError, StorageError},
    types::Revision,
};

/// So many slow watches are brought forward together, at most.
const READ_TOGETHER_MAX: usize = 4096;
/// Of these, so many groups that get nearly the same again, each a copy of its own: those who watch the
/// same from different revisions on, and those whose ranges may overlap. The others' turn comes later.
const STARTS_MAX: usize = 16;
const RANGES_MAX: usize = 128;
/// A job of the history lane's, and who asked for each of its interests.
#[derive(Debug)]
pub(super) struct Reading {
    interests: Arc<[Interest]>,
    watchers: Vec<Vec<u32>>,
}

impl Hub {
    /// A watch goes on from `next` once its stream, which is full, has room.
    pub(super) fn park(&mut self, at: u32, next: Revision) {
        let Some(watcher) = self.registry.get(at) else { return };
        let waits = self.streams[watcher.stream].outbox.await_room();
        self.registry.place(at, if waits { State::Parked } else { State::Slow }, next);
    }

    pub(super) fn unpark(&mut self, id: StreamId) {
        let Some(stream) = self.streams.find(id) else { return };
        for at in self.registry.parked_of(stream) {
            let next = self.registry.get(at).map_or(self.position, |watcher| watcher.next);
            self.registry.place(at, State::Slow, next);
        }
    }

    /// Brings slow watches forward: from memory as far as that goes, then by a job for the history
    /// lane.
    pub(super) fn bring_forward(&mut self) {
        while self.reading.is_none() {
            self.cut_off();
            let slow = self.registry.slow();
            let next = if self.furthest_is_next { slow.first() } else { slow.last() };
            let Some((from, _)) = next.copied() else { return };
            assert!(from <= self.position, "a watch at {from} is not slow at {}", self.position);
            self.furthest_is_next = !self.furthest_is_next;
            let (interests, watchers) = self.interests_from(from);
            let reading = Reading { interests: interests.into(), watchers };
            match self.find_recent(from, &reading.interests) {
                Some(events) => {
                    self.found(&reading, Found { next: self.position.next(), events });
                }
                None => {
                    let interests = reading.interests.clone();
                    self.reading = Some(reading);
                    // The history lane ends after this one.
                    let _ = self.history.send(Job { from, to: self.position, interests });
                }
            }
        }
    }

    /// What there was from revision `from` on, if it is all in memory.
    fn find_recent(&self, from: Revision, interests: &[Interest]) -> Option<Vec<(usize, Events)>> {
        let records = self.recent.since(from)?;
        let previous = remembered(&self.view, &records, self.options.limits.read_bytes);
        let encoder = Encoder::new(&records, &previous, self.options.fragment_bytes);
        find(&records, interests, encoder).ok()
    }

    /// What those need who go on at `from` or later, and who they are.
    fn interests_from(&self, from: Revision) -> (Vec<Interest>, Vec<Vec<u32>>) {
        let mut interests: Vec<Interest> = Vec::new();
        let mut watchers: Vec<Vec<u32>> = Vec::new();
        let mut known = BTreeMap::new();
        let mut starts: BTreeMap<_, usize> = BTreeMap::new();
        let mut ranges = 0;
        for (next, at) in self.registry.slow().range((from, 0)..).take(READ_TOGETHER_MAX) {
            let Some(watcher) = self.registry.get(*at) else { continue };
            let group = (watcher.topic(), watcher.wants);
            if let Some(place) = known.get(&(group, *next)) {
                let together: &mut Vec<u32> = &mut watchers[*place];
                together.push(*at);
                continue;
            }
            let keys = self.registry.keys(watcher).clone();
            let of_group = starts.entry(group).or_default();
            let is_range = usize::from(matches!(keys, Keys::Range(_)));
            if *of_group == STARTS_MAX || ranges + is_range > RANGES_MAX {
                continue;
            }
            *of_group += 1;
            ranges += is_range;
            known.insert((group, *next), interests.len());
            interests.push(Interest { keys, wants: watcher.wants, next: *next });
            watchers.push(vec![*at]);
        }
        (interests, watchers)
    }

    pub(super) fn read(&mut self, read: Result<Found, ReadError>) -> Result<(), StorageError> {
        let Some(reading) = self.reading.take() else { return Ok(()) };
        match read {
            Ok(found) => {
                self.found(&reading, found);
                Ok(())
            }
            // Those who are too late are cut off before the next job.
            Err(ReadError::Refused(_)) => Ok(()),
            Err(ReadError::Storage(error)) => Err(error),
        }
    }

    /// Delivers what was found, and brings those forward who were looked for. Some may be gone, and
    /// others have come under their numbers: but who needs just this gets the right thing.
    fn found(&mut self, reading: &Reading, found: Found) {
        let mut events = found.events.iter().peekable();
        let mut full = Vec::new();
        for (place, interest) in reading.interests.iter().enumerate() {
            let events = events.next_if(|(at, _)| *at == place).map(|(_, events)| events);
            if interest.next >= found.next {
                continue;
            }
            for at in &reading.watchers[place] {
                let Some(watcher) = self.registry.get(*at).filter(|watcher| {
                    (watcher.state, watcher.next) == (State::Slow, interest.next)
                        && watcher.wants == interest.wants
                        && *self.registry.keys(watcher) == interest.keys
                }) else {
                    continue;
                };
                let (stream, id) = (watcher.stream, watcher.id);
                let through = Revision(found.next.0 - 1);
                match events {
                    Some(events) if !self.streams.deliver(stream, events, through, id) => {
                        full.push((*at, interest.next));
                        continue;
                    }
                    Some(_) => self.registry.set_told(*at, true),
                    None => {}
                }
                // Readers, and so the history, may be ahead of what the hub was told.
                let synced = found.next > self.position;
                let state = if synced { State::Synced } else { State::Slow };
                self.registry.place(*at, state, found.next);
                self.registry.set_begun(*at);
            }
        }
        self.streams.send();
        full.into_iter().for_each(|(at, next)| self.park(at, next));
    }

    /// Ends those slow watches whose past was compacted.
    fn cut_off(&mut self) {
        let compacted = self.view.compacted();
        while let Some((next, at)) = self.registry.slow().first().copied()
            && next < compacted
        {
            let Some(watcher) = self.registry.get(at) else { return };
            let (stream, watch_id) = (watcher.stream, watcher.id);
            tracing::info!(
                peer = %self.streams[stream].peer,
                watch = watch_id,
                keys = %self.registry.keys(watcher),
                at = %next,
                %compacted,
                "a watch fell too far behind and is cut off"
            );
            self.counters.cut_off_total.add(1);
            self.streams[stream].watches.remove(&watch_id);
            self.registry.remove(at);
            self.respond(stream, watch_id, Revision::ZERO, Kind::Compacted(compacted), false);
        }
        self.rest_if_unwatched();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::mpsc;

    use super::{super::Command, *};
    use crate::{
        fault::Fault,
        lane::Lanes,
        state::{Machine, MemoryStorage},
        types::{KeyRange, LogPosition, Put},
        watch::{Feed, Limits, NewWatch, Options, Wants, outbox::Outbox},
    };

    /// A hub of a store with some revisions, and the jobs that it gives.
    fn hub(revisions: u64) -> (Hub, mpsc::UnboundedReceiver<Job>) {
        let mut machine =
            Machine::recover(Arc::new(MemoryStorage::default()), None, [], []).unwrap();
        let put = || crate::types::Command::Put(Put { key: "k".into(), ..Put::default() });
        let puts: Vec<_> = (0..revisions).map(|_| put()).collect();
        machine.apply(LogPosition::default(), puts).unwrap();
        machine.publish();
        let limits = Limits::default();
        let options = Options { fragment_bytes: 1 << 20, limits, lanes: Lanes::Tasks };
        let (jobs, todo) = mpsc::unbounded_channel();
        let (feed, view, counters) = (Feed::new(&limits), machine.view(), Arc::default());
        let mut hub = Hub::new(options, feed, view, jobs, Arc::clone(&counters), Fault::default());
        let outbox = Arc::new(Outbox::new(limits, counters));
        hub.handle(&mut vec![Command::Open(StreamId(0), outbox, "client".into())]);
        (hub, todo)
    }

    fn watch(keys: KeyRange, start: i64) -> Command {
        let (watch_id, start) = (0, Revision(start));
        let new = NewWatch { watch_id, keys, start, wants: Wants::default(), progress: false };
        Command::Create(StreamId(0), Box::new(new))
    }

    /// How many interests each job has until all watches have come as far as the store.
    fn jobs(hub: &mut Hub, todo: &mut mpsc::UnboundedReceiver<Job>) -> Vec<usize> {
        let mut sizes = Vec::new();
        while let Ok(job) = todo.try_recv() {
            sizes.push(job.interests.len());
            let found = Found { next: job.to.next(), events: Vec::new() };
            hub.handle(&mut vec![Command::Read(Ok(found))]);
        }
        assert_eq!(hub.registry.behind(), 0);
        sizes
    }

    #[test]
    fn one_job_has_few_ranges_that_may_overlap() {
        let (mut hub, mut todo) = hub(2);
        let watches = (0..300u32).map(|end| {
            let end = format!("l{end:03}").into();
            watch(KeyRange::Span { start: "a".into(), end }, 2)
        });
        hub.handle(&mut watches.collect());
        assert_eq!(jobs(&mut hub, &mut todo), [1, RANGES_MAX, RANGES_MAX, 299 - 2 * RANGES_MAX]);
    }

    #[test]
    fn one_job_reads_the_same_from_few_revisions_on() {
        let (mut hub, mut todo) = hub(40);
        // The first one keeps the lane busy until all are there.
        let mut watches = vec![watch(KeyRange::One("other".into()), 2)];
        watches.extend((2..42).map(|start| watch(KeyRange::One("k".into()), start)));
        hub.handle(&mut watches);
        let sizes = jobs(&mut hub, &mut todo);
        assert_eq!(sizes.iter().sum::<usize>(), 41);
        assert!(sizes.iter().all(|size| *size <= STARTS_MAX), "{sizes:?}");
        // Every other job is for who is closest, alone.
        assert!(sizes.len() <= 8, "{sizes:?}");
    }
}

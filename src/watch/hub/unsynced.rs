//! Unsynced watches: those that start in the past, and former victims.
//!
//! The hub syncs several at once: from the records that it delivered last, or by a job of the history
//! lane. It cancels the watches that need compacted revisions.

use std::collections::BTreeMap;

use super::{
    super::{
        events::{EncodedEvents, Encoder},
        groups::{WatchGroup, encode_for_groups},
        messages::{HistoryBatch, HistoryJob, StreamId},
        prev_kv,
        registry::State,
        response::ResponseKind,
        watch_index::Keys,
    },
    Hub, PendingJob,
};
use crate::{
    state::{ReadError, StorageError},
    types::Revision,
};

/// Unsynced watches in one job.
const JOB_WATCHES_MAX: usize = 4096;
/// Groups in one job that get nearly the same events, each as a copy of its own: groups on the same keys
/// from different revisions, and groups on ranges, which may overlap. A later job takes the rest.
const GROUPS_PER_KEYS_MAX: usize = 16;
const RANGE_GROUPS_MAX: usize = 128;

impl Hub {
    /// The stream of the watch is full: once its queue is empty, the watch continues from `next`.
    pub fn make_victim(&mut self, at: u32, next: Revision) {
        let Some(watcher) = self.registry.get(at) else { return };
        let full = self.streams[watcher.stream].outbox.report_drained();
        self.registry.set_state(at, if full { State::Victim } else { State::Unsynced }, next);
    }

    pub fn release_victims(&mut self, id: StreamId) {
        let Some(stream) = self.streams.find(id) else { return };
        for at in self.registry.victims_of(stream) {
            let next = self.registry.get(at).map_or(self.position, |watcher| watcher.next);
            self.registry.set_state(at, State::Unsynced, next);
        }
    }

    /// Syncs unsynced watches: from memory as far as possible, then by a job of the history lane.
    pub fn sync_unsynced(&mut self) {
        while self.pending_job.is_none() {
            self.cancel_compacted();
            let unsynced = self.registry.unsynced();
            let first = if self.oldest_first { unsynced.first() } else { unsynced.last() };
            let Some((from, _)) = first.copied() else { return };
            assert!(from <= self.position, "unsynced watch at {from}, hub at {}", self.position);
            self.oldest_first = !self.oldest_first;
            let (groups, watchers) = self.groups_from(from);
            let job = PendingJob { groups: groups.into(), watchers };
            match self.encode_recent(from, &job.groups) {
                Some(events) => {
                    let next = self.position.next();
                    self.deliver_batch(&job, &HistoryBatch { next, events });
                }
                None => {
                    let groups = job.groups.clone();
                    self.pending_job = Some(job);
                    // Cannot fail: the history lane stops after the hub.
                    let _ = self.history.send(HistoryJob { from, to: self.position, groups });
                }
            }
        }
    }

    /// The events from revision `from` on, if they and the needed previous values are in memory.
    fn encode_recent(
        &self,
        from: Revision,
        groups: &[WatchGroup],
    ) -> Option<Vec<(usize, EncodedEvents)>> {
        let records = self.recent.since(from)?;
        let prev_kv = prev_kv::in_memory(&self.view, &records, self.options.limits.read_bytes);
        let encoder = Encoder::new(&records, &prev_kv, self.options.fragment_bytes);
        encode_for_groups(&records, groups, encoder).ok()
    }

    /// Groups the unsynced watches whose next revision is `from` or later.
    fn groups_from(&self, from: Revision) -> (Vec<WatchGroup>, Vec<Vec<u32>>) {
        let mut groups: Vec<WatchGroup> = Vec::new();
        let mut watchers: Vec<Vec<u32>> = Vec::new();
        let mut known = BTreeMap::new();
        let mut groups_per_keys: BTreeMap<_, usize> = BTreeMap::new();
        let mut ranges = 0;
        for (next, at) in self.registry.unsynced().range((from, 0)..).take(JOB_WATCHES_MAX) {
            let Some(watcher) = self.registry.get(*at) else { continue };
            let keys_and_options = (watcher.keys_id(), watcher.options);
            if let Some(group) = known.get(&(keys_and_options, *next)) {
                let members: &mut Vec<u32> = &mut watchers[*group];
                members.push(*at);
                continue;
            }
            let keys = self.registry.keys(watcher).clone();
            let count = groups_per_keys.entry(keys_and_options).or_default();
            let is_range = usize::from(matches!(keys, Keys::Range(_)));
            if *count == GROUPS_PER_KEYS_MAX || ranges + is_range > RANGE_GROUPS_MAX {
                continue;
            }
            *count += 1;
            ranges += is_range;
            known.insert((keys_and_options, *next), groups.len());
            groups.push(WatchGroup { keys, options: watcher.options, next: *next });
            watchers.push(vec![*at]);
        }
        (groups, watchers)
    }

    pub fn finish_job(
        &mut self,
        batch: Result<HistoryBatch, ReadError>,
    ) -> Result<(), StorageError> {
        let Some(job) = self.pending_job.take() else { return Ok(()) };
        match batch {
            Ok(batch) => {
                self.deliver_batch(&job, &batch);
                Ok(())
            }
            // Compacted meanwhile: the hub cancels these watches before the next job.
            Err(ReadError::Refused(_)) => Ok(()),
            Err(ReadError::Storage(error)) => Err(error),
        }
    }

    /// Delivers the events of a job and advances its watches. During the job, some watches may have been
    /// removed and their slab keys reused. So only watches that still match their group count.
    fn deliver_batch(&mut self, job: &PendingJob, batch: &HistoryBatch) {
        let mut events = batch.events.iter().peekable();
        let mut full = Vec::new();
        for (position, group) in job.groups.iter().enumerate() {
            let events = events.next_if(|(at, _)| *at == position).map(|(_, events)| events);
            if group.next >= batch.next {
                continue;
            }
            for at in &job.watchers[position] {
                let Some(watcher) = self.registry.get(*at).filter(|watcher| {
                    (watcher.state, watcher.next) == (State::Unsynced, group.next)
                        && watcher.options == group.options
                        && *self.registry.keys(watcher) == group.keys
                }) else {
                    continue;
                };
                let (stream, id) = (watcher.stream, watcher.id);
                let through = Revision(batch.next.0 - 1);
                match events {
                    Some(events) if !self.streams.deliver(stream, events, through, id) => {
                        full.push((*at, group.next));
                        continue;
                    }
                    Some(_) => self.registry.set_delivered_since_tick(*at, true),
                    None => {}
                }
                // The view, and so the history, may be ahead of the hub's position.
                let synced = batch.next > self.position;
                let state = if synced { State::Synced } else { State::Unsynced };
                self.registry.set_state(*at, state, batch.next);
                self.registry.set_started(*at);
            }
        }
        self.streams.flush();
        full.into_iter().for_each(|(at, next)| self.make_victim(at, next));
    }

    /// Cancels the unsynced watches that need compacted revisions.
    fn cancel_compacted(&mut self) {
        let compacted = self.view.compacted();
        while let Some((next, at)) = self.registry.unsynced().first().copied()
            && next < compacted
        {
            let Some(watcher) = self.registry.get(at) else { return };
            let (stream, watch_id) = (watcher.stream, watcher.id);
            tracing::info!(
                peer = %self.streams[stream].peer,
                watch_id,
                keys = %self.registry.keys(watcher),
                next_revision = %next,
                compact_revision = %compacted,
                "watch canceled: required revision has been compacted"
            );
            self.counters.compacted_total.add(1);
            self.streams[stream].watches.remove(&watch_id);
            self.registry.remove(at);
            let kind = ResponseKind::Compacted(compacted);
            self.respond(stream, watch_id, Revision::ZERO, kind, false);
        }
        self.deactivate_feed_if_idle();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::mpsc;

    use super::*;
    use crate::{
        fault::Fault,
        lane::Lanes,
        state::{MemoryStorage, StateMachine},
        types::{KeyRange, LogPosition, Put},
        watch::{
            EventOptions, Feed, Limits, NewWatch, Options, messages::HubMessage, outbox::Outbox,
        },
    };

    /// A hub on a store with some revisions, and the jobs that the hub sends.
    fn hub(revisions: u64) -> (Hub, mpsc::UnboundedReceiver<HistoryJob>) {
        let mut machine =
            StateMachine::recover(Arc::new(MemoryStorage::default()), None, [], []).unwrap();
        let put = || crate::types::Command::Put(Put { key: "k".into(), ..Put::default() });
        let puts: Vec<_> = (0..revisions).map(|_| put()).collect();
        machine.apply(LogPosition::default(), puts).unwrap();
        machine.publish();
        let limits = Limits::default();
        let options = Options { fragment_bytes: 1 << 20, limits, lanes: Lanes::Tasks };
        let (history, jobs) = mpsc::unbounded_channel();
        let (feed, view, counters) = (Feed::new(&limits), machine.view(), Arc::default());
        let mut hub =
            Hub::new(options, feed, view, history, Arc::clone(&counters), Fault::default());
        let outbox = Arc::new(Outbox::new(limits, counters));
        hub.handle(&mut vec![HubMessage::Open(StreamId(0), outbox, "client".into())]);
        (hub, jobs)
    }

    fn watch(keys: KeyRange, start: i64) -> HubMessage {
        let watch = NewWatch {
            watch_id: 0,
            keys,
            start_revision: Revision(start),
            options: EventOptions::default(),
            progress_notify: false,
        };
        HubMessage::Create(StreamId(0), Box::new(watch))
    }

    /// The number of groups in each job until all watches are synced.
    fn job_sizes(hub: &mut Hub, jobs: &mut mpsc::UnboundedReceiver<HistoryJob>) -> Vec<usize> {
        let mut sizes = Vec::new();
        while let Ok(job) = jobs.try_recv() {
            sizes.push(job.groups.len());
            let batch = HistoryBatch { next: job.to.next(), events: Vec::new() };
            hub.handle(&mut vec![HubMessage::HistoryRead(Ok(batch))]);
        }
        assert_eq!(hub.registry.slow_count(), 0);
        sizes
    }

    #[test]
    fn one_job_has_few_groups_on_ranges() {
        let (mut hub, mut jobs) = hub(2);
        let watches = (0..300u32).map(|end| {
            let end = format!("l{end:03}").into();
            watch(KeyRange::Span { start: "a".into(), end }, 2)
        });
        hub.handle(&mut watches.collect());
        assert_eq!(
            job_sizes(&mut hub, &mut jobs),
            [1, RANGE_GROUPS_MAX, RANGE_GROUPS_MAX, 299 - 2 * RANGE_GROUPS_MAX]
        );
    }

    #[test]
    fn one_job_has_few_groups_on_the_same_keys() {
        let (mut hub, mut jobs) = hub(40);
        // The first one keeps the history lane busy until all watches exist.
        let mut watches = vec![watch(KeyRange::One("other".into()), 2)];
        watches.extend((2..42).map(|start| watch(KeyRange::One("k".into()), start)));
        hub.handle(&mut watches);
        let sizes = job_sizes(&mut hub, &mut jobs);
        assert_eq!(sizes.iter().sum::<usize>(), 41);
        assert!(sizes.iter().all(|size| *size <= GROUPS_PER_KEYS_MAX), "{sizes:?}");
        // Every other job starts with the newest watch, and has only that one.
        assert!(sizes.len() <= 8, "{sizes:?}");
    }
}

//! The apply lane: the one place where committed entries change the state.
//!
//! A chunk of entries is one hop: decode, apply, publish, answer. Answers go out after the state
//! shows what they say, so that a client reads its own write on this member.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use openraft::{EntryPayload, entry::RaftEntry, storage::ApplyResponder};
use prost::Message;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};

use super::{
    Answers, Commands, Types,
    convert::{self, Entry, StoredMembership},
    decode_commands,
    metrics::ConsensusMetrics,
    store::Recovered,
};
use crate::{
    fault::Fault,
    state::{Machine, Pruning},
    types::{LogPosition, MemberId, Ordinal, Revision},
};

/// How many keys one step of a compaction looks at: below a millisecond of work.
const COMPACTION_STEP_KEYS: usize = 4096;

/// What takes longer than this, on a request's way, is worth a word in the log (etcd's bound).
pub const SLOW: Duration = Duration::from_millis(100);

/// What the lane is asked to do.
pub(super) enum Work {
    Entries {
        entries: Vec<(Entry, Option<ApplyResponder<Types>>)>,
        done: Done,
    },
    Install {
        recovered: Recovered,
        done: Done,
    },
    /// From the lane to itself between other work, and from `retention` now and then: a read may
    /// have held compaction up.
    Compact,
}

type Done = oneshot::Sender<io::Result<()>>;

/// The lane's state: the machine, and whom to tell.
pub(super) struct Applier {
    pub(super) machine: Machine,
    pub(super) applied: watch::Sender<Option<LogPosition>>,
    pub(super) pruned: watch::Sender<Revision>,
    /// Weak: the lane ends when everybody else has let go of it.
    pub(super) again: mpsc::WeakUnboundedSender<Work>,
    pub(super) compacting: bool,
    /// When the compaction that is under way took its first step.
    pub(super) compaction_begun: Option<Instant>,
    pub(super) metrics: Arc<ConsensusMetrics>,
    pub(super) fault: Fault,
}

impl Applier {
    /// Handles all that waits.
    pub(super) fn handle(&mut self, work: &mut Vec<Work>) {
        for item in work.drain(..) {
            match item {
                Work::Entries { entries, done } => self.finish(done, |a| a.entries(entries)),
                Work::Install { recovered, done } => self.finish(done, |a| a.install(recovered)),
                Work::Compact => self.compact(),
            }
        }
    }

    fn finish(&mut self, done: Done, work: impl FnOnce(&mut Self) -> Result<(), String>) {
        let result = match self.fault.is_stopped() {
            true => Err("this member has stopped".to_string()),
            false => work(self),
        };
        if let Err(reason) = &result {
            self.fault.stop(reason);
        }
        // Whoever asked may be gone, at shutdown.
        let _ = done.send(result.map_err(io::Error::other));
    }

    fn entries(
        &mut self,
        entries: Vec<(Entry, Option<ApplyResponder<Types>>)>,
    ) -> Result<(), String> {
        let begun = Instant::now();
        let count = entries.len();
        let _span = tracing::debug_span!("apply", entries = count).entered();
        let mut answers = Vec::with_capacity(count);
        let mut last = None;
        for (entry, responder) in entries {
            let position = convert::position(&entry.log_id());
            let replies = self.entry(position, entry.payload)?;
            last = Some(position);
            if let Some(responder) = responder {
                answers.push((responder, replies));
            }
        }
        self.machine.publish();
        self.took(count, last, begun.elapsed());
        for (responder, replies) in answers {
            responder.send(replies);
        }
        if last.is_some() {
            self.applied.send_replace(last);
        }
        self.schedule_compaction();
        Ok(())
    }

    fn took(&self, entries: usize, last: Option<LogPosition>, took: Duration) {
        self.metrics.apply.observe(took);
        if took <= SLOW {
            return;
        }
        self.metrics.slow_applies.increment();
        let at = last.unwrap_or_default();
        tracing::warn!(
            term = at.term.0,
            index = at.index,
            revision = self.machine.view().revision().0,
            entries,
            ?took,
            "apply request took too long"
        );
    }

    fn entry(
        &mut self,
        at: LogPosition,
        payload: EntryPayload<Commands, MemberId, Ordinal>,
    ) -> Result<Answers, String> {
        let stop = |e: &dyn std::fmt::Display| format!("applying log entry {}: {e}", at.index);
        match payload {
            EntryPayload::Blank => self.machine.note(at),
            EntryPayload::Normal(Commands(data)) => {
                let commands = decode_commands(&data).map_err(|e| stop(&e))?;
                tracing::debug!(
                    term = at.term.0,
                    index = at.index,
                    commands = commands.len(),
                    "applying"
                );
                let replies = self.machine.apply(at, commands).map_err(|e| stop(&e))?;
                replies.iter().flatten().for_each(|reply| self.metrics.operations.count(reply));
                return Ok(Answers(replies));
            }
            EntryPayload::Membership(membership) => {
                let id = convert::log_id(at);
                let stored = StoredMembership::new(Some(id), membership);
                let wire = convert::stored_membership_to_wire(&stored);
                self.machine.set_membership(at, Bytes::from(wire.encode_to_vec()));
            }
        }
        Ok(Answers::default())
    }

    fn install(&mut self, recovered: Recovered) -> Result<(), String> {
        let Recovered { storage, position, tables, records } = recovered;
        let machine = Machine::recover(storage, position, tables, records)
            .map_err(|e| format!("installing a snapshot: {e}"))?;
        self.machine.replace(machine);
        self.applied.send_replace(position);
        self.pruned.send_replace(self.machine.view().pruned());
        self.schedule_compaction();
        Ok(())
    }

    /// One bounded step, then whatever else waits, then the next.
    fn compact(&mut self) {
        self.compacting = false;
        if self.fault.is_stopped() {
            return;
        }
        let begun = Instant::now();
        let pruning = self.machine.compact_step(COMPACTION_STEP_KEYS);
        self.metrics.compacted_records.add(self.machine.discarded() as u64);
        self.machine.publish();
        self.metrics.compaction_step.observe(begun.elapsed());
        let first = *self.compaction_begun.get_or_insert(begun);
        let pruned = self.machine.view().pruned();
        if self.pruned.send_replace(pruned) < pruned {
            self.metrics.compacted(first.elapsed());
            self.compaction_begun = None;
        }
        if pruning == Pruning::More {
            self.schedule_compaction();
        }
    }

    pub(super) fn schedule_compaction(&mut self) {
        if !self.compacting
            && self.machine.pruning() == Pruning::More
            && let Some(again) = self.again.upgrade()
        {
            self.compacting = again.send(Work::Compact).is_ok();
        }
    }
}

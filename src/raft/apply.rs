//! The apply lane: the only place where committed entries change the state.
//!
//! One hop of the lane handles a chunk of entries: decode, apply, publish, reply. Replies go out
//! after the state has published the changes, so a client reads its own write on this member.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use openraft::{EntryPayload, entry::RaftEntry, storage::ApplyResponder};
use prost::Message;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};

use super::{
    convert::{self, Entry, StoredMembership},
    error::StartError,
    metrics::ConsensusMetrics,
    store::RecoveredState,
    type_config::{EncodedCommands, EntryReplies, Types},
};
use crate::{
    fault::Fault,
    lane::{Lane, Lanes},
    proto::convert::decode_commands,
    state::{EventSink, Pruning, StateMachine, View},
    types::{LogPosition, MemberId, Ordinal, Revision},
};

/// Keys that one step of a compaction visits: less than a millisecond of work.
const COMPACTION_STEP_KEYS: usize = 4096;

/// Steps of a request that take longer than this are logged (etcd's `WarningApplyDuration`).
pub const WARNING_APPLY_DURATION: Duration = Duration::from_millis(100);

/// A request to the apply lane.
pub enum Work {
    Entries {
        entries: Vec<(Entry, Option<ApplyResponder<Types>>)>,
        done: Done,
    },
    Install {
        recovered: RecoveredState,
        done: Done,
    },
    /// One step of compaction. The lane sends it to itself between other work; `retention` sends it
    /// when a finished read may have unblocked compaction.
    Compact,
}

type Done = oneshot::Sender<io::Result<()>>;

/// Progress of the apply lane, for tasks that wait for it.
#[derive(Clone)]
pub struct ApplyProgress {
    pub view: View,
    pub applied: watch::Receiver<Option<LogPosition>>,
    /// The last compacted revision whose superseded versions are all submitted for deletion.
    pub pruned: watch::Receiver<Revision>,
    queue: mpsc::WeakUnboundedSender<Work>,
}

impl ApplyProgress {
    pub fn pruned(&self) -> Revision {
        *self.pruned.borrow()
    }

    /// Resumes a compaction that a read has blocked.
    pub fn resume_compaction(&self) {
        if self.view.pruned() < self.view.compacted()
            && let Some(queue) = self.queue.upgrade()
        {
            // The lane may have ended, at shutdown.
            let _ = queue.send(Work::Compact);
        }
    }
}

/// The parts that the apply lane is built from.
pub struct Parts {
    pub recovered: RecoveredState,
    pub sinks: Vec<Arc<dyn EventSink>>,
    pub metrics: Arc<ConsensusMetrics>,
}

/// Rebuilds the state and starts the lane. The lane ends when all strong senders of its queue are
/// gone.
pub fn start(
    lanes: Lanes,
    parts: Parts,
    fault: Fault,
) -> Result<(Lane, mpsc::UnboundedSender<Work>, ApplyProgress), StartError> {
    let Parts { recovered, sinks, metrics } = parts;
    let RecoveredState { storage, position, tables, records } = recovered;
    let machine = StateMachine::recover(storage, position, tables, records)
        .map_err(|e| StartError::State(e.to_string()))?
        .with_sinks(sinks);
    let view = machine.view();
    let (queue, inbox) = mpsc::unbounded_channel();
    let (applied_tx, applied) = watch::channel(position);
    let (pruned_tx, pruned) = watch::channel(view.pruned());
    let mut applier = Applier {
        machine,
        applied: applied_tx,
        pruned: pruned_tx,
        own_queue: queue.downgrade(),
        compacting: false,
        compaction_begun: None,
        metrics,
        fault,
    };
    applier.schedule_compaction();
    let lane = lanes.start("apply", inbox, move |work| applier.handle(work))?;
    let progress = ApplyProgress { view, applied, pruned, queue: queue.downgrade() };
    Ok((lane, queue, progress))
}

/// State of the lane.
struct Applier {
    machine: StateMachine,
    applied: watch::Sender<Option<LogPosition>>,
    pruned: watch::Sender<Revision>,
    /// Weak, so that the lane ends when all other senders are gone.
    own_queue: mpsc::WeakUnboundedSender<Work>,
    /// A `Compact` waits in the queue.
    compacting: bool,
    /// Start of the compaction in progress.
    compaction_begun: Option<Instant>,
    metrics: Arc<ConsensusMetrics>,
    fault: Fault,
}

impl Applier {
    fn handle(&mut self, work: &mut Vec<Work>) {
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
        // The requester may be gone, at shutdown.
        let _ = done.send(result.map_err(io::Error::other));
    }

    fn entries(
        &mut self,
        entries: Vec<(Entry, Option<ApplyResponder<Types>>)>,
    ) -> Result<(), String> {
        let begun = Instant::now();
        let count = entries.len();
        let _span = tracing::debug_span!("apply", entries = count).entered();
        let mut responses = Vec::with_capacity(count);
        let mut last = None;
        for (entry, responder) in entries {
            let position = convert::position(&entry.log_id());
            let replies = self.entry(position, entry.payload)?;
            last = Some(position);
            if let Some(responder) = responder {
                responses.push((responder, replies));
            }
        }
        self.machine.publish();
        self.observe_duration(count, last, begun.elapsed());
        for (responder, replies) in responses {
            responder.send(replies);
        }
        if last.is_some() {
            self.applied.send_replace(last);
        }
        self.schedule_compaction();
        Ok(())
    }

    fn observe_duration(&self, entries: usize, last: Option<LogPosition>, took: Duration) {
        self.metrics.apply.observe(took);
        if took <= WARNING_APPLY_DURATION {
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
        payload: EntryPayload<EncodedCommands, MemberId, Ordinal>,
    ) -> Result<EntryReplies, String> {
        let stop = |e: &dyn std::fmt::Display| format!("applying log entry {}: {e}", at.index);
        match payload {
            EntryPayload::Blank => self.machine.advance_applied(at),
            EntryPayload::Normal(EncodedCommands(data)) => {
                let commands = decode_commands(data).map_err(|e| stop(&e))?;
                tracing::debug!(
                    term = at.term.0,
                    index = at.index,
                    commands = commands.len(),
                    "applying"
                );
                let replies = self.machine.apply(at, commands).map_err(|e| stop(&e))?;
                replies.iter().flatten().for_each(|reply| self.metrics.operations.count(reply));
                return Ok(EntryReplies(replies));
            }
            EntryPayload::Membership(membership) => {
                let id = convert::log_id(at);
                let stored = StoredMembership::new(Some(id), membership);
                let wire = convert::stored_membership_to_wire(&stored);
                self.machine.set_membership(at, Bytes::from(wire.encode_to_vec()));
            }
        }
        Ok(EntryReplies::default())
    }

    fn install(&mut self, recovered: RecoveredState) -> Result<(), String> {
        let RecoveredState { storage, position, tables, records } = recovered;
        let machine = StateMachine::recover(storage, position, tables, records)
            .map_err(|e| format!("installing a snapshot: {e}"))?;
        self.machine.replace(machine);
        self.applied.send_replace(position);
        self.pruned.send_replace(self.machine.view().pruned());
        self.schedule_compaction();
        Ok(())
    }

    /// One bounded step. The next one queues behind other work.
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

    fn schedule_compaction(&mut self) {
        if !self.compacting
            && self.machine.pruning() == Pruning::More
            && let Some(queue) = self.own_queue.upgrade()
        {
            self.compacting = queue.send(Work::Compact).is_ok();
        }
    }
}

//! One member's Raft: start, propose, read index, stop.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use openraft::{
    ReadPolicy,
    async_runtime::watch::WatchReceiver as _,
    errors::{ClientWriteError, LinearizableReadError, RaftError},
    type_config::alias::WatchReceiverOf,
};
use tokio::sync::{mpsc, watch};
use tracing::{Instrument as _, field::Empty};

use super::{
    Commands, Types,
    apply::{Applier, Work},
    convert,
    leadership::place,
    log_store::LogStore,
    machine::Machine,
    metrics::ConsensusMetrics,
    network::{Network, QuorumClock},
    retention,
    store::{Recovered, SnapshotStore},
    timing::{Timing, TimingError},
    transport::Transport,
};
use crate::{
    fault::Fault,
    lane::{Lane, Lanes},
    state::{self, EventSink, View},
    stop::{Stop, Stopping},
    types::{CommandError, LogPosition, MemberId, Ordinal, PeerPlace, Reply, Revision},
    wal::{Log, Space},
};

/// At most about so many bytes are read from the log at once while it is replayed.
const REPLAY_BYTES: usize = 4 << 20;

/// What a member's Raft is made from.
#[derive(Debug, Clone, Copy)]
pub struct RaftOptions {
    pub me: MemberId,
    pub timing: Timing,
    pub lanes: Lanes,
    pub retention: retention::Retention,
}

/// Why Raft did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Timing(#[from] TimingError),
    #[error("rebuilding the state: {0}")]
    State(String),
    #[error("replaying the log: {0}")]
    Replay(String),
    #[error("starting raft: {0}")]
    Raft(String),
    #[error("starting a lane: {0}")]
    Lane(#[from] std::io::Error),
}

/// Why a proposal was not applied, as far as this member knows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Certainly never appended. Says who leads, if known.
    #[error("not the leader")]
    NotLeader(Option<PeerPlace>),
    /// It may have been appended, and may be applied yet.
    #[error("outcome unknown: {0}")]
    Unknown(String),
}

/// Why no read index was given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    #[error("not the leader")]
    NotLeader(Option<PeerPlace>),
    /// No majority answered.
    #[error("no quorum")]
    NoQuorum,
    #[error("raft has stopped")]
    Stopped,
}

/// An applied proposal: a reply to each of its commands.
#[derive(Debug)]
pub struct Proposed {
    pub position: LogPosition,
    pub replies: Vec<Result<Reply, CommandError>>,
}

type Openraft = openraft::Raft<Types, Machine>;

/// A handle. Cheap to clone; [`Raft::stop`] ends what [`Raft::start`] began.
#[derive(Clone)]
pub struct Raft {
    pub(super) raft: Openraft,
    pub(super) store: Arc<dyn SnapshotStore>,
    pub(super) clock: QuorumClock,
    pub(super) metrics: Arc<ConsensusMetrics>,
    log: Log,
    view: View,
    applied: watch::Receiver<Option<LogPosition>>,
    pruned: watch::Receiver<Revision>,
    nudge: mpsc::WeakUnboundedSender<Work>,
    timing: Timing,
    pub(super) me: MemberId,
}

/// What [`Raft::start`] made and somebody must join.
#[derive(Debug)]
pub struct RaftTasks {
    apply: Lane,
    retention: tokio::task::JoinHandle<()>,
    durable: tokio::task::JoinHandle<()>,
    core: tokio::task::JoinHandle<()>,
    stop: Stop,
    /// Later than the rest: what is applied waits to hear what is durable.
    stop_durable: Stop,
}

impl std::fmt::Debug for Raft {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Raft").field("me", &self.me).finish_non_exhaustive()
    }
}

impl Raft {
    /// Rebuilds the state, replays the log up to what is known to be committed, and takes part.
    /// `sinks` are told what changes, from the replay on.
    pub async fn start(
        options: RaftOptions,
        transport: impl Transport,
        log: Log,
        store: Arc<dyn SnapshotStore>,
        recovered: Recovered,
        sinks: Vec<Arc<dyn EventSink>>,
        fault: Fault,
    ) -> Result<(Raft, RaftTasks), StartError> {
        options.timing.check()?;
        let Recovered { storage, position, tables, records } = recovered;
        let machine = state::Machine::recover(storage, position, tables, records)
            .map_err(|e| StartError::State(e.to_string()))?
            .followed_by(sinks);
        let view = machine.view();
        let (lane, inbox) = mpsc::unbounded_channel();
        let (applied_tx, applied) = watch::channel(position);
        let (pruned_tx, pruned) = watch::channel(view.pruned());
        let metrics = Arc::<ConsensusMetrics>::default();
        let mut applier = Applier {
            machine,
            applied: applied_tx,
            pruned: pruned_tx,
            again: lane.downgrade(),
            compacting: false,
            compaction_begun: None,
            metrics: metrics.clone(),
            fault: fault.clone(),
        };
        applier.schedule_compaction();
        let apply = options.lanes.start("apply", inbox, move |work| applier.handle(work))?;

        let stop = Stop::default();
        let stopping = stop.stopping();
        let stop_durable = Stop::default();
        let log_store = LogStore::new(log.clone(), store.clone());
        let durable = tokio::spawn(log_store.clone().pass_on_durable(stop_durable.stopping()));
        let nudge = lane.downgrade();
        let machine =
            Machine { lane, store: store.clone(), view: view.clone(), metrics: metrics.clone() };
        replay(&log, &machine).await?;

        let clock = QuorumClock::default();
        let network = Network {
            transport,
            clock: clock.clone(),
            metrics: metrics.clone(),
            me: options.me,
            heartbeat: options.timing.heartbeat,
        };
        let config = options.timing.raft_config().validate();
        let config = config.map_err(|e| StartError::Raft(e.to_string()))?;
        let raft = openraft::Raft::new(options.me, Arc::new(config), network, log_store, machine)
            .await
            .map_err(|e| StartError::Raft(e.to_string()))?;
        clock.follow(raft.metrics());
        let handle = Raft {
            raft,
            store,
            clock,
            metrics: metrics.clone(),
            log,
            view,
            applied,
            pruned,
            nudge,
            timing: options.timing,
            me: options.me,
        };
        let watch = watch_core(handle.raft.metrics(), metrics, fault.clone(), stopping.clone());
        let core = tokio::spawn(watch);
        let retention =
            tokio::spawn(retention::run(handle.clone(), options.retention, stopping, fault));
        Ok((handle, RaftTasks { apply, retention, durable, core, stop, stop_durable }))
    }

    /// Ends Raft and joins everything it started. The log and the storage stay open.
    pub async fn stop(self, tasks: RaftTasks) {
        tasks.stop.stop();
        if let Err(e) = self.raft.shutdown().await {
            tracing::error!(error = %e, "raft ended badly");
        }
        drop(self);
        for task in [tasks.retention, tasks.core] {
            joined(task).await;
        }
        tasks.apply.join().await;
        tasks.stop_durable.stop();
        joined(tasks.durable).await;
    }

    /// Makes these members the first voters of a new cluster. Once only, on a pristine log.
    pub async fn initialize(&self, voters: &[PeerPlace]) -> Result<(), StartError> {
        let nodes: BTreeMap<MemberId, Ordinal> =
            voters.iter().map(|p| (p.member, p.ordinal)).collect();
        self.raft.initialize(nodes).await.map_err(|e| StartError::Raft(e.to_string()))
    }

    pub async fn is_initialized(&self) -> Result<bool, StartError> {
        self.raft.is_initialized().await.map_err(|e| StartError::Raft(e.to_string()))
    }

    /// Replicates an encoded `CommandBatch` and answers what applying it answered.
    pub async fn propose(&self, commands: Bytes) -> Result<Proposed, ProposeError> {
        let bytes = commands.len();
        let span = tracing::debug_span!("replicate", bytes, term = Empty, index = Empty);
        let written = self.raft.client_write(Commands(commands)).instrument(span.clone()).await;
        match written {
            Ok(done) => {
                let position = convert::position(&done.log_id);
                span.record("term", position.term.0).record("index", position.index);
                Ok(Proposed { position, replies: done.data.0 })
            }
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to))) => {
                Err(ProposeError::NotLeader(place(to.leader_id, to.leader_node)))
            }
            Err(e) => Err(ProposeError::Unknown(e.to_string())),
        }
    }

    /// Confirms that this member leads, and answers the index up to which a linearizable read
    /// must be applied (Raft dissertation, §6.4).
    pub async fn read_index(&self) -> Result<u64, ReadError> {
        match self.raft.get_read_linearizer(ReadPolicy::ReadIndex).await {
            Ok(linearizer) => Ok(linearizer.read_log_id().index()),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(to))) => {
                Err(ReadError::NotLeader(place(to.leader_id, to.leader_node)))
            }
            Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => {
                Err(ReadError::NoQuorum)
            }
            Err(RaftError::Fatal(_)) => Err(ReadError::Stopped),
        }
    }

    /// Waits until this member has applied the log up to `index`.
    pub async fn applied_at_least(&self, index: u64) -> Result<(), ReadError> {
        let mut applied = self.applied.clone();
        let reached = |at: &Option<LogPosition>| at.is_some_and(|at| at.index >= index);
        applied.wait_for(reached).await.map(|_| ()).map_err(|_| ReadError::Stopped)
    }

    /// Waits until the store has come to `revision` here.
    pub async fn revision_at_least(&self, revision: Revision) -> Result<(), ReadError> {
        let mut applied = self.applied.clone();
        loop {
            // Seen first: what is applied from here on wakes it up.
            applied.borrow_and_update();
            if self.view.revision() >= revision {
                return Ok(());
            }
            applied.changed().await.map_err(|_| ReadError::Stopped)?;
        }
    }

    /// Waits until nothing is indexed any more that a compaction up to `revision` made superfluous.
    pub async fn pruned_at_least(&self, revision: Revision) -> Result<(), ReadError> {
        let mut pruned = self.pruned.clone();
        pruned.wait_for(|at| *at >= revision).await.map(|_| ()).map_err(|_| ReadError::Stopped)
    }

    /// How far compaction has come, with everything that it freed submitted to the storage.
    pub(super) fn pruned(&self) -> Revision {
        *self.pruned.borrow()
    }

    /// Lets compaction go on, if a read held it up.
    pub(super) fn nudge_compaction(&self) {
        if self.view.pruned() < self.view.compacted()
            && let Some(lane) = self.nudge.upgrade()
        {
            // The lane may have ended, at shutdown.
            let _ = lane.send(Work::Compact);
        }
    }

    /// Whether this member can take no more for now: what was applied waits to be written.
    pub fn is_full(&self) -> bool {
        self.store.is_full()
    }

    /// Whether the disk has no room for the next segment of the log. The present one goes on for a
    /// while: for what makes room.
    pub fn log_is_short(&self) -> bool {
        *self.log.space().borrow() == Space::Low
    }

    /// The last entry that this member knows to be committed.
    pub fn committed_index(&self) -> Option<u64> {
        self.raft.metrics().borrow_watched().local_committed.map(|id| id.index())
    }

    pub fn metrics(&self) -> &ConsensusMetrics {
        &self.metrics
    }

    pub fn view(&self) -> &View {
        &self.view
    }

    pub fn log(&self) -> &Log {
        &self.log
    }

    pub fn timing(&self) -> Timing {
        self.timing
    }

    /// How many entries are committed, as far as this member was told, and not applied here.
    pub fn lag(&self) -> u64 {
        let applied = self.view.applied().map_or(0, |at| at.index);
        self.clock.committed().saturating_sub(applied)
    }

    /// When a quorum was last known to hold: the leader by itself, others as it told them.
    pub fn quorum_age(&self) -> Option<Duration> {
        self.clock.age()
    }

    pub fn last_index(&self) -> Option<u64> {
        self.raft.metrics().borrow_watched().last_log_index
    }

    pub(super) fn trigger(&self) -> openraft::raft::trigger::Trigger<'_, Types> {
        self.raft.trigger()
    }
}

/// Applies what is known to be committed, before Raft looks at the state.
async fn replay(log: &Log, machine: &Machine) -> Result<(), StartError> {
    let failed = |e: &dyn std::fmt::Display| StartError::Replay(e.to_string());
    let Some(committed) = log.hard_state().committed else { return Ok(()) };
    let mut next = machine.view.applied().map_or(0, |p| p.index + 1);
    if next <= committed.index {
        tracing::info!(from = next, to = committed.index, "replaying the log");
    }
    while next <= committed.index {
        let entries =
            log.read(next..committed.index + 1, REPLAY_BYTES).await.map_err(|e| failed(&e))?;
        if entries.is_empty() {
            return Err(StartError::Replay(format!("log entry {next} is missing")));
        }
        next += entries.len() as u64;
        let entries = entries
            .into_iter()
            .map(|e| convert::entry_from_domain(e).map(|e| (e, None)))
            .collect::<Result<_, _>>()
            .map_err(|e| failed(&e))?;
        machine.apply_chunk(entries).await.map_err(|e| failed(&e))?;
    }
    Ok(())
}

/// Counts changes of leader. A Raft that has ended by itself cannot be trusted to have done so for a
/// good reason.
async fn watch_core(
    mut raft: WatchReceiverOf<Types, openraft::RaftMetrics<Types>>,
    metrics: Arc<ConsensusMetrics>,
    fault: Fault,
    mut stopping: Stopping,
) {
    let mut leader = None;
    loop {
        let (ended, led_by) = {
            let now = raft.borrow_and_update();
            (now.running_state.clone().err(), now.current_leader)
        };
        if std::mem::replace(&mut leader, led_by) != led_by && led_by.is_some() {
            metrics.leader_changes.increment();
        }
        let changed = async { raft.changed().await.is_ok() };
        tokio::select! {
            biased;
            () = stopping.wait() => return,
            () = std::future::ready(()), if ended.is_some() => {
                let why = ended.map(|e| e.to_string()).unwrap_or_default();
                return fault.stop(format_args!("raft ended: {why}"));
            }
            goes_on = changed => if !goes_on {
                return fault.stop("raft ended without a word");
            },
        }
    }
}

async fn joined(task: tokio::task::JoinHandle<()>) {
    if let Err(e) = task.await {
        tracing::error!(error = %e, "a raft task ended badly");
    }
}

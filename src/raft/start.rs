//! Start and shutdown of one member's Raft.
//!
//! Start: apply lane → replay of the committed log → openraft → retention. Shutdown runs the other
//! way round, but the forwarding of the durable index ends last: the storage writes applied entries
//! only once it knows that the WAL has them durable.

use std::{collections::BTreeMap, sync::Arc};

use openraft::{async_runtime::watch::WatchReceiver as _, type_config::alias::WatchReceiverOf};

use super::{
    apply,
    error::StartError,
    handle::Raft,
    log_store::LogStore,
    metrics::ConsensusMetrics,
    quorum_contact::QuorumContact,
    replay::replay,
    retention::{Retention, RetentionTask},
    rpc_client::RpcClientFactory,
    state_machine::StateMachineAdapter,
    store::{RecoveredState, SnapshotStore},
    timing::Timing,
    transport::Transport,
    type_config::Types,
};
use crate::{
    fault::Fault,
    lane::{Lane, Lanes},
    shutdown::{Shutdown, ShutdownSignal},
    state::EventSink,
    types::{MemberId, MemberRef, Ordinal},
    wal::Log,
};

/// Settings of a member's Raft.
#[derive(Debug, Clone, Copy)]
pub struct RaftOptions {
    pub me: MemberId,
    pub timing: Timing,
    pub lanes: Lanes,
    pub retention: Retention,
}

/// The parts that [`Raft::start`] connects.
pub struct RaftParts<T> {
    pub transport: T,
    pub log: Log,
    pub store: Arc<dyn SnapshotStore>,
    pub recovered: RecoveredState,
    /// Receive every change of the state, from the replay on.
    pub sinks: Vec<Arc<dyn EventSink>>,
    pub fault: Fault,
}

impl<T> std::fmt::Debug for RaftParts<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RaftParts").field("recovered", &self.recovered).finish_non_exhaustive()
    }
}

/// The tasks that [`Raft::start`] spawned. [`Raft::stop`] joins them.
#[derive(Debug)]
pub struct RaftTasks {
    apply: Lane,
    retention: tokio::task::JoinHandle<()>,
    durable: tokio::task::JoinHandle<()>,
    core: tokio::task::JoinHandle<()>,
    shutdown: Shutdown,
    /// Triggered once the apply lane has ended.
    durable_shutdown: Shutdown,
}

impl Raft {
    /// Rebuilds the state, replays the committed log, and joins the Raft group.
    pub async fn start<T: Transport>(
        options: RaftOptions,
        parts: RaftParts<T>,
    ) -> Result<(Raft, RaftTasks), StartError> {
        options.timing.check()?;
        let RaftParts { transport, log, store, recovered, sinks, fault } = parts;
        let metrics = Arc::<ConsensusMetrics>::default();
        let applier = apply::Parts { recovered, sinks, metrics: metrics.clone() };
        let (apply_lane, lane, progress) = apply::start(options.lanes, applier, fault.clone())?;

        let (shutdown, durable_shutdown) = (Shutdown::default(), Shutdown::default());
        let log_store = LogStore::new(log.clone(), store.clone());
        let durable =
            tokio::spawn(log_store.clone().forward_durable_index(durable_shutdown.signal()));
        let (view, adapter_metrics) = (progress.view.clone(), metrics.clone());
        let machine =
            StateMachineAdapter { lane, store: store.clone(), view, metrics: adapter_metrics };
        replay(&log, &machine).await?;

        let quorum = QuorumContact::default();
        let network = RpcClientFactory {
            transport,
            quorum: quorum.clone(),
            metrics: metrics.clone(),
            me: options.me,
            heartbeat: options.timing.heartbeat,
        };
        let config = options.timing.raft_config().validate();
        let config = config.map_err(|e| StartError::Raft(e.to_string()))?;
        let raft = openraft::Raft::new(options.me, Arc::new(config), network, log_store, machine)
            .await
            .map_err(|e| StartError::Raft(e.to_string()))?;
        quorum.follow(raft.metrics());
        let retention = RetentionTask {
            raft: raft.clone(),
            log: log.clone(),
            store: store.clone(),
            progress: progress.clone(),
            retention: options.retention,
            fault: fault.clone(),
        };
        let core = watch_core(raft.metrics(), metrics.clone(), fault, shutdown.signal());
        let core = tokio::spawn(core);
        let retention = tokio::spawn(retention.run(shutdown.signal()));
        let handle = Raft {
            raft,
            store,
            quorum,
            metrics,
            log,
            progress,
            timing: options.timing,
            me: options.me,
        };
        let tasks =
            RaftTasks { apply: apply_lane, retention, durable, core, shutdown, durable_shutdown };
        Ok((handle, tasks))
    }

    /// Ends Raft and joins everything that it started. The log and the storage stay open.
    pub async fn stop(self, tasks: RaftTasks) {
        tasks.shutdown.trigger();
        if let Err(e) = self.raft.shutdown().await {
            tracing::error!(error = %e, "raft shutdown failed");
        }
        drop(self);
        join(tasks.retention, "retention").await;
        join(tasks.core, "watch_core").await;
        tasks.apply.join().await;
        tasks.durable_shutdown.trigger();
        join(tasks.durable, "forward_durable_index").await;
    }

    /// Makes these members the first voters of a new cluster. Allowed once, on a pristine log.
    pub async fn initialize(&self, voters: &[MemberRef]) -> Result<(), StartError> {
        let nodes: BTreeMap<MemberId, Ordinal> =
            voters.iter().map(|p| (p.member, p.ordinal)).collect();
        self.raft.initialize(nodes).await.map_err(|e| StartError::Raft(e.to_string()))
    }

    pub async fn is_initialized(&self) -> Result<bool, StartError> {
        self.raft.is_initialized().await.map_err(|e| StartError::Raft(e.to_string()))
    }
}

/// Counts leader changes, and stops the member when openraft ends on its own: its state is then
/// undefined.
async fn watch_core(
    mut raft: WatchReceiverOf<Types, openraft::RaftMetrics<Types>>,
    metrics: Arc<ConsensusMetrics>,
    fault: Fault,
    mut shutdown: ShutdownSignal,
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
            () = shutdown.wait() => return,
            () = std::future::ready(()), if ended.is_some() => {
                let reason = ended.map(|e| e.to_string()).unwrap_or_default();
                return fault.stop(format_args!("raft ended: {reason}"));
            }
            goes_on = changed => if !goes_on {
                return fault.stop("raft ended without a reason");
            },
        }
    }
}

async fn join(task: tokio::task::JoinHandle<()>, name: &str) {
    if let Err(e) = task.await {
        tracing::error!(task = name, error = %e, "raft task failed");
    }
}

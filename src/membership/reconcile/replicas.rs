//! Records the replicas of the StatefulSet in the log, and keeps the bootstrap record intact.

use std::time::Duration;

use super::MembershipReconciler;
use crate::{
    membership::orchestrator::{BootstrapRecord, ClusterEvent, Intent, Orchestrator, StoredRecord},
    node::NodePort,
    shutdown::ShutdownSignal,
    types::{Command, DesiredReplicas},
};

const POLL_INTERVAL: Duration = Duration::from_secs(2);
/// The bootstrap record is checked in every fifth poll.
const POLLS_PER_RECORD_CHECK: u32 = 5;

impl<N: NodePort> MembershipReconciler<N> {
    /// While this member leads, polls the orchestrator for the desired replicas and replicates them.
    pub async fn follow_pods(&self, mut stopping: ShutdownSignal) {
        let Some(pods) = &self.orchestrator else { return };
        let mut tick = tokio::time::interval(POLL_INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut polls = 0;
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = stopping.wait() => return,
            }
            if !self.raft.leadership().is_mine() {
                continue;
            }
            polls += 1;
            tokio::select! {
                () = stopping.wait() => return,
                () = self.poll_intent(&**pods) => {}
            }
            if polls % POLLS_PER_RECORD_CHECK == 1 {
                tokio::select! {
                    () = stopping.wait() => return,
                    () = self.restore_bootstrap_record(&**pods) => {}
                }
            }
        }
    }

    async fn poll_intent(&self, pods: &dyn Orchestrator) {
        match pods.intent().await {
            Ok(Intent::Scale(desired)) => self.set_desired_replicas(desired).await,
            // All members stop, and none leaves.
            Ok(Intent::Hibernate) => {}
            Err(e) => tracing::debug!(error = %e, "desired replicas unknown, membership unchanged"),
        }
    }

    /// Replicates the desired replicas, unless they are recorded already.
    pub async fn set_desired_replicas(&self, desired: DesiredReplicas) {
        if self.raft.view().roster().desired.as_ref() == Some(&desired) {
            return;
        }
        if let Err(e) = self.node.propose(Command::SetDesiredReplicas(desired)).await {
            tracing::debug!(error = %e, "desired replicas not replicated yet");
        }
    }

    /// Writes the bootstrap record again if it was emptied: an empty record permits a second cluster.
    async fn restore_bootstrap_record(&self, pods: &dyn Orchestrator) {
        let ours = BootstrapRecord::Formed { cluster: self.cluster };
        match pods.bootstrap_record().await {
            Ok(Some(StoredRecord { record, .. })) if record == ours => {}
            Ok(Some(StoredRecord { record: BootstrapRecord::Formed { cluster }, .. })) => {
                let message = format!(
                    "the bootstrap record names cluster {cluster}, but cluster {} is running",
                    self.cluster
                );
                tracing::error!("{message}");
                pods.emit(ClusterEvent {
                    of_set: true,
                    ..ClusterEvent::warning("Refused", message)
                });
            }
            Ok(Some(StoredRecord { version, .. })) => {
                match pods.write_bootstrap_record(ours, &version).await {
                    Ok(true) => tracing::warn!("lost bootstrap record restored"),
                    Ok(false) => {}
                    Err(e) => tracing::debug!(error = %e, "bootstrap record not restored yet"),
                }
            }
            Ok(None) => {}
            Err(e) => tracing::debug!(error = %e, "bootstrap record not read"),
        }
    }
}

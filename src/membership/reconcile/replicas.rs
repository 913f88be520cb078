//! Records the replicas of the StatefulSet in the log.

use std::time::Duration;

use super::MembershipReconciler;
use crate::{
    membership::{
        orchestrator::{ClusterEvent, Intent, Orchestrator},
        restored_set::{Reading, RestoreDetector, reopen},
    },
    node::{NodeError, NodePort},
    shutdown::ShutdownSignal,
    types::{Command, DesiredReplicas},
};

const POLL_INTERVAL: Duration = Duration::from_secs(2);

impl<N: NodePort> MembershipReconciler<N> {
    /// While this member leads, polls the orchestrator for the desired replicas and replicates them.
    pub async fn follow_pods(&self, mut stopping: ShutdownSignal) {
        let Some(pods) = &self.orchestrator else { return };
        let mut tick = tokio::time::interval(POLL_INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut detector = RestoreDetector::default();
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = stopping.wait() => return,
            }
            if !self.raft.leadership().is_mine() {
                detector = RestoreDetector::default();
                continue;
            }
            tokio::select! {
                () = stopping.wait() => return,
                () = self.poll_intent(&**pods, &mut detector) => {}
            }
        }
    }

    async fn poll_intent(&self, pods: &dyn Orchestrator, detector: &mut RestoreDetector) {
        let desired = match pods.intent().await {
            Ok(Intent::Scale(desired)) => desired,
            // All members stop, and none leaves.
            Ok(Intent::Hibernate) => return,
            Err(e) => {
                tracing::debug!(error = %e, "desired replicas unknown, membership unchanged");
                return;
            }
        };
        let recorded = self.raft.view().roster().desired.clone();
        let reading = detector.observe(&desired, recorded.as_ref());
        match recorded {
            Some(recorded) if reading == Reading::Restored => {
                match self.replace_restored(&desired, &recorded).await {
                    Ok(()) => report_restored(pods, &desired, &recorded),
                    Err(e) => tracing::debug!(error = %e, "restored set not replicated yet"),
                }
            }
            _ if reading == Reading::Older => {
                tracing::debug!(generation = desired.generation, "an older generation was read");
            }
            _ => self.set_desired_replicas(desired).await,
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

    /// Replicates a lower generation of the recorded set, in the two steps of
    /// [`restored_set`](crate::membership). After the first one alone, the next poll completes it.
    async fn replace_restored(
        &self,
        desired: &DesiredReplicas,
        recorded: &DesiredReplicas,
    ) -> Result<(), NodeError> {
        for desired in [reopen(recorded), desired.clone()] {
            self.node.propose(Command::SetDesiredReplicas(desired)).await?;
        }
        Ok(())
    }
}

fn report_restored(pods: &dyn Orchestrator, desired: &DesiredReplicas, recorded: &DesiredReplicas) {
    let message = format!(
        "the StatefulSet has generation {}, but {} was recorded: the control plane was restored. Its \
         replicas are followed again: {} from ordinal {} on, before {} from ordinal {} on",
        desired.generation,
        recorded.generation,
        desired.replicas,
        desired.start,
        recorded.replicas,
        recorded.start
    );
    tracing::warn!("{message}");
    pods.emit(ClusterEvent::set_warning("Restored", message));
}

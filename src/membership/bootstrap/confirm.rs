//! The founder's confirmation, and the check of each start, against the bootstrap record.

use std::time::Duration;

use super::{
    founding::FOUNDER,
    rpc::BootstrapRpc,
    state::{Bootstrap, BootstrapError, Bootstrapped},
};
use crate::{
    membership::{
        identity::Identity,
        orchestrator::{BootstrapRecord, ClusterEvent, Intent, Orchestrator, StoredRecord},
        other_formed::OtherFormed,
    },
    types::{ClusterId, DesiredReplicas, Ordinal},
};

const RETRY_INTERVAL: Duration = Duration::from_millis(500);

impl Bootstrap {
    /// One round of a founder whose claim may have succeeded or not.
    pub async fn continue_founding(
        &self,
        pods: &dyn Orchestrator,
        identity: Identity,
    ) -> Result<Option<Bootstrapped>, BootstrapError> {
        let Some(stored) = self.read_bootstrap_record(pods).await else { return Ok(None) };
        match stored.record {
            BootstrapRecord::Claimed { cluster, .. } | BootstrapRecord::Formed { cluster }
                if cluster == identity.cluster =>
            {
                Ok(self.settle(identity, true))
            }
            // Without a log this identity was never used.
            BootstrapRecord::Claimed { .. }
            | BootstrapRecord::Formed { .. }
            | BootstrapRecord::Empty => {
                self.discard_identity(&identity)?;
                Ok(None)
            }
        }
    }

    /// The last step of a founder before it serves clients: waits until the record is `formed`.
    ///
    /// # Errors
    /// Another pod has founded the cluster: this volume's member is dead.
    pub async fn confirm_founded(
        &self,
        peers: &impl BootstrapRpc,
        identity: &Identity,
    ) -> Result<(), BootstrapError> {
        let Some(pods) = self.orchestrator() else { return Ok(()) };
        let cluster = identity.cluster;
        loop {
            self.find_last_leader(&**pods).await;
            let desired = self.read_desired(&**pods).await;
            // The record of a running cluster may have been emptied while its members were starting.
            if let Some(ordinal) = self.another_cluster(peers).await {
                self.give_up(&**pods, cluster, ordinal).await?;
                return Err(BootstrapError::Superseded);
            }
            match pods.bootstrap_record().await {
                Ok(Some(StoredRecord {
                    record: BootstrapRecord::Formed { cluster: formed },
                    ..
                })) if formed == cluster => {
                    self.state().confirmed = true;
                    let message = format!("cluster {cluster} is formed");
                    pods.emit(ClusterEvent::of_set("Formed", message));
                    return Ok(());
                }
                Ok(Some(stored)) if let Some(next) = next_record(&stored, identity) => {
                    let desired = desired.as_ref();
                    if self.may_still_found(peers, &**pods, &stored, desired).await
                        && self.swap_record(&**pods, next, &stored.version).await
                    {
                        continue;
                    }
                }
                Ok(Some(_)) => {
                    self.mark_removed()?;
                    return Err(BootstrapError::Superseded);
                }
                Ok(None) => {
                    self.report_waiting("the ConfigMap of the bootstrap record is missing");
                }
                Err(e) => self.report_waiting(&e.to_string()),
            }
            tokio::time::sleep(RETRY_INTERVAL).await;
        }
    }

    /// The checks of a first claim, again: other pods and claims may have appeared since.
    async fn may_still_found(
        &self,
        peers: &impl BootstrapRpc,
        pods: &dyn Orchestrator,
        stored: &StoredRecord,
        desired: Option<&DesiredReplicas>,
    ) -> bool {
        let Some(desired) = desired else {
            self.report_waiting("the replicas of the StatefulSet are unknown");
            return false;
        };
        self.may_found_now(peers, pods, stored, desired).await
    }

    /// The desired replicas, which it also adds to the ordinals to ask. `None`: unknown, or zero.
    async fn read_desired(&self, pods: &dyn Orchestrator) -> Option<DesiredReplicas> {
        let Ok(Intent::Scale(desired)) = pods.intent().await else { return None };
        self.note_desired(&desired);
        Some(desired)
    }

    /// Gives up this founder's cluster, which has served no client, in favour of another one that has. A
    /// claimed record is emptied. A formed one stays: this volume may be an old copy of a founder's.
    async fn give_up(
        &self,
        pods: &dyn Orchestrator,
        cluster: ClusterId,
        other: Ordinal,
    ) -> Result<(), BootstrapError> {
        let message =
            format!("ordinal {other} belongs to a cluster already, giving up cluster {cluster}");
        tracing::error!("{message}");
        pods.emit(ClusterEvent::warning("Refused", message));
        if let Ok(Some(StoredRecord {
            record: BootstrapRecord::Claimed { cluster: claimed, .. },
            version,
            ..
        })) = pods.bootstrap_record().await
            && claimed == cluster
        {
            self.swap_record(pods, BootstrapRecord::Empty, &version).await;
        }
        Ok(self.mark_removed()?)
    }

    /// Refuses a member of another cluster than the recorded one.
    pub async fn check_bootstrap_record(
        &self,
        pods: &dyn Orchestrator,
        identity: &Identity,
    ) -> Result<(), BootstrapError> {
        match pods.bootstrap_record().await {
            Ok(Some(StoredRecord { record: BootstrapRecord::Formed { cluster }, .. }))
                if cluster != identity.cluster =>
            {
                let error = BootstrapError::OtherCluster(OtherFormed::new(identity, cluster));
                pods.emit(ClusterEvent::warning("Refused", error.to_string()));
                Err(error)
            }
            // A member with data starts even if Kubernetes does not answer.
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

/// The record that this founder writes next: it forms its own claim, or claims a record that was emptied
/// since. `None`: the record belongs to another founder, or is formed.
fn next_record(stored: &StoredRecord, identity: &Identity) -> Option<BootstrapRecord> {
    let (cluster, ordinal) = (identity.cluster, identity.ordinal);
    match stored.record {
        BootstrapRecord::Claimed { cluster: claimed, .. } if claimed == cluster => {
            Some(BootstrapRecord::Formed { cluster })
        }
        BootstrapRecord::Empty => {
            Some(BootstrapRecord::Claimed { cluster, member: FOUNDER, ordinal })
        }
        BootstrapRecord::Claimed { .. } | BootstrapRecord::Formed { .. } => None,
    }
}

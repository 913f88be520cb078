//! Disaster recovery: one volume continues as a new cluster after a majority is lost for good.
//!
//! An operator orders it. The order is stored in the identity, with the ids of the new cluster and of the old
//! one; then the member stops. Its next start writes the bootstrap record, if it is a pod, and continues
//! alone. The other members belong to the old cluster: the record fences those that run, and their starts
//! are refused until their volumes are deleted.
//!
//! The next start may come late, after another volume was recovered instead. So the order replaces no formed
//! record but that of the old cluster: with any other one the start is refused.

use super::state::{Bootstrap, BootstrapError, Bootstrapped};
use crate::{
    membership::{
        datadir::DataDirError,
        identity::{Identity, Stage},
        orchestrator::{BootstrapRecord, ClusterEvent, Orchestrator},
        other_formed::StaleRecovery,
    },
    types::ClusterId,
};

impl Bootstrap {
    /// Stores the order, and returns the id of the new cluster. `None`: this volume is no member.
    /// Blocks on the disk.
    pub fn order_recovery(&self) -> Result<Option<ClusterId>, DataDirError> {
        let _deciding = self.deciding();
        let Some(identity) = self.identity().filter(|identity| identity.stage == Stage::Member)
        else {
            return Ok(None);
        };
        let cluster = ClusterId(self.rng.next_id());
        let recovered_from = Some(identity.cluster);
        self.store(Identity { cluster, stage: Stage::Recovering, recovered_from, ..identity })?;
        Ok(Some(cluster))
    }

    /// Resolves once a recovery is ordered.
    pub async fn recovery_ordered(&self) {
        loop {
            let changed = self.changed();
            if self.identity().is_some_and(|identity| identity.stage == Stage::Recovering) {
                return;
            }
            changed.await;
        }
    }

    /// One round of a started member with that order: the record must name the new cluster first.
    ///
    /// # Errors
    /// The record names a third cluster.
    pub async fn continue_recovery(
        &self,
        pods: Option<&dyn Orchestrator>,
        identity: Identity,
    ) -> Result<Option<Bootstrapped>, BootstrapError> {
        let Some(pods) = pods else { return Ok(self.settle(identity, false)) };
        let ours = BootstrapRecord::Formed { cluster: identity.cluster };
        match pods.bootstrap_record().await {
            Ok(Some(stored)) if stored.record == ours => {
                return Ok(self.settle(identity, false));
            }
            Ok(Some(stored)) => {
                if let BootstrapRecord::Formed { cluster } = stored.record
                    && identity.recovered_from != Some(cluster)
                {
                    let stale = StaleRecovery::new(&identity, cluster);
                    pods.emit(ClusterEvent::warning("Refused", stale.to_string()));
                    return Err(stale.into());
                }
                self.swap_record(pods, ours, &stored.version).await;
            }
            // The old cluster has no leader that would write a deleted record again.
            Ok(None) => {
                if let Err(e) = pods.create_bootstrap_record(ours).await {
                    self.report_waiting(&e.to_string());
                }
            }
            Err(e) => self.report_waiting(&e.to_string()),
        }
        Ok(None)
    }
}

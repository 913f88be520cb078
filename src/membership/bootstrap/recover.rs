//! Disaster recovery: one volume continues as a new cluster after a majority is lost for good.
//!
//! An operator orders it. The order is stored in the identity, with the ids of the new cluster and of the old
//! one; then the member stops. Its next start writes the bootstrap record, if it is a pod, and continues
//! alone. The other members belong to the old cluster: the record fences those that run, and their starts
//! are refused until their volumes are deleted.
//!
//! The next start may come late, after another volume was recovered instead. So the order replaces no record
//! but that of the old cluster: with another cluster's the start is refused, and with one that names none, or
//! without a record, the volume waits for an operator.

use super::state::{Bootstrap, BootstrapError, Bootstrapped};
use crate::{
    membership::{
        datadir::DataDirError,
        identity::{Identity, Stage},
        orchestrator::{BootstrapRecord, ClusterEvent, Orchestrator, StoredRecord},
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
            Ok(Some(StoredRecord { record: BootstrapRecord::Formed { cluster }, version, .. })) => {
                if identity.recovered_from != Some(cluster) {
                    let stale = StaleRecovery::new(&identity, cluster);
                    pods.emit(ClusterEvent::warning("Refused", stale.to_string()));
                    return Err(stale.into());
                }
                self.swap_record(pods, ours, &version).await;
            }
            Ok(_) => self.report_waiting(&format!(
                "this volume has the order to recover as cluster {ours}, but the bootstrap record names no \
                 cluster, so another one may have been recovered since. If none has, write `state: formed` and \
                 `cluster: {ours}` into the ConfigMap (apply the manifests first if it is missing)",
                ours = identity.cluster
            )),
            Err(e) => self.report_waiting(&e.to_string()),
        }
        Ok(None)
    }
}

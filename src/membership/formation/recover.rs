//! The last resort: one volume goes on as a new cluster, when a majority of them is lost for good.
//!
//! A person orders it. The order is kept in the identity, with the new cluster's id; then the member
//! stops. At its next start it writes the claim, if it is a pod, and goes on alone; the others, which
//! are of the old cluster, are refused until their volumes are gone.

use super::{Formation, Formed};
use crate::{
    membership::{
        Claim, Claimed, Orchestrator,
        datadir::DataDirError,
        identity::{Identity, Stage},
    },
    types::ClusterId,
};

impl Formation {
    /// Keeps the order to go on alone, and the id of the new cluster. Blocks on the disk.
    pub fn order_recovery(&self) -> Result<Option<ClusterId>, DataDirError> {
        let _deciding = self.deciding();
        let Some(identity) = self.identity().filter(|identity| identity.stage == Stage::Member)
        else {
            return Ok(None);
        };
        let cluster = ClusterId(self.new_id());
        self.store(Identity { cluster, stage: Stage::Recovering, ..identity })?;
        Ok(Some(cluster))
    }

    /// Resolves when this member was ordered to stop and go on alone.
    pub async fn recovery_ordered(&self) {
        loop {
            let changed = self.changed();
            if self.identity().is_some_and(|identity| identity.stage == Stage::Recovering) {
                return;
            }
            changed.await;
        }
    }

    /// A started member with that order: the claim has to name the new cluster first.
    pub(super) async fn recovering_pod(
        &self,
        pods: Option<&dyn Orchestrator>,
        identity: Identity,
    ) -> Option<Formed> {
        let ours = Claim::Formed { cluster: identity.cluster };
        let Some(pods) = pods else { return self.settle(identity, false) };
        match pods.claim().await {
            Ok(Some(Claimed { claim, .. })) if claim == ours => self.settle(identity, false),
            Ok(Some(Claimed { version, .. })) => {
                self.swap(pods, ours, &version).await;
                None
            }
            Ok(None) => {
                self.waits("the ConfigMap of the claim is missing");
                None
            }
            Err(e) => {
                self.waits(&e.to_string());
                None
            }
        }
    }
}

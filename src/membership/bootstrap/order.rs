//! An operator's order to found a cluster although volumes of a former one exist.
//!
//! The order is stored in the bootstrap record, so it reaches whichever pod may found, survives its restart,
//! and ends with the record's next `formed` or empty state. It overrides [evidence](super::evidence), never
//! a member that answers: such an answer withdraws the order, which was given without it. It names the claims that it is about, so one that is left over does not concern
//! claims that appear later, and none is given while the claims are unknown.

use super::state::Bootstrap;
use crate::{
    membership::{
        identity::Stage,
        orchestrator::{
            BootstrapRecord, FormerClaim, FoundingOrder, Orchestrator, OrchestratorError,
        },
    },
    types::ClusterId,
};

/// The order was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum FoundingOrderError {
    #[error(
        "no StatefulSet: outside of Kubernetes, volumes of a former cluster prevent no founding"
    )]
    NoPod,
    #[error("this volume belongs to cluster {0} already: there is nothing to found")]
    Member(ClusterId),
    #[error(
        "cluster {0} is formed, as the bootstrap record says: this pod joins it once one of its members \
         answers. If a majority of its volumes is lost: kvctl cluster recover"
    )]
    Formed(ClusterId),
    #[error(
        "the ConfigMap of the bootstrap record is missing: apply the manifests again, then repeat this"
    )]
    NoRecord,
    #[error(
        "the PersistentVolumeClaims are unknown, so nobody knows which data would be abandoned: {0}. Apply \
         the Role again if it lacks list on persistentvolumeclaims, then repeat this"
    )]
    ClaimsUnknown(OrchestratorError),
    #[error("the bootstrap record has just changed: repeat this")]
    Changed,
    #[error(transparent)]
    Orchestrator(#[from] OrchestratorError),
}

impl Bootstrap {
    /// Orders a founding despite the volumes of a former cluster. Returns their claims.
    pub async fn order_founding(&self) -> Result<Vec<FormerClaim>, FoundingOrderError> {
        let pods = self.orchestrator().ok_or(FoundingOrderError::NoPod)?;
        if let Some(identity) = self.identity().filter(|identity| identity.stage != Stage::Promised)
        {
            return Err(FoundingOrderError::Member(identity.cluster));
        }
        let stored = pods.bootstrap_record().await?.ok_or(FoundingOrderError::NoRecord)?;
        if let BootstrapRecord::Formed { cluster } = stored.record {
            return Err(FoundingOrderError::Formed(cluster));
        }
        let claims = pods.former_claims().await.map_err(FoundingOrderError::ClaimsUnknown)?;
        let me = self.config.ordinal;
        let others: Vec<_> = claims.into_iter().filter(|claim| claim.ordinal != me).collect();
        let order = FoundingOrder::new(&others);
        if stored.order.as_ref() != Some(&order)
            && !pods.order_founding(&order, &stored.version).await?
        {
            return Err(FoundingOrderError::Changed);
        }
        tracing::warn!(%order, "an operator orders to found a cluster");
        Ok(others)
    }

    /// Removes an order from a record that names no cluster, since a member of one answers.
    pub async fn withdraw_order(&self, pods: &dyn Orchestrator) {
        let Ok(Some(stored)) = pods.bootstrap_record().await else { return };
        if stored.order.is_some()
            && stored.record == BootstrapRecord::Empty
            && self.swap_record(pods, BootstrapRecord::Empty, &stored.version).await
        {
            tracing::warn!(
                "a member of a cluster answers: the order to found another one is withdrawn"
            );
        }
    }
}

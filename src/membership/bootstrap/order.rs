//! An operator's order to found a cluster although volumes of a former one exist.
//!
//! The order is stored in the bootstrap record, so it reaches whichever pod may found, survives its restart,
//! and ends with the record's next `formed` or empty state. It overrides [evidence](super::evidence), never
//! a member that answers.

use super::state::Bootstrap;
use crate::{
    membership::{
        identity::Stage,
        orchestrator::{BootstrapRecord, FormerClaim, OrchestratorError},
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
    #[error("the bootstrap record has just changed: repeat this")]
    Changed,
    #[error(transparent)]
    Orchestrator(#[from] OrchestratorError),
}

impl Bootstrap {
    /// Orders a founding despite the volumes of a former cluster. Returns their claims, as far as known.
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
        let claims = match pods.former_claims().await {
            Ok(claims) => claims,
            // The operator orders it in spite of claims that are unknown, too.
            Err(e) => {
                tracing::warn!(error = %e, "former claims unknown");
                Vec::new()
            }
        };
        let me = self.config.ordinal;
        let others: Vec<_> = claims.into_iter().filter(|claim| claim.ordinal != me).collect();
        if !stored.despite_volumes && !pods.order_founding(&stored.version).await? {
            return Err(FoundingOrderError::Changed);
        }
        let claims: Vec<&str> = others.iter().map(|claim| claim.name.as_str()).collect();
        tracing::warn!(?claims, "an operator orders to found a cluster despite former volumes");
        Ok(others)
    }
}

//! The rounds: each observes everything, and makes at most one step.

use std::time::Duration;

use super::{
    rpc::BootstrapRpc,
    state::{Bootstrap, BootstrapError, Bootstrapped},
};
use crate::membership::identity::{Identity, Stage};

const ROUND_INTERVAL: Duration = Duration::from_millis(200);
/// After [`FAST_ROUNDS`]: each round asks other members.
const SLOW_ROUND_INTERVAL: Duration = Duration::from_secs(1);
const FAST_ROUNDS: u32 = 25;

impl Bootstrap {
    /// Waits until this volume is a member of a cluster.
    pub async fn run(&self, peers: &impl BootstrapRpc) -> Result<Bootstrapped, BootstrapError> {
        let mut rounds = 0;
        loop {
            let changed = self.changed();
            if let Some(formed) = self.round(peers).await? {
                return Ok(formed);
            }
            rounds += 1;
            if rounds % FAST_ROUNDS == 0 {
                tracing::info!(ordinal = %self.config.ordinal, "waiting for the other members");
            }
            let interval = if rounds < FAST_ROUNDS { ROUND_INTERVAL } else { SLOW_ROUND_INTERVAL };
            // The next round observes everything again, whether something has changed or not.
            let _ = tokio::time::timeout(interval, changed).await;
        }
    }

    pub async fn round(
        &self,
        peers: &impl BootstrapRpc,
    ) -> Result<Option<Bootstrapped>, BootstrapError> {
        let pods = self.config.orchestrator.as_deref();
        let Some(identity) = self.identity() else {
            let round = match pods {
                Some(pods) => self.pristine_pod(peers, pods).await,
                None => self.pristine(peers).await,
            };
            return round.map(|()| None);
        };
        if identity.stage == Stage::Recovering {
            return self.continue_recovery(pods, identity).await;
        }
        let founds = identity.stage == Stage::Promised && is_founder(&identity);
        // A log is created only after the bootstrap, so a crash came before `became_member`.
        if identity.stage == Stage::Member || self.dir.has_log()? {
            if let Some(pods) = pods.filter(|_| !founds) {
                self.check_bootstrap_record(pods, &identity).await?;
            }
            return Ok(self.settle(identity, founds));
        }
        let contacted = self.state().contacted;
        match identity.stage {
            Stage::Promised if founds => match pods {
                Some(pods) => self.continue_founding(pods, identity).await,
                None => self.collect_promises(peers, identity).await,
            },
            _ if contacted => Ok(self.settle(identity, false)),
            Stage::Assigned => self.request_admission(peers, &identity, pods).await.map(|()| None),
            Stage::Promised if pods.is_none() => {
                self.reconsider_promise(peers, &identity).await.map(|()| None)
            }
            Stage::Promised | Stage::Member | Stage::Dead | Stage::Recovering => Ok(None),
        }
    }
}

/// The founder with the lowest ordinal initializes Raft.
fn is_founder(identity: &Identity) -> bool {
    identity.founders.iter().map(|p| p.ordinal).min() == Some(identity.ordinal)
}

//! Founding in Kubernetes: a compare-and-swap on the bootstrap record decides once which pod founds.
//!
//! ```text
//! empty ── claimed{uid, member} ── formed{uid}
//! ```
//!
//! The founder syncs its identity before it claims the record, starts Raft alone, and serves no client
//! before the record is `formed` ([confirm](super::confirm)). So there is never a second cluster,
//! whichever volumes are lost: a formed record never becomes empty again. A claimed record may be taken
//! over; the slower founder detects that before it has served any client, and joins.
//!
//! An empty record alone permits nothing: it is new together with its StatefulSet, while the volumes of a
//! former cluster may remain. So no pod claims it against the [evidence](super::evidence).

use std::time::Duration;

use tokio::time::Instant;

use super::{
    join::JoinOutcome,
    rpc::BootstrapRpc,
    state::{Bootstrap, BootstrapError, UnfinishedRecord},
};
use crate::{
    membership::{
        identity::Stage,
        orchestrator::{BootstrapRecord, Intent, Orchestrator, StoredRecord},
    },
    types::{ClusterId, DesiredReplicas, MemberId, MemberRef},
};

/// Another pod may replace a founder whose claim has not changed for this time.
pub const FOUNDER_TAKEOVER_TIMEOUT: Duration = Duration::from_secs(30);
/// The founder is the first member of its cluster.
pub const FOUNDER: MemberId = MemberId(1);

impl Bootstrap {
    /// One round of a pristine volume in a pod: joins the existing cluster, or founds it.
    pub async fn pristine_pod(
        &self,
        peers: &impl BootstrapRpc,
        pods: &dyn Orchestrator,
    ) -> Result<(), BootstrapError> {
        let desired = match pods.intent().await {
            Ok(Intent::Scale(desired)) if desired.includes(self.config.ordinal) => desired,
            Ok(_) => {
                self.report_waiting("the StatefulSet excludes this ordinal");
                return Ok(());
            }
            Err(e) => {
                self.report_waiting(&e.to_string());
                return Ok(());
            }
        };
        self.note_desired(&desired);
        self.find_last_leader(pods).await;
        match self.join_existing(peers, None).await? {
            JoinOutcome::NoCluster => {}
            JoinOutcome::Joined => return Ok(()),
            JoinOutcome::NotNow => {
                self.withdraw_order(pods).await;
                return Ok(());
            }
        }
        let Some(stored) = self.read_bootstrap_record(pods).await else { return Ok(()) };
        if self.may_found(peers, pods, &stored, &desired).await {
            self.claim(pods, &stored.version).await?;
        }
        Ok(())
    }

    /// Reads the record, or reports why not.
    pub async fn read_bootstrap_record(&self, pods: &dyn Orchestrator) -> Option<StoredRecord> {
        match pods.bootstrap_record().await {
            Ok(Some(stored)) => return Some(stored),
            Ok(None) => self.report_waiting(
                "the ConfigMap of the bootstrap record is missing, so no pod can found the cluster",
            ),
            Err(e) => self.report_waiting(&e.to_string()),
        }
        None
    }

    async fn may_found(
        &self,
        peers: &impl BootstrapRpc,
        pods: &dyn Orchestrator,
        stored: &StoredRecord,
        desired: &DesiredReplicas,
    ) -> bool {
        match stored.record {
            BootstrapRecord::Formed { cluster } => {
                self.report_waiting(&format!(
                    "cluster {cluster} exists, but none of its members answers"
                ));
                false
            }
            BootstrapRecord::Claimed { ordinal, .. } => {
                if self.unfinished_since(&stored.version).elapsed() < self.config.takeover_timeout {
                    self.report_waiting(&format!("ordinal {ordinal} is founding the cluster"));
                    return false;
                }
                if !self.may_found_now(peers, pods, stored, desired).await {
                    return false;
                }
                tracing::warn!(%ordinal, "the founder makes no progress, taking over");
                true
            }
            BootstrapRecord::Empty => self.may_found_now(peers, pods, stored, desired).await,
        }
    }

    /// The time since which the unfinished record has not changed.
    fn unfinished_since(&self, version: &str) -> Instant {
        let mut state = self.state();
        match &state.unfinished {
            Some(seen) if seen.version == version => seen.since,
            _ => {
                let since = Instant::now();
                let version = version.to_string();
                state.unfinished = Some(UnfinishedRecord { version, since });
                since
            }
        }
    }

    /// Stores an identity, then claims the record with it. The next round reads whether that succeeded.
    async fn claim(&self, pods: &dyn Orchestrator, version: &str) -> Result<(), BootstrapError> {
        let cluster = ClusterId(self.rng.next_id());
        let me = MemberRef { member: FOUNDER, ordinal: self.config.ordinal };
        let founder = self.new_identity(cluster, FOUNDER, Stage::Promised, vec![me]);
        if !self.replace_identity(None, founder)? {
            return Ok(());
        }
        let claimed = BootstrapRecord::Claimed { cluster, member: FOUNDER, ordinal: me.ordinal };
        match pods.write_bootstrap_record(claimed, version).await {
            Ok(true) => tracing::info!(%cluster, "founding a cluster"),
            Ok(false) => tracing::info!("another pod founds the cluster"),
            Err(e) => self.report_waiting(&e.to_string()),
        }
        Ok(())
    }

    /// Writes the record if it still has `version`. False also if Kubernetes does not answer.
    pub async fn swap_record(
        &self,
        pods: &dyn Orchestrator,
        record: BootstrapRecord,
        version: &str,
    ) -> bool {
        match pods.write_bootstrap_record(record, version).await {
            Ok(swapped) => swapped,
            Err(e) => {
                self.report_waiting(&e.to_string());
                false
            }
        }
    }
}

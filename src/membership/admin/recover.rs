//! `kvctl cluster recover`, as the member that goes on alone: it asks all ordinals before it accepts.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    MemberAdmin,
    evidence::{Evidence, Volume},
};
use crate::{
    membership::member_rpc::MemberRpc,
    node::{MembershipError, NodePort},
    proto::peer::StandingRequest,
    types::{ClusterId, DesiredReplicas, Ordinal},
};

/// A cluster is recovered from one volume only if the majority was out of contact for this time: longer
/// than a stall of the disk or the network, because a running cluster must not be split.
const QUORUM_AGE_MIN: Duration = Duration::from_secs(10);
/// Limit on an ordinal's answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Limit on reading the last published leader. The answer to the command waits for it.
const LAST_LEADER_TIMEOUT: Duration = Duration::from_secs(1);

impl<N: NodePort, P: MemberRpc + 'static> MemberAdmin<N, P> {
    /// `insisted`: the cluster that an operator named, to recover although a majority may be alive. A
    /// majority in contact refuses even then.
    pub async fn recover_alone(
        &self,
        insisted: Option<ClusterId>,
    ) -> Result<ClusterId, MembershipError> {
        let cluster = self.context().reconciler.cluster;
        if let Some(named) = insisted.filter(|named| *named != cluster) {
            return Err(MembershipError::OtherCluster(named));
        }
        self.refuse_with_quorum()?;
        if insisted.is_some() {
            tracing::warn!(%cluster, "recovery: an operator insists, the other members are not asked");
        } else {
            self.prove_losses(cluster).await?;
            // The majority may have returned meanwhile.
            self.refuse_with_quorum()?;
        }
        self.order_recovery().await
    }

    fn refuse_with_quorum(&self) -> Result<(), MembershipError> {
        // A member that has just started may not have had contact with the majority yet.
        let age = self.context().raft.quorum_age().unwrap_or_else(|| self.started().elapsed());
        if age >= QUORUM_AGE_MIN {
            return Ok(());
        }
        Err(MembershipError::Refused(format!(
            "a majority is there, or was {} s ago: recovery requires that it is out of contact for {} s",
            age.as_secs(),
            QUORUM_AGE_MIN.as_secs()
        )))
    }

    async fn prove_losses(&self, cluster: ClusterId) -> Result<(), MembershipError> {
        let raft = &self.context().raft;
        let ordinals = self.ordinals_to_ask().await;
        let volumes = self.ask_volumes(ordinals).await;
        let (committed, newest) = (raft.committed_membership(), raft.membership());
        let evidence = Evidence {
            cluster,
            me: raft.leadership().me,
            last: raft.log().last(),
            memberships: [&committed, &newest],
            volumes: &volumes,
        };
        evidence.objection().map_or(Ok(()), |why| Err(MembershipError::Refused(why)))
    }

    /// The members, the desired ordinals, and all others that may know of this cluster.
    async fn ordinals_to_ask(&self) -> BTreeSet<Ordinal> {
        let (raft, bootstrap) = (&self.context().raft, &self.context().bootstrap);
        if let Some(pods) = bootstrap.orchestrator() {
            let found = bootstrap.find_last_leader(&**pods);
            // Without an answer it stays unknown.
            let _ = tokio::time::timeout(LAST_LEADER_TIMEOUT, found).await;
        }
        let members = raft.members().into_iter().map(|m| m.member_ref.ordinal);
        let mut ordinals: BTreeSet<Ordinal> = members.chain(bootstrap.others()).collect();
        if let Some(DesiredReplicas { start, replicas, .. }) = &raft.view().roster().desired {
            ordinals.extend((*start..start.saturating_add(*replicas)).map(Ordinal));
        }
        if let Some(me) = bootstrap.identity() {
            ordinals.remove(&me.ordinal);
        }
        ordinals
    }

    /// Asks all ordinals at once. A missing answer proves nothing.
    async fn ask_volumes(&self, ordinals: BTreeSet<Ordinal>) -> BTreeMap<Ordinal, Volume> {
        let (peers, home) = (&self.context().peers, self.context().bootstrap.home());
        let answers = ordinals.into_iter().map(|ordinal| async move {
            let asked = peers.member_status(ordinal, StandingRequest::default());
            let reply = tokio::time::timeout(ANSWER_TIMEOUT, asked).await.ok()?.ok()?;
            Some((ordinal, Volume::from_wire(reply.volume?, ordinal, home)?))
        });
        futures_util::future::join_all(answers).await.into_iter().flatten().collect()
    }

    async fn order_recovery(&self) -> Result<ClusterId, MembershipError> {
        let refused = |why: &str| Err(MembershipError::Refused(why.into()));
        let bootstrap = self.context().bootstrap.clone();
        let ordered =
            self.context().lanes.run("identity", move || bootstrap.order_recovery()).await;
        match ordered {
            Ok(Some(Ok(Some(cluster)))) => Ok(cluster),
            Ok(Some(Ok(None))) => refused("this volume is already in recovery"),
            Ok(Some(Err(e))) => refused(&e.to_string()),
            Ok(None) | Err(_) => refused("the recovery order was not stored"),
        }
    }
}

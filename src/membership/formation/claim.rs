//! Formation with Kubernetes: who founds the cluster is decided once, by compare-and-swap on a claim.
//!
//! ```text
//! empty ── claimed{uid, member} ── formed{uid}
//! ```
//!
//! The founder has synced its identity before it claims, begins Raft alone, and serves nobody before the
//! claim says `formed`. So there is never a second cluster, whatever is wiped: a claim that was formed is
//! not empty again. One that was claimed and not formed may be taken over; whoever lost it finds that
//! out before it has served anybody, and joins the other.

use std::time::Duration;

use tokio::time::Instant;

use super::{Formation, FormationError, Formed, join::Found};
use crate::{
    membership::{
        Claim, Claimed, Intent, News, Orchestrator,
        identity::{Identity, Stage},
    },
    proto::peer::{NotFormed, join_reply},
    types::{ClusterId, Desired, MemberId, Ordinal, PeerPlace},
};

/// A founder that has claimed and does not go on for so long may be replaced.
pub const TAKE_OVER: Duration = Duration::from_secs(30);
/// A claim that is so much younger than the set of pods was made anew by somebody.
const RECREATED: Duration = Duration::from_secs(600);
/// Between two tries to say that the cluster is formed.
const RETRY: Duration = Duration::from_millis(500);
/// The founder is the first member; its cluster has a name that nobody else uses.
const FOUNDER: MemberId = MemberId(1);

/// An unfinished claim, as long as it stays the same.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    version: String,
    since: Instant,
}

impl Formation {
    /// A pristine volume in a pod: joins the cluster that there is, or founds it.
    pub(super) async fn pristine_pod(
        &self,
        peers: &impl super::Peers,
        pods: &dyn Orchestrator,
    ) -> Result<(), FormationError> {
        let wanted = match pods.intent().await {
            Ok(Intent::Scale(wanted)) if wanted.wants(self.ordinal()) => wanted,
            Ok(_) => {
                self.waits("this pod is not wanted any more");
                return Ok(());
            }
            Err(e) => {
                self.waits(&e.to_string());
                return Ok(());
            }
        };
        self.know(&wanted);
        self.look_for_the_leader(pods).await;
        match self.join_existing(peers, None).await? {
            Found::NoCluster => {}
            Found::Joined | Found::NoLeader => return Ok(()),
        }
        let claimed = match pods.claim().await {
            Ok(Some(claimed)) => claimed,
            Ok(None) => {
                self.waits("the ConfigMap of the claim is missing, so nobody founds the cluster");
                return Ok(());
            }
            Err(e) => {
                self.waits(&e.to_string());
                return Ok(());
            }
        };
        if self.may_found(peers, &claimed, &wanted).await {
            self.claim(pods, &claimed.version).await?;
        }
        Ok(())
    }

    async fn may_found(
        &self,
        peers: &impl super::Peers,
        claimed: &Claimed,
        wanted: &Desired,
    ) -> bool {
        match claimed.claim {
            Claim::Formed { cluster } => {
                self.waits(&format!("cluster {cluster} was founded, and no member of it answers"));
                false
            }
            Claim::Claimed { .. } | Claim::Empty if let Some(cluster) = self.was_of() => {
                self.waits(&format!(
                    "this volume was of cluster {cluster}, which may live at other ordinals: it founds no \
                     other one. If all members of that one are gone, delete this PersistentVolumeClaim"
                ));
                false
            }
            Claim::Claimed { ordinal, .. } => {
                let since = self.seen_since(&claimed.version);
                if since.elapsed() < self.take_over() {
                    self.waits(&format!("ordinal {ordinal} is founding the cluster"));
                    return false;
                }
                tracing::warn!(%ordinal, "whoever founds the cluster does not go on: taking over");
                true
            }
            Claim::Empty => self.may_claim_empty(peers, claimed.younger_by, wanted).await,
        }
    }

    /// A claim that was made anew says nothing about the cluster that may have been founded under the
    /// old one: then every other pod has to say so.
    async fn may_claim_empty(
        &self,
        peers: &impl super::Peers,
        younger_by: Duration,
        wanted: &Desired,
    ) -> bool {
        if younger_by < RECREATED {
            return true;
        }
        let silent = self.not_pristine(peers, wanted).await;
        if let Some(ordinal) = silent {
            self.waits(&format!(
                "the claim was made anew, so all other pods have to be empty: ordinal {ordinal} does \
                 not say so"
            ));
        }
        silent.is_none()
    }

    /// The first ordinal that does not answer that it knows of no cluster.
    async fn not_pristine(&self, peers: &impl super::Peers, wanted: &Desired) -> Option<Ordinal> {
        let all = (wanted.start..wanted.start.saturating_add(wanted.replicas)).map(Ordinal);
        for ordinal in all.filter(|o| *o != self.ordinal()) {
            let answer = peers.join(ordinal, self.join_request(None)).await;
            let pristine = matches!(
                answer.map(|reply| reply.result),
                Ok(Some(join_reply::Result::NotFormed(NotFormed { pristine: true, .. })))
            );
            if !pristine {
                return Some(ordinal);
            }
        }
        None
    }

    /// An ordinal that answers as a member of a cluster, or is about to.
    async fn another_cluster(&self, peers: &impl super::Peers) -> Option<Ordinal> {
        for ordinal in self.others() {
            let answer = peers.join(ordinal, self.join_request(None)).await;
            match answer.map(|reply| reply.result) {
                Ok(Some(join_reply::Result::NotFormed(NotFormed { starting: false, .. }))) => {}
                Ok(Some(_)) => return Some(ordinal),
                Ok(None) | Err(_) => {}
            }
        }
        None
    }

    /// Since when an unfinished claim has not changed.
    fn seen_since(&self, version: &str) -> Instant {
        let mut state = self.state();
        match &state.claim {
            Some(seen) if seen.version == version => seen.since,
            _ => {
                let since = Instant::now();
                state.claim = Some(Seen { version: version.to_string(), since });
                since
            }
        }
    }

    /// Keeps an identity, then claims with it. Whether that succeeded is seen in the next round.
    async fn claim(&self, pods: &dyn Orchestrator, version: &str) -> Result<(), FormationError> {
        let cluster = ClusterId(self.new_id());
        let me = PeerPlace { member: FOUNDER, ordinal: self.ordinal() };
        let founder = self.identity_of(cluster, FOUNDER, Stage::Promised, vec![me]);
        if !self.adopt(founder, None)? {
            return Ok(());
        }
        let claim = Claim::Claimed { cluster, member: FOUNDER, ordinal: me.ordinal };
        match pods.write_claim(claim, version).await {
            Ok(true) => tracing::info!(%cluster, "founding a cluster"),
            Ok(false) => tracing::info!("another pod founds the cluster"),
            Err(e) => self.waits(&e.to_string()),
        }
        Ok(())
    }

    /// A founder that may or may not have claimed already.
    pub(super) async fn founder_pod(
        &self,
        pods: &dyn Orchestrator,
        identity: Identity,
    ) -> Result<Option<Formed>, FormationError> {
        let claimed = match pods.claim().await {
            Ok(Some(claimed)) => claimed,
            Ok(None) => {
                self.waits("the ConfigMap of the claim is missing, so nobody founds the cluster");
                return Ok(None);
            }
            Err(e) => {
                self.waits(&e.to_string());
                return Ok(None);
            }
        };
        match claimed.claim {
            Claim::Claimed { cluster, .. } | Claim::Formed { cluster }
                if cluster == identity.cluster =>
            {
                Ok(self.settle(identity, true))
            }
            // It has no log, so nobody can know this identity: it is as good as none.
            Claim::Claimed { .. } | Claim::Formed { .. } | Claim::Empty => {
                self.forget(&identity)?;
                Ok(None)
            }
        }
    }

    /// The last step of a founder, before it serves anybody.
    ///
    /// # Errors
    /// Somebody else founded the cluster meanwhile: this volume is dead.
    pub async fn confirm_founded(
        &self,
        peers: &impl super::Peers,
        identity: &Identity,
    ) -> Result<(), FormationError> {
        let Some(pods) = self.orchestrator() else { return Ok(()) };
        let cluster = identity.cluster;
        loop {
            self.look_for_the_leader(&**pods).await;
            // Somebody may have emptied the claim of a cluster that lives, and was starting before.
            if let Some(ordinal) = self.another_cluster(peers).await {
                self.give_up(&**pods, cluster, ordinal).await?;
                return Err(FormationError::Outrun);
            }
            match pods.claim().await {
                Ok(Some(Claimed { claim: Claim::Formed { cluster: formed }, .. }))
                    if formed == cluster =>
                {
                    self.state().confirmed = true;
                    pods.say(News::of_set("Formed", format!("cluster {cluster} is formed")));
                    return Ok(());
                }
                Ok(Some(Claimed {
                    claim: Claim::Claimed { cluster: ours, .. }, version, ..
                })) if ours == cluster => {
                    if self.swap(&**pods, Claim::Formed { cluster }, &version).await {
                        continue;
                    }
                }
                Ok(Some(Claimed { claim: Claim::Empty, version, younger_by })) => {
                    let (member, ordinal) = (FOUNDER, self.ordinal());
                    let again = Claim::Claimed { cluster, member, ordinal };
                    let may = match pods.intent().await {
                        Ok(Intent::Scale(all)) => {
                            self.may_claim_empty(peers, younger_by, &all).await
                        }
                        Ok(_) | Err(_) => {
                            self.waits("it is not known which pods there are");
                            false
                        }
                    };
                    if may && self.swap(&**pods, again, &version).await {
                        continue;
                    }
                }
                Ok(None) => self.waits("the ConfigMap of the claim is gone"),
                Ok(Some(_)) => {
                    self.bury()?;
                    return Err(FormationError::Outrun);
                }
                Err(e) => self.waits(&e.to_string()),
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Nobody was served by this cluster, and others were by theirs: the claim is left to them. One that is
    /// formed is never taken back: this volume may be an old copy of a founder's.
    async fn give_up(
        &self,
        pods: &dyn Orchestrator,
        cluster: ClusterId,
        other: Ordinal,
    ) -> Result<(), FormationError> {
        let why = format!("ordinal {other} has a cluster already: {cluster} is given up");
        tracing::error!("{why}");
        pods.say(News::warning("Refused", why));
        let claimed = pods.claim().await;
        if let Ok(Some(Claimed { claim: Claim::Claimed { cluster: ours, .. }, version, .. })) =
            claimed
            && ours == cluster
        {
            self.swap(pods, Claim::Empty, &version).await;
        }
        Ok(self.bury()?)
    }

    pub(super) async fn swap(&self, pods: &dyn Orchestrator, claim: Claim, version: &str) -> bool {
        match pods.write_claim(claim, version).await {
            Ok(swapped) => swapped,
            Err(e) => {
                self.waits(&e.to_string());
                false
            }
        }
    }

    /// A member of another cluster than the one that was formed here must not come back as one.
    pub(super) async fn check_claim(
        &self,
        pods: &dyn Orchestrator,
        identity: &Identity,
    ) -> Result<(), FormationError> {
        match pods.claim().await {
            Ok(Some(Claimed { claim: Claim::Formed { cluster }, .. }))
                if cluster != identity.cluster =>
            {
                let error =
                    FormationError::OtherCluster { ours: identity.cluster, formed: cluster };
                pods.say(News::warning("Refused", error.to_string()));
                Err(error)
            }
            // Whoever has data goes on with it: Kubernetes need not be there.
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

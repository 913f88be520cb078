//! Evidence of a former cluster: no pod founds beside volumes that may hold its data.
//!
//! The silence of other pods proves nothing: their volumes may attach late. The evidence is in the
//! PersistentVolumeClaims, which outlive the StatefulSet. A pod founds only if
//!
//! - its own volume is pristine, and holds no archive,
//! - the pod of each [former claim](crate::membership::orchestrator::FormerClaim), desired or not, answers
//!   that its volume is pristine, and
//! - unless it is the first desired ordinal: every other desired pod answers that, too. The same holds for
//!   the first one if the bootstrap record was recreated.
//!
//! An operator may order a founding despite all of this, naming the former claims; only a member that
//! answers, or a claim that is not named, still prevents it. The founder checks before it claims the
//! record, and again right before it writes `formed`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use futures_util::{StreamExt as _, stream};

use super::{rpc::BootstrapRpc, state::Bootstrap};
use crate::{
    membership::orchestrator::{FormerClaim, Orchestrator, OrchestratorError, StoredRecord},
    proto::peer::{JoinReply, NotFormed, join_reply},
    types::{ClusterId, DesiredReplicas, Ordinal},
};

/// A record that is younger than the StatefulSet by this much was deleted and recreated.
const RECREATED_AGE_DIFFERENCE_MIN: Duration = Duration::from_secs(600);
/// Bounds the pods that are asked at once.
const ASKED_AT_ONCE_MAX: usize = 16;
/// Bounds the names in a text: an Event has 1 KiB.
const CLAIMS_NAMED_MAX: usize = 8;

/// The reason that this pod must not found a cluster now.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FoundingObstacle {
    #[error(
        "no pod founds a cluster before it has read the PersistentVolumeClaims: {cause}{}",
        remedy(cause)
    )]
    ClaimsUnknown { cause: OrchestratorError },
    #[error("ordinal {0} is a member of a cluster, so this pod founds none")]
    MemberAnswers(Ordinal),
    #[error(
        "this volume belonged to cluster {0}, which may live at other ordinals, so this pod founds no \
         cluster. If all members of {0} are lost, delete this PersistentVolumeClaim"
    )]
    Archived(ClusterId),
    #[error(
        "PersistentVolumeClaim {} {}, so it may hold the data of a former cluster, and {answer}{}. No pod \
         founds a cluster before the pods of such claims answer that their volumes are empty",
        first.claim.name, first.claim.origin, Others(others), answer = first.answer
    )]
    FormerClaims { first: UnprovenClaim, others: Vec<UnprovenClaim> },
    #[error(
        "the bootstrap record was recreated, so all other pods must confirm that they are empty: \
         ordinal {0} does not"
    )]
    Recreated(Ordinal),
    #[error(
        "only the pod at ordinal {first} founds a cluster alone; this pod does once all other pods answer \
         that their volumes are empty, and ordinal {unproven} does not"
    )]
    NotFirst { first: Ordinal, unproven: Ordinal },
}

/// A former claim that is not known to be empty.
#[derive(Debug, PartialEq, Eq)]
pub struct UnprovenClaim {
    pub claim: FormerClaim,
    pub answer: Unproven,
}

/// Why a former claim is not known to be empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unproven {
    /// The StatefulSet has no such ordinal.
    NoPod,
    Silent,
    NotEmpty,
}

impl fmt::Display for Unproven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unproven::NoPod => "the StatefulSet has no pod for it",
            Unproven::Silent => "its pod does not answer",
            Unproven::NotEmpty => "its pod answers that the volume is not empty",
        })
    }
}

fn remedy(error: &OrchestratorError) -> &'static str {
    match error {
        OrchestratorError::Forbidden(_) => {
            ". Apply the Role again: it lacks list on persistentvolumeclaims"
        }
        OrchestratorError::Unreachable(_)
        | OrchestratorError::Refused(_)
        | OrchestratorError::Malformed { .. } => "",
    }
}

/// The names of further claims.
struct Others<'a>(&'a [UnprovenClaim]);

impl fmt::Display for Others<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Others(others) = self;
        match others {
            [] => Ok(()),
            others => write!(f, " (likewise {})", named(others.iter())),
        }
    }
}

/// The names of the claims, for a text.
pub fn named<'a>(claims: impl Iterator<Item = &'a UnprovenClaim>) -> String {
    let names: Vec<&str> = claims.map(|unproven| unproven.claim.name.as_str()).collect();
    let text = names[..names.len().min(CLAIMS_NAMED_MAX)].join(", ");
    match names.len().saturating_sub(CLAIMS_NAMED_MAX) {
        0 => text,
        more => format!("{text} and {more} more"),
    }
}

/// A pod's answer to a join request, as far as it concerns a founding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum VolumeAnswer {
    Pristine,
    /// No member, and not pristine: an archive, or an assigned id.
    NotPristine,
    /// A member, or about to be one.
    Member,
    Silent,
}

impl Bootstrap {
    /// Whether this pristine volume, or unconfirmed founder, may found a cluster now. Reports the obstacle.
    pub async fn may_found_now(
        &self,
        peers: &impl BootstrapRpc,
        pods: &dyn Orchestrator,
        stored: &StoredRecord,
        desired: &DesiredReplicas,
    ) -> bool {
        match self.check_evidence(peers, pods, stored, desired).await {
            Ok(()) => true,
            Err(obstacle) => {
                self.report_obstacle(&obstacle);
                if matches!(obstacle, FoundingObstacle::MemberAnswers(_)) {
                    self.withdraw_order(pods).await;
                }
                false
            }
        }
    }

    /// Asks the pods of all former claims, and of the desired ordinals where their silence matters.
    pub async fn check_evidence(
        &self,
        peers: &impl BootstrapRpc,
        pods: &dyn Orchestrator,
        stored: &StoredRecord,
        desired: &DesiredReplicas,
    ) -> Result<(), FoundingObstacle> {
        let me = self.config.ordinal;
        let (first, order) = (Ordinal(desired.start), stored.order.as_ref());
        let recreated = stored.younger_by >= RECREATED_AGE_DIFFERENCE_MIN;
        let claims = pods.former_claims().await;
        let mut claims = claims.map_err(|cause| FoundingObstacle::ClaimsUnknown { cause })?;
        // This pod knows its own volume.
        claims.retain(|claim| claim.ordinal != me);
        self.note_former(&claims);
        let mut wanted = BTreeSet::new();
        if recreated || me != first {
            wanted = desired.ordinals().filter(|ordinal| *ordinal != me).collect();
        }
        let asked = claims.iter().map(|claim| claim.ordinal).chain(wanted.iter().copied());
        let answers = self.ask_volumes(peers, asked.collect()).await;
        if let Some((member, _)) = answers.iter().find(|(_, a)| **a == VolumeAnswer::Member) {
            return Err(FoundingObstacle::MemberAnswers(*member));
        }
        if order.is_none()
            && let Some(cluster) = self.archived_cluster()
        {
            return Err(FoundingObstacle::Archived(cluster));
        }
        claims.retain(|claim| order.is_none_or(|order| !order.despite.contains(&claim.name)));
        if let Some(obstacle) = former_claim_obstacle(claims, &answers, desired) {
            return Err(obstacle);
        }
        if order.is_some() {
            return Ok(());
        }
        match wanted.into_iter().find(|ordinal| answers[ordinal] != VolumeAnswer::Pristine) {
            Some(unproven) if recreated => Err(FoundingObstacle::Recreated(unproven)),
            Some(unproven) => Err(FoundingObstacle::NotFirst { first, unproven }),
            None => Ok(()),
        }
    }

    /// An ordinal that is, or is about to be, a member of a cluster.
    pub async fn another_cluster(&self, peers: &impl BootstrapRpc) -> Option<Ordinal> {
        let answers = self.ask_volumes(peers, self.others().into_iter().collect()).await;
        answers.into_iter().find(|(_, a)| *a == VolumeAnswer::Member).map(|(ordinal, _)| ordinal)
    }

    async fn ask_volumes(
        &self,
        peers: &impl BootstrapRpc,
        ordinals: BTreeSet<Ordinal>,
    ) -> BTreeMap<Ordinal, VolumeAnswer> {
        let ask = |ordinal: Ordinal| async move {
            let reply = peers.join(ordinal, self.join_request(None)).await;
            (ordinal, self.volume_answer(ordinal, reply))
        };
        stream::iter(ordinals).map(ask).buffered(ASKED_AT_ONCE_MAX).collect().await
    }

    fn volume_answer(&self, asked: Ordinal, reply: Result<JoinReply, String>) -> VolumeAnswer {
        match reply.map(|reply| reply.result) {
            Ok(Some(join_reply::Result::NotFormed(reply))) => {
                if !answers_for(&reply, asked, &self.config.home) {
                    return VolumeAnswer::Silent;
                }
                match reply {
                    NotFormed { starting: true, .. } => VolumeAnswer::Member,
                    NotFormed { pristine: true, .. } => VolumeAnswer::Pristine,
                    NotFormed { .. } => VolumeAnswer::NotPristine,
                }
            }
            Ok(Some(_)) => VolumeAnswer::Member,
            Ok(None) | Err(_) => VolumeAnswer::Silent,
        }
    }
}

/// Whether the pod at this address is the one that was asked. An older one does not say.
fn answers_for(reply: &NotFormed, asked: Ordinal, home: &str) -> bool {
    reply.ordinal.is_none_or(|ordinal| ordinal == asked.0)
        && (reply.home.is_empty() || reply.home == home)
}

fn former_claim_obstacle(
    claims: Vec<FormerClaim>,
    answers: &BTreeMap<Ordinal, VolumeAnswer>,
    desired: &DesiredReplicas,
) -> Option<FoundingObstacle> {
    let mut unproven = claims.into_iter().filter_map(|claim| {
        let answer = match answers[&claim.ordinal] {
            VolumeAnswer::Pristine => return None,
            VolumeAnswer::NotPristine => Unproven::NotEmpty,
            _ if !desired.includes(claim.ordinal) => Unproven::NoPod,
            _ => Unproven::Silent,
        };
        Some(UnprovenClaim { claim, answer })
    });
    let first = unproven.next()?;
    Some(FoundingObstacle::FormerClaims { first, others: unproven.collect() })
}

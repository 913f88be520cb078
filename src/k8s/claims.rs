//! Pure conversion: the claims that may hold the data of a former cluster.
//!
//! A claim belongs to the StatefulSet by its name, `TEMPLATE-SET-ORDINAL`: that name alone makes its
//! controller mount the claim. Labels are no criterion. A claim that a person restored from a snapshot may
//! have none, and two sets may have equal ones.
//!
//! The claims of a new set are younger than the set and its bootstrap record. Timestamps have whole seconds,
//! so an equal one counts as new. API servers whose clocks differ may make a new claim seem older: the
//! founding then waits until the claim's pod answers, and is not prevented.
//!
//! An operator who binds a new claim to an old volume gives the claim its `spec.volumeName`, or a selector.
//! Where the PersistentVolume controller has chosen the volume, also one that was reserved for the claim,
//! it says so in an annotation.

use std::time::Duration;

use k8s_openapi::{
    api::{
        apps::v1::StatefulSet,
        core::v1::{ConfigMap, PersistentVolumeClaim},
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    jiff::Timestamp,
};

use crate::{
    membership::{ClaimOrigin, FormerClaim, OrchestratorError},
    types::Ordinal,
};

const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// The claims of a new set are created together. One that is older than that of the asking pod by this much
/// existed when the latter's volume was replaced.
const OLDER_THAN_OWN_MIN: Duration = Duration::from_secs(600);

/// The claims among those of the namespace that are former ones to `pod`, in the order of their ordinals.
///
/// # Errors
/// If the set is being deleted: its claims may outlive it, and then tell of a former cluster.
pub fn former(
    claims: &[PersistentVolumeClaim],
    set: &StatefulSet,
    record: Option<&ConfigMap>,
    pod: &str,
) -> Result<Vec<FormerClaim>, OrchestratorError> {
    if set.metadata.deletion_timestamp.is_some() {
        return Err(OrchestratorError::Refused("the StatefulSet is being deleted".into()));
    }
    let set_created = created(&set.metadata, "StatefulSet")?;
    let record = record.map(|record| created(&record.metadata, "ConfigMap")).transpose()?;
    let own = own_claims_created(claims, set, pod);
    let mut former = Vec::new();
    for claim in claims {
        let name = claim.metadata.name.as_deref().unwrap_or_default();
        let Some(ordinal) = ordinal(name, set) else { continue };
        let age = &created(&claim.metadata, "PersistentVolumeClaim")?.0;
        let origin = if *age < set_created.0 {
            ClaimOrigin::OlderThanSet
        } else if record.is_some_and(|record| *age < record.0) {
            ClaimOrigin::OlderThanRecord
        } else if has_source(claim) {
            ClaimOrigin::Restored
        } else if is_prebound(claim) {
            ClaimOrigin::Prebound
        } else if own.is_some_and(|own| is_much_older(age, own)) {
            ClaimOrigin::OlderThanOwn
        } else {
            continue;
        };
        former.push(FormerClaim { name: name.into(), ordinal, origin });
    }
    former.sort_by(|a, b| (a.ordinal, &a.name).cmp(&(b.ordinal, &b.name)));
    Ok(former)
}

/// The ordinal of the pod that mounts the claim. `None`: no pod of this set does.
fn ordinal(claim: &str, set: &StatefulSet) -> Option<Ordinal> {
    let set_name = set.metadata.name.as_deref()?;
    let templates = set.spec.as_ref()?.volume_claim_templates.iter().flatten();
    let mut names = templates.filter_map(|template| template.metadata.name.as_deref());
    names.find_map(|template| {
        let rest = claim.strip_prefix(template)?.strip_prefix('-')?;
        let digits = rest.strip_prefix(set_name)?.strip_prefix('-')?;
        let ordinal: u32 = digits.parse().ok()?;
        // The controller writes no sign and no leading zeros.
        (ordinal.to_string() == digits).then_some(Ordinal(ordinal))
    })
}

/// The creation of the pod's youngest claim.
fn own_claims_created<'a>(
    claims: &'a [PersistentVolumeClaim],
    set: &StatefulSet,
    pod: &str,
) -> Option<&'a Timestamp> {
    let set_name = set.metadata.name.as_deref()?;
    let is_own = |claim: &&PersistentVolumeClaim| {
        let ordinal = claim.metadata.name.as_deref().and_then(|name| ordinal(name, set));
        ordinal.is_some_and(|ordinal| format!("{set_name}-{ordinal}") == pod)
    };
    let own = claims.iter().filter(is_own);
    own.filter_map(|claim| Some(&claim.metadata.creation_timestamp.as_ref()?.0)).max()
}

fn is_much_older(age: &Timestamp, own: &Timestamp) -> bool {
    Duration::try_from(own.duration_since(*age)).is_ok_and(|by| by > OLDER_THAN_OWN_MIN)
}

fn is_prebound(claim: &PersistentVolumeClaim) -> bool {
    let Some(spec) = &claim.spec else { return false };
    let annotations = claim.metadata.annotations.as_ref();
    let by_controller = annotations.is_some_and(|all| all.contains_key(BOUND_BY_CONTROLLER));
    let named = spec.volume_name.as_ref().is_some_and(|name| !name.is_empty());
    spec.selector.is_some() || (named && !by_controller)
}

fn has_source(claim: &PersistentVolumeClaim) -> bool {
    let spec = claim.spec.as_ref();
    spec.is_some_and(|spec| spec.data_source.is_some() || spec.data_source_ref.is_some())
}

fn created<'a>(metadata: &'a ObjectMeta, kind: &str) -> Result<&'a Time, OrchestratorError> {
    metadata.creation_timestamp.as_ref().ok_or_else(|| OrchestratorError::Malformed {
        object: format!("{kind} {}", metadata.name.as_deref().unwrap_or("without a name")),
        why: "no metadata.creationTimestamp".into(),
    })
}

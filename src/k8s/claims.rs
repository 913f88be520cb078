//! Pure conversion: the claims that may hold the data of a former cluster.
//!
//! A claim belongs to the StatefulSet by its name, `TEMPLATE-SET-ORDINAL`: that name alone makes its
//! controller mount the claim. Labels are no criterion. A claim that a person restored from a snapshot may
//! have none, and two sets may have equal ones.
//!
//! The claims of a new set are younger than the set and its bootstrap record. Timestamps have whole seconds,
//! so an equal one counts as new. API servers whose clocks differ may make a new claim seem older: the
//! founding then waits until the claim's pod answers, and is not prevented.

use k8s_openapi::{
    api::{
        apps::v1::StatefulSet,
        core::v1::{ConfigMap, PersistentVolumeClaim},
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};

use crate::{
    membership::{ClaimOrigin, FormerClaim, OrchestratorError},
    types::Ordinal,
};

/// The former claims among those of the namespace, in the order of their ordinals.
///
/// # Errors
/// If the set is being deleted: its claims may outlive it, and then tell of a former cluster.
pub fn former(
    claims: &[PersistentVolumeClaim],
    set: &StatefulSet,
    record: Option<&ConfigMap>,
) -> Result<Vec<FormerClaim>, OrchestratorError> {
    if set.metadata.deletion_timestamp.is_some() {
        return Err(OrchestratorError::Refused("the StatefulSet is being deleted".into()));
    }
    let set_created = created(&set.metadata, "StatefulSet")?;
    let record = record.map(|record| created(&record.metadata, "ConfigMap")).transpose()?;
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

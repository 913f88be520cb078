//! What the StatefulSet and the claim say, and how a claim is written: pure conversions.
//!
//! The claim is the data of a ConfigMap, meant to be read by people too:
//!
//! ```text
//! state: claimed | formed      cluster: 51a2…      member: 7e01…      ordinal: "0"
//! ```
//!
//! `member` and `ordinal` stand there only while it is `claimed`. Keys of others are left alone.

use std::{fmt::Display, time::Duration};

use k8s_openapi::{
    api::{apps::v1::StatefulSet, core::v1::ConfigMap},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use serde_json::{Value, json};

use crate::{
    membership::{Claim, Claimed, Intent, OrchestratorError},
    types::{ClusterId, Desired, MemberId, Ordinal},
};

const STATE: &str = "state";
const CLUSTER: &str = "cluster";
const MEMBER: &str = "member";
const ORDINAL: &str = "ordinal";
const CLAIMED: &str = "claimed";
const FORMED: &str = "formed";

/// What the set of pods is to become; `None`: it is not there.
pub(super) fn intent(set: Option<&StatefulSet>) -> Result<Intent, OrchestratorError> {
    let Some(set) = set else { return Ok(Intent::Hibernate) };
    let named = || format!("StatefulSet {}", name(&set.metadata));
    let lacks = |field: &str| unreadable(named(), format!("{field} is missing or negative"));
    let spec = set.spec.as_ref().ok_or_else(|| lacks("spec"))?;
    // The API server fills the default in; one is also what it would be.
    let replicas = spec.replicas.unwrap_or(1);
    if set.metadata.deletion_timestamp.is_some() || replicas == 0 {
        return Ok(Intent::Hibernate);
    }
    let start = spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or(0);
    let generation = set.metadata.generation.ok_or_else(|| lacks("metadata.generation"))?;
    Ok(Intent::Scale(Desired {
        set: set.metadata.uid.clone().ok_or_else(|| lacks("metadata.uid"))?,
        generation: u64::try_from(generation).map_err(|_| lacks("metadata.generation"))?,
        start: u32::try_from(start).map_err(|_| lacks("spec.ordinals.start"))?,
        replicas: u32::try_from(replicas).map_err(|_| lacks("spec.replicas"))?,
    }))
}

/// The claim as it was read, beside the set of pods that it is of.
pub(super) fn claimed(
    config_map: &ConfigMap,
    set: &StatefulSet,
) -> Result<Claimed, OrchestratorError> {
    let metadata = &config_map.metadata;
    let lacks = |field| unreadable(format!("ConfigMap {}", name(metadata)), format!("no {field}"));
    Ok(Claimed {
        claim: claim(config_map)?,
        version: metadata
            .resource_version
            .clone()
            .ok_or_else(|| lacks("metadata.resourceVersion"))?,
        younger_by: younger_by(
            metadata.creation_timestamp.as_ref(),
            set.metadata.creation_timestamp.as_ref(),
        )
        .ok_or_else(|| lacks("metadata.creationTimestamp, or its StatefulSet has none"))?,
    })
}

/// How much later `one` was created than `other`; zero if it was not.
fn younger_by(one: Option<&Time>, other: Option<&Time>) -> Option<Duration> {
    Some(Duration::try_from(one?.0.duration_since(other?.0)).unwrap_or_default())
}

fn claim(config_map: &ConfigMap) -> Result<Claim, OrchestratorError> {
    let text = |key: &str| config_map.data.as_ref()?.get(key).map(|text| text.trim());
    let wrong = |why: String| {
        unreadable(
            format!("ConfigMap {}", name(&config_map.metadata)),
            format!(
                "{why}. Only members write it: give it back `state: formed` and `cluster:` with the \
                 cluster's id in hexadecimal, as the members' logs say it; empty it only if no \
                 member has data"
            ),
        )
    };
    let number = |key, radix| {
        let text = text(key).ok_or_else(|| wrong(format!("data.{key} is missing")))?;
        match u64::from_str_radix(text, radix) {
            Ok(number) if number > 0 || radix == 10 => Ok(number),
            _ => Err(wrong(format!("data.{key} is {text:?}"))),
        }
    };
    match text(STATE) {
        None if [CLUSTER, MEMBER, ORDINAL].iter().all(|key| text(key).is_none()) => {
            Ok(Claim::Empty)
        }
        Some(CLAIMED) => {
            let ordinal = number(ORDINAL, 10)?;
            Ok(Claim::Claimed {
                cluster: ClusterId(number(CLUSTER, 16)?),
                member: MemberId(number(MEMBER, 16)?),
                ordinal: Ordinal(
                    ordinal
                        .try_into()
                        .map_err(|_| wrong(format!("data.{ORDINAL} is {ordinal}")))?,
                ),
            })
        }
        Some(FORMED) => Ok(Claim::Formed { cluster: ClusterId(number(CLUSTER, 16)?) }),
        None => Err(wrong(format!("data.{STATE} is missing"))),
        Some(other) => Err(wrong(format!("data.{STATE} is {other:?}"))),
    }
}

/// The merge patch that makes a ConfigMap say `claim`; `null` takes a key away.
pub(super) fn claim_patch(claim: Claim) -> Value {
    json!({ "data": match claim {
        Claim::Empty => json!({ STATE: null, CLUSTER: null, MEMBER: null, ORDINAL: null }),
        Claim::Claimed { cluster, member, ordinal } => json!({
            STATE: CLAIMED,
            CLUSTER: cluster.to_string(),
            MEMBER: member.to_string(),
            ORDINAL: ordinal.to_string(),
        }),
        Claim::Formed { cluster } => json!({
            STATE: FORMED,
            CLUSTER: cluster.to_string(),
            MEMBER: null,
            ORDINAL: null,
        }),
    }})
}

fn name(metadata: &ObjectMeta) -> &str {
    metadata.name.as_deref().unwrap_or("without a name")
}

fn unreadable(what: impl Display, why: impl Display) -> OrchestratorError {
    OrchestratorError::Unreadable { what: what.to_string(), why: why.to_string() }
}

//! Pure conversions: the StatefulSet to an intent, the ConfigMap to a bootstrap record and back.
//!
//! The record is the data of the ConfigMap, readable for operators too:
//!
//! ```text
//! state: claimed | formed      cluster: 51a2…      member: 7e01…      ordinal: "0"
//! ```
//!
//! `member` and `ordinal` exist only while the state is `claimed`. Other keys are preserved. An operator's
//! order `found: despite data-kv-0,data-kv-1` counts until the state is `formed`, or emptied by a founder.

use std::{fmt::Display, time::Duration};

use k8s_openapi::{
    api::{apps::v1::StatefulSet, core::v1::ConfigMap},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use serde_json::{Value, json};

use crate::{
    membership::{
        BootstrapRecord, FoundingOrder, Intent, OrchestratorError, PodCreation, StoredRecord,
    },
    types::{ClusterId, DesiredReplicas, MemberId, Ordinal},
};

const STATE: &str = "state";
const CLUSTER: &str = "cluster";
const MEMBER: &str = "member";
const ORDINAL: &str = "ordinal";
const FOUND: &str = "found";
const CLAIMED: &str = "claimed";
const FORMED: &str = "formed";
/// The labels that name an installation, and not the object or its owner.
const NAMING_LABELS: [&str; 3] =
    ["app.kubernetes.io/name", "app.kubernetes.io/instance", "app.kubernetes.io/part-of"];

/// The intent of the StatefulSet; `None`: it does not exist.
pub fn intent(set: Option<&StatefulSet>) -> Result<Intent, OrchestratorError> {
    let Some(set) = set else { return Ok(Intent::Hibernate) };
    let named = || format!("StatefulSet {}", name(&set.metadata));
    let lacks = |field: &str| malformed(named(), format!("{field} is missing or negative"));
    let spec = set.spec.as_ref().ok_or_else(|| lacks("spec"))?;
    // The default of the API.
    let replicas = spec.replicas.unwrap_or(1);
    if set.metadata.deletion_timestamp.is_some() || replicas == 0 {
        return Ok(Intent::Hibernate);
    }
    let start = spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or(0);
    let generation = set.metadata.generation.ok_or_else(|| lacks("metadata.generation"))?;
    Ok(Intent::Scale(DesiredReplicas {
        set: set.metadata.uid.clone().ok_or_else(|| lacks("metadata.uid"))?,
        generation: u64::try_from(generation).map_err(|_| lacks("metadata.generation"))?,
        start: u32::try_from(start).map_err(|_| lacks("spec.ordinals.start"))?,
        replicas: u32::try_from(replicas).map_err(|_| lacks("spec.replicas"))?,
    }))
}

/// The creation of pods that is under way, if `podManagementPolicy` is `OrderedReady`.
///
/// The controller counts every pod of the set in `status.replicas`, those that terminate too. So a rolling
/// update counts as complete, and a number that is too high only ends the exemption earlier.
pub fn pod_creation(set: &StatefulSet) -> Option<PodCreation> {
    let spec = set.spec.as_ref()?;
    let number = |n: i32| u32::try_from(n).unwrap_or(0);
    let created = set.status.as_ref().map_or(0, |status| number(status.replicas));
    let replicas = number(spec.replicas.unwrap_or(1));
    let start = spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or(0);
    let ordered = spec.pod_management_policy.as_deref() == Some("OrderedReady");
    let going = set.metadata.deletion_timestamp.is_some();
    let first = Ordinal(number(start));
    (ordered && !going && created < replicas).then_some(PodCreation { first, created, replicas })
}

/// The bootstrap record, with its age relative to the StatefulSet.
pub fn stored_record(
    config_map: &ConfigMap,
    set: &StatefulSet,
) -> Result<StoredRecord, OrchestratorError> {
    let metadata = &config_map.metadata;
    let lacks = |field| malformed(format!("ConfigMap {}", name(metadata)), format!("no {field}"));
    Ok(StoredRecord {
        record: record(config_map)?,
        version: metadata
            .resource_version
            .clone()
            .ok_or_else(|| lacks("metadata.resourceVersion"))?,
        younger_by: younger_by(
            metadata.creation_timestamp.as_ref(),
            set.metadata.creation_timestamp.as_ref(),
        )
        .ok_or_else(|| lacks("metadata.creationTimestamp, or its StatefulSet has none"))?,
        order: founding_order(config_map),
    })
}

/// Another value is no order, and no damage either: a member with data must be able to read the record.
fn founding_order(config_map: &ConfigMap) -> Option<FoundingOrder> {
    FoundingOrder::parse(config_map.data.as_ref()?.get(FOUND)?)
}

/// The merge patch that stores an operator's order.
pub fn founding_order_patch(order: &FoundingOrder) -> Value {
    json!({ "data": { FOUND: order.to_string() } })
}

/// The time from the creation of `other` to that of `one`; zero if `one` is older.
fn younger_by(one: Option<&Time>, other: Option<&Time>) -> Option<Duration> {
    Some(Duration::try_from(one?.0.duration_since(other?.0)).unwrap_or_default())
}

fn record(config_map: &ConfigMap) -> Result<BootstrapRecord, OrchestratorError> {
    let text = |key: &str| config_map.data.as_ref()?.get(key).map(|text| text.trim());
    let wrong = |why: String| {
        malformed(
            format!("ConfigMap {}", name(&config_map.metadata)),
            format!(
                "{why}. Only members should write it: restore `state: formed` and `cluster:` with the \
                 cluster's hexadecimal id, as in the members' logs; empty it only if no member has data"
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
            Ok(BootstrapRecord::Empty)
        }
        Some(CLAIMED) => {
            let ordinal = number(ORDINAL, 10)?;
            Ok(BootstrapRecord::Claimed {
                cluster: ClusterId(number(CLUSTER, 16)?),
                member: MemberId(number(MEMBER, 16)?),
                ordinal: Ordinal(
                    ordinal
                        .try_into()
                        .map_err(|_| wrong(format!("data.{ORDINAL} is {ordinal}")))?,
                ),
            })
        }
        Some(FORMED) => Ok(BootstrapRecord::Formed { cluster: ClusterId(number(CLUSTER, 16)?) }),
        None => Err(wrong(format!("data.{STATE} is missing"))),
        Some(other) => Err(wrong(format!("data.{STATE} is {other:?}"))),
    }
}

/// The merge patch that stores `record`; `null` removes a key.
pub fn record_patch(record: BootstrapRecord) -> Value {
    let mut data = json!({ STATE: null, CLUSTER: null, MEMBER: null, ORDINAL: null });
    // An operator's order permits this founding, and no further one.
    if !matches!(record, BootstrapRecord::Claimed { .. }) {
        data[FOUND] = Value::Null;
    }
    for (key, text) in record_data(record) {
        data[key] = Value::String(text);
    }
    json!({ "data": data })
}

/// A ConfigMap with `record`, for a set of pods. It has the labels that name the set, as the manifests
/// give them to both.
pub fn new_record(name: &str, record: BootstrapRecord, set: &StatefulSet) -> ConfigMap {
    let labels = set.metadata.labels.iter().flatten();
    let labels = labels.filter(|(key, _)| NAMING_LABELS.contains(&key.as_str()));
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.to_string()),
            labels: Some(labels.map(|(key, value)| (key.clone(), value.clone())).collect()),
            ..ObjectMeta::default()
        },
        data: Some(record_data(record).map(|(key, text)| (key.to_string(), text)).collect()),
        ..ConfigMap::default()
    }
}

fn record_data(record: BootstrapRecord) -> impl Iterator<Item = (&'static str, String)> {
    let data = match record {
        BootstrapRecord::Empty => vec![],
        BootstrapRecord::Claimed { cluster, member, ordinal } => vec![
            (STATE, CLAIMED.to_string()),
            (CLUSTER, cluster.to_string()),
            (MEMBER, member.to_string()),
            (ORDINAL, ordinal.to_string()),
        ],
        BootstrapRecord::Formed { cluster } => {
            vec![(STATE, FORMED.to_string()), (CLUSTER, cluster.to_string())]
        }
    };
    data.into_iter()
}

fn name(metadata: &ObjectMeta) -> &str {
    metadata.name.as_deref().unwrap_or("without a name")
}

fn malformed(object: impl Display, why: impl Display) -> OrchestratorError {
    OrchestratorError::Malformed { object: object.to_string(), why: why.to_string() }
}

//! The leader's annotations on a Lease or Service, and the rule for overwriting them: pure decisions.
//!
//! Three annotations name the leader: `ordinal.dev/cluster`, `ordinal.dev/term`, `ordinal.dev/leader`.
//! Within one cluster, a later term overwrites an earlier one. Within one term, only the named pod may
//! write, and repairs the fields that others have changed. A term never has two leaders, so a leader
//! does not change an object that names another pod for its term. An object of another cluster, or
//! with malformed annotations, is overwritten.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{coordination::v1::Lease, core::v1::Service},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::ResourceExt as _;
use serde_json::{Map, Value, json};

use crate::types::{ClusterId, Ordinal, Term};

const CLUSTER: &str = "ordinal.dev/cluster";
const TERM: &str = "ordinal.dev/term";
const LEADER: &str = "ordinal.dev/leader";
/// The label that a StatefulSet's controller gives each of its pods.
const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
/// A reader of the Lease may consider the leader lost after this time without a renewal.
const LEASE_SECONDS: i32 = 15;

/// The leader that an object names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leader {
    pub cluster: ClusterId,
    pub term: Term,
    pub pod: String,
}

/// A leader's decision about an object.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// Merges this patch.
    Write(Value),
    /// The object is correct.
    Unchanged,
    /// The object names a leader that this one must not overwrite.
    Yield(Leader),
}

/// Acquires or renews the Lease for `me`.
pub fn acquire_lease(lease: &Lease, me: &Leader, now: &MicroTime) -> Decision {
    let named = named(lease.annotations());
    if let Some(other) = named.as_ref().filter(|named| !me.may_overwrite(named)) {
        return Decision::Yield(other.clone());
    }
    let spec = lease.spec.clone().unwrap_or_default();
    // A leader that lost contact with its quorum has released the Lease. If it acquires the Lease again
    // in its own term, no other member has led.
    let resumes = spec.holder_identity.is_none() && named.as_ref() == Some(me);
    let same_holder = resumes || spec.holder_identity.as_deref() == Some(&me.pod);
    let transitions = match spec.lease_transitions {
        // The first holder is not a transition.
        None => 0,
        Some(so_far) if same_holder => so_far,
        Some(so_far) => so_far.saturating_add(1),
    };
    let acquired = spec.acquire_time.filter(|_| same_holder && named.as_ref() == Some(me));
    Decision::Write(json!({
        "metadata": { "annotations": me.annotations() },
        "spec": {
            "holderIdentity": me.pod,
            "leaseDurationSeconds": LEASE_SECONDS,
            "leaseTransitions": transitions,
            "acquireTime": acquired.as_ref().unwrap_or(now),
            "renewTime": now,
        },
    }))
}

/// The patch that clears the Lease if `me`, which does not lead any more, still holds it.
pub fn release_lease(lease: &Lease, me: &Leader) -> Option<Value> {
    let holder = lease.spec.as_ref()?.holder_identity.as_deref();
    let named = named(lease.annotations());
    // A newer process of this pod may lead already: a later term is not ours.
    let mine = named.is_none_or(|named| named.cluster == me.cluster && named.term <= me.term);
    (holder == Some(&me.pod) && mine).then(|| json!({ "spec": { "holderIdentity": null } }))
}

/// Makes the Service select the pod of `me` only.
pub fn select_leader(service: &Service, me: &Leader) -> Decision {
    let named = named(service.annotations());
    if let Some(other) = named.as_ref().filter(|named| !me.may_overwrite(named)) {
        return Decision::Yield(other.clone());
    }
    let selector = service.spec.as_ref().and_then(|spec| spec.selector.clone()).unwrap_or_default();
    let wanted = BTreeMap::from([(POD_NAME.to_string(), me.pod.clone())]);
    if named.as_ref() == Some(me) && selector == wanted {
        return Decision::Unchanged;
    }
    // A merge preserves the keys that it does not name, so other keys are removed explicitly.
    let mut merged: Map<_, _> = selector.into_keys().map(|key| (key, Value::Null)).collect();
    merged.insert(POD_NAME.into(), json!(me.pod));
    Decision::Write(json!({
        "metadata": { "annotations": me.annotations() },
        "spec": { "selector": merged },
    }))
}

impl Leader {
    /// Whether this leader may overwrite an object that names `other`.
    fn may_overwrite(&self, other: &Leader) -> bool {
        other.cluster != self.cluster || other.term < self.term || other == self
    }

    fn annotations(&self) -> Value {
        json!({
            CLUSTER: self.cluster.to_string(),
            TERM: self.term.to_string(),
            LEADER: self.pod,
        })
    }
}

/// The ordinal of the annotated leader, if it is a pod of this StatefulSet.
pub fn annotated_leader(annotations: &BTreeMap<String, String>, set: &str) -> Option<Ordinal> {
    let pod = annotations.get(LEADER)?;
    let number = pod.strip_prefix(set)?.strip_prefix('-')?;
    number.parse().ok().map(Ordinal)
}

/// The annotated leader; `None` if the annotations are missing or malformed.
fn named(annotations: &BTreeMap<String, String>) -> Option<Leader> {
    Some(Leader {
        cluster: ClusterId(u64::from_str_radix(annotations.get(CLUSTER)?, 16).ok()?),
        term: Term(annotations.get(TERM)?.parse().ok()?),
        pod: annotations.get(LEADER)?.clone(),
    })
}

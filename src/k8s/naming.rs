//! How an object names the leader, and who may change that: pure decisions.
//!
//! Three annotations say whose it is: `ordinal.dev/cluster`, `ordinal.dev/term`, `ordinal.dev/leader`.
//! Of one cluster, a later term goes over an earlier one; of one term, only the pod that is named may
//! write, which repairs what others did to its fields. Two leaders of one term there are never, so an
//! object that names another one for our term is left alone. An object of another cluster, or with
//! annotations that make no sense, is taken over.

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
/// After so long without a renewal, a reader of the Lease may take the leader for lost.
const LEASE_SECONDS: i32 = 15;

/// Who leads, as objects name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Leader {
    pub cluster: ClusterId,
    pub term: Term,
    pub pod: String,
}

/// What a leader does about an object.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    /// Merges this into it.
    Write(Value),
    /// Nothing: it is as it should be.
    Right,
    /// Nothing: it names somebody whom this leader must not replace.
    Yield(Leader),
}

/// Names `me` in the Lease, or renews that.
pub(super) fn hold(lease: &Lease, me: &Leader, now: &MicroTime) -> Step {
    let named = named(lease.annotations());
    if let Some(other) = named.as_ref().filter(|named| !me.may_follow(named)) {
        return Step::Yield(other.clone());
    }
    let spec = lease.spec.clone().unwrap_or_default();
    let same_holder = spec.holder_identity.as_deref() == Some(&me.pod);
    let transitions = match spec.lease_transitions {
        // Nobody held it before: that is no transition.
        None => 0,
        Some(so_far) if same_holder => so_far,
        Some(so_far) => so_far.saturating_add(1),
    };
    let acquired = spec.acquire_time.filter(|_| same_holder && named.as_ref() == Some(me));
    Step::Write(json!({
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

/// Clears the Lease if `me`, who does not lead (any more), still holds it: what to merge into it.
pub(super) fn release(lease: &Lease, me: &Leader) -> Option<Value> {
    let holder = lease.spec.as_ref()?.holder_identity.as_deref();
    let named = named(lease.annotations());
    // A pod of this name may lead by now without this process knowing: a later term is not ours.
    let mine = named.is_none_or(|named| named.cluster == me.cluster && named.term <= me.term);
    (holder == Some(&me.pod) && mine).then(|| json!({ "spec": { "holderIdentity": null } }))
}

/// Makes the Service select the pod of `me`, and no others.
pub(super) fn select(service: &Service, me: &Leader) -> Step {
    let named = named(service.annotations());
    if let Some(other) = named.as_ref().filter(|named| !me.may_follow(named)) {
        return Step::Yield(other.clone());
    }
    let selector = service.spec.as_ref().and_then(|spec| spec.selector.clone()).unwrap_or_default();
    let wanted = BTreeMap::from([(POD_NAME.to_string(), me.pod.clone())]);
    if named.as_ref() == Some(me) && selector == wanted {
        return Step::Right;
    }
    // A merge keeps the keys that it does not name: those of others are taken away.
    let mut merged: Map<_, _> = selector.into_keys().map(|key| (key, Value::Null)).collect();
    merged.insert(POD_NAME.into(), json!(me.pod));
    Step::Write(json!({
        "metadata": { "annotations": me.annotations() },
        "spec": { "selector": merged },
    }))
}

impl Leader {
    /// Whether an object that names `other` may come to name this one.
    fn may_follow(&self, other: &Leader) -> bool {
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

/// The ordinal of the pod that annotations name as the leader, if it is one of this set.
pub(super) fn told_leader(annotations: &BTreeMap<String, String>, set: &str) -> Option<Ordinal> {
    let pod = annotations.get(LEADER)?;
    let number = pod.strip_prefix(set)?.strip_prefix('-')?;
    number.parse().ok().map(Ordinal)
}

/// Whom annotations name; `None` if they name nobody, or make no sense.
fn named(annotations: &BTreeMap<String, String>) -> Option<Leader> {
    Some(Leader {
        cluster: ClusterId(u64::from_str_radix(annotations.get(CLUSTER)?, 16).ok()?),
        term: Term(annotations.get(TERM)?.parse().ok()?),
        pod: annotations.get(LEADER)?.clone(),
    })
}

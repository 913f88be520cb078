//! The grace period and the endpoints of a pod that terminates.

use std::time::Duration;

use serde_json::{Value, json};

use super::{super::termination, api::Mode, manifests, member};
use crate::membership::{Orchestrator as _, OrchestratorError, Termination};

const POD: &str = "/api/v1/namespaces/db/pods/kv-0";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/db/endpointslices";

fn pod(patch: Value) -> Value {
    let mut pod = json!({
        "metadata": { "name": "kv-0", "uid": "uid-of-kv-0" },
        "spec": { "terminationGracePeriodSeconds": 120, "containers": [] },
    });
    super::api::merge(&mut pod, &patch);
    pod
}

fn deleted(grace_seconds: i64) -> Value {
    pod(json!({ "metadata": {
        "deletionTimestamp": "2026-01-02T00:00:00Z", "deletionGracePeriodSeconds": grace_seconds,
    } }))
}

fn slice(service: &str, conditions: &Value) -> Value {
    json!({
        "metadata": { "name": service },
        "addressType": "IPv4",
        "endpoints": [
            { "addresses": ["10.0.0.9"], "targetRef": { "kind": "Pod", "name": "kv-1", "uid": "x" } },
            { "addresses": ["10.0.0.8"], "conditions": conditions,
              "targetRef": { "kind": "Pod", "name": "kv-0", "uid": "uid-of-kv-0" } },
        ],
        "ports": [],
    })
}

#[test]
fn the_grace_period_is_that_of_the_deletion() {
    let grace = |pod: Value, uid| {
        let found = termination::of_pod(&serde_json::from_value(pod).unwrap(), uid);
        found.map(|found| (found.grace.as_secs(), found.is_deleted))
    };
    let uid = Some("uid-of-kv-0");
    assert_eq!(grace(deleted(5), uid), Some((5, true)));
    assert_eq!(grace(deleted(5), None), Some((5, true)));
    // A node that shuts down, and a failed probe, stop the container of a pod that is not deleted.
    assert_eq!(grace(pod(json!({})), uid), Some((120, false)));
    let unset = json!({ "spec": { "terminationGracePeriodSeconds": null } });
    assert_eq!(grace(pod(unset), uid), None);
    // The kubelet waits for a second all the same.
    assert_eq!(grace(deleted(0), uid), Some((1, true)));
    assert_eq!(grace(deleted(1), uid), Some((1, true)));
    // The pod was deleted with force, and is a new one by now.
    assert_eq!(grace(deleted(5), Some("older")), None);
}

#[test]
fn an_endpoint_is_withdrawn_by_each_of_its_conditions() {
    let published = |conditions: Value| {
        let slices = [slice("kv-client", &conditions)].map(|s| serde_json::from_value(s).unwrap());
        termination::is_published(&slices, "kv-0", Some("uid-of-kv-0"))
    };
    assert!(published(json!({ "ready": true, "serving": true, "terminating": false })));
    assert!(published(json!({ "ready": true })));
    assert!(published(json!({})));
    assert!(published(Value::Null));
    assert!(!published(json!({ "ready": false, "serving": false, "terminating": false })));
    assert!(!published(json!({ "ready": false, "serving": true, "terminating": true })));
    // With publishNotReadyAddresses.
    assert!(!published(json!({ "ready": true, "serving": true, "terminating": true })));
    assert!(!published(json!({ "ready": true, "serving": false, "terminating": false })));
}

#[test]
fn only_endpoints_of_this_pod_count() {
    let slices = [serde_json::from_value(slice("kv-client", &json!({ "ready": true }))).unwrap()];
    let published = |pod, uid| termination::is_published(&slices, pod, uid);
    assert!(published("kv-0", None));
    // Another pod of this name, from before or after.
    assert!(!published("kv-0", Some("older")));
    assert!(!published("kv-2", None));
    assert!(!termination::is_published(&[], "kv-0", None));
}

#[tokio::test]
async fn every_slice_must_withdraw_the_endpoint() {
    let api = manifests().await;
    let kv0 = member(&api, "kv-0");
    assert_eq!(kv0.endpoint_published().await, Ok(false));
    let (ready, terminating) = (json!({ "ready": true }), json!({ "terminating": true }));
    api.put(&format!("{SLICES}/a"), slice("a", &terminating));
    api.put(&format!("{SLICES}/b"), slice("b", &ready));
    assert_eq!(kv0.endpoint_published().await, Ok(true));
    api.put(&format!("{SLICES}/b"), slice("b", &terminating));
    assert_eq!(kv0.endpoint_published().await, Ok(false));
    api.set_mode(Mode::Refuses(403, "Forbidden"));
    let forbidden = kv0.endpoint_published().await;
    assert!(matches!(forbidden, Err(OrchestratorError::Forbidden(_))), "{forbidden:?}");
    // A resourceVersion in the query would allow an answer from a cache.
    assert!(api.requests().iter().all(|request| *request == format!("GET {SLICES}")));
}

#[tokio::test]
async fn the_grace_period_is_read_from_the_own_pod() {
    let api = manifests().await;
    let kv0 = member(&api, "kv-0");
    assert_eq!(kv0.termination().await, Ok(None));
    api.put(POD, pod(json!({})));
    assert_eq!(
        kv0.termination().await,
        Ok(Some(Termination { grace: Duration::from_secs(120), is_deleted: false }))
    );
    api.put(POD, deleted(5));
    assert_eq!(
        kv0.termination().await,
        Ok(Some(Termination { grace: Duration::from_secs(5), is_deleted: true }))
    );
    api.set_mode(Mode::Proxies(404));
    assert!(matches!(kv0.termination().await, Err(OrchestratorError::Unreachable(_))));
}

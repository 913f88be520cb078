//! The claims of a former cluster: by name and age, and over the wire.

use serde_json::{Value, json};

use super::{
    super::claims,
    RECORD, SET,
    api::{Mode, merge},
    manifests, member, set,
};
use crate::{
    membership::{ClaimOrigin, FormerClaim, FoundingOrder, Orchestrator as _, OrchestratorError},
    types::Ordinal,
};

const CLAIMS: &str = "/api/v1/namespaces/db/persistentvolumeclaims";

fn claim(name: &str, created: &str) -> Value {
    json!({ "metadata": { "name": name, "creationTimestamp": created }, "spec": {} })
}

fn claimed_set(templates: &[&str]) -> Value {
    let mut set = set(3);
    let template = |name: &&str| json!({ "metadata": { "name": name } });
    let templates: Vec<Value> = templates.iter().map(template).collect();
    merge(&mut set, &json!({ "spec": { "volumeClaimTemplates": templates } }));
    set
}

fn former_of(
    set: Value,
    record: Option<&str>,
    claims: &[Value],
) -> Result<Vec<FormerClaim>, OrchestratorError> {
    let claims: Vec<_> =
        claims.iter().map(|claim| serde_json::from_value(claim.clone()).unwrap()).collect();
    let record = record.map(|created| {
        let record = json!({ "metadata": { "name": "kv-cluster", "creationTimestamp": created } });
        serde_json::from_value(record).unwrap()
    });
    claims::former(&claims, &serde_json::from_value(set).unwrap(), record.as_ref(), "kv-3")
}

fn former(ordinal: u32, origin: ClaimOrigin) -> FormerClaim {
    FormerClaim { name: format!("data-kv-{ordinal}"), ordinal: Ordinal(ordinal), origin }
}

const BEFORE: &str = "2025-12-31T23:59:59Z";
const WITH_THE_SET: &str = "2026-01-01T00:00:00Z";
const AFTER: &str = "2026-01-01T00:00:01Z";

#[test]
fn only_strictly_older_claims_are_of_a_former_cluster() {
    let claims =
        [claim("data-kv-2", BEFORE), claim("data-kv-0", WITH_THE_SET), claim("data-kv-1", AFTER)];
    let of = |record| former_of(claimed_set(&["data"]), record, &claims).unwrap();
    assert_eq!(of(None), [former(2, ClaimOrigin::OlderThanSet)]);
    assert_eq!(of(Some(WITH_THE_SET)), [former(2, ClaimOrigin::OlderThanSet)]);
    let (old, recreated) = (ClaimOrigin::OlderThanSet, ClaimOrigin::OlderThanRecord);
    assert_eq!(of(Some(AFTER)), [former(0, recreated), former(2, old)]);
}

#[test]
fn a_claim_from_a_data_source_is_former_at_any_age() {
    for source in ["dataSource", "dataSourceRef"] {
        let mut restored = claim("data-kv-1", AFTER);
        restored["spec"][source] = json!({ "kind": "VolumeSnapshot", "name": "yesterday" });
        let claims = [claim("data-kv-0", AFTER), restored];
        let found = former_of(claimed_set(&["data"]), Some(BEFORE), &claims).unwrap();
        assert_eq!(found, [former(1, ClaimOrigin::Restored)]);
    }
}

/// The PersistentVolume controller annotates the claim whose volume it chose, also a reserved one.
#[test]
fn a_claim_that_was_given_its_volume_is_former_at_any_age() {
    let of = |spec: Value, annotations: Value| {
        let mut given = claim("data-kv-1", AFTER);
        given["spec"] = spec;
        given["metadata"]["annotations"] = annotations;
        let claims = [claim("data-kv-0", AFTER), given];
        former_of(claimed_set(&["data"]), Some(BEFORE), &claims).unwrap()
    };
    let by_controller = json!({ "pv.kubernetes.io/bound-by-controller": "yes" });
    let completed = json!({ "pv.kubernetes.io/bind-completed": "yes" });
    let (bound, prebound) = (json!({ "volumeName": "old" }), [former(1, ClaimOrigin::Prebound)]);
    assert_eq!(of(bound.clone(), by_controller.clone()), []);
    assert_eq!(of(json!({ "volumeName": "" }), Value::Null), []);
    assert_eq!(of(json!({}), Value::Null), []);
    assert_eq!(of(bound.clone(), Value::Null), prebound);
    assert_eq!(of(bound, completed), prebound);
    let selecting = json!({ "volumeName": "old", "selector": { "matchLabels": { "of": "kv" } } });
    assert_eq!(of(selecting, by_controller), prebound);
}

/// The record was emptied by hand, and the volume of the asking pod replaced.
#[test]
fn a_claim_that_is_much_older_than_that_of_the_asking_pod_is_former() {
    let of = |own: &str| {
        let claims = [
            claim("data-kv-1", AFTER),
            claim("data-kv-3", own),
            claim("data-kv-31", "2026-06-01T00:00:00Z"),
        ];
        former_of(claimed_set(&["data"]), Some(WITH_THE_SET), &claims).unwrap()
    };
    assert_eq!(of("2026-01-01T00:10:01Z"), []);
    assert_eq!(of("2026-01-01T00:10:02Z"), [former(1, ClaimOrigin::OlderThanOwn)]);
}

/// The controller finds claims by this name, whatever their labels.
#[test]
fn a_claim_belongs_to_the_set_by_its_name_alone() {
    let names = |templates: &[&str], claims: &[&str]| -> Vec<String> {
        let claims: Vec<_> = claims.iter().map(|name| claim(name, BEFORE)).collect();
        let found = former_of(claimed_set(templates), None, &claims).unwrap();
        found.into_iter().map(|claim| claim.name).collect()
    };
    // Of every ordinal, desired or not.
    let ours = ["data-kv-0", "data-kv-2", "data-kv-10", "data-kv-4294967295"];
    assert_eq!(names(&["data"], &ours), ours);
    let others = [
        "data-kv-1-0",
        "data-kv2-0",
        "data-akv-0",
        "adata-kv-0",
        "kv-0",
        "data-kv-",
        "data-kv-01",
        "data-kv-+1",
        "data-kv--1",
        "data-kv-x",
        "data-kv-4294967296",
        "data-kv",
        "data-0",
    ];
    assert!(names(&["data"], &others).is_empty());
    let of_two = ["data-kv-0", "wal-kv-0", "wal-kv-1"];
    assert_eq!(names(&["data", "wal"], &of_two), of_two);
    assert!(names(&[], &of_two).is_empty());
}

#[test]
fn without_a_time_or_with_a_set_that_is_being_deleted_nothing_is_known() {
    let claims = [claim("data-kv-0", AFTER)];
    let known = |set, claims: &[Value]| former_of(set, None, claims);
    assert_eq!(known(claimed_set(&["data"]), &claims), Ok(Vec::new()));
    let mut going = claimed_set(&["data"]);
    merge(&mut going, &json!({ "metadata": { "deletionTimestamp": AFTER } }));
    assert!(matches!(known(going, &claims), Err(OrchestratorError::Refused(_))));
    let mut timeless = claimed_set(&["data"]);
    merge(&mut timeless, &json!({ "metadata": { "creationTimestamp": null } }));
    assert!(matches!(known(timeless, &claims), Err(OrchestratorError::Malformed { .. })));
    let timeless = json!({ "metadata": { "name": "data-kv-0" } });
    let error = known(claimed_set(&["data"]), &[timeless]).unwrap_err().to_string();
    assert_eq!(
        error,
        "PersistentVolumeClaim data-kv-0 is malformed: no metadata.creationTimestamp"
    );
}

#[tokio::test]
async fn claims_are_read_page_by_page_and_never_cached() {
    let api = manifests().await;
    let kv3 = member(&api, "kv-3");
    api.put(SET, claimed_set(&["data"]));
    assert_eq!(kv3.former_claims().await, Ok(Vec::new()));
    for name in ["data-kv-0", "data-kv-1", "data-kv-2", "data-other-0", "data-kv-7"] {
        api.put(&format!("{CLAIMS}/{name}"), claim(name, BEFORE));
    }
    for page_max in [1, 2, 5, 100] {
        api.set_page_max(page_max);
        let found = kv3.former_claims().await.unwrap();
        let found: Vec<u32> = found.into_iter().map(|claim| claim.ordinal.0).collect();
        assert_eq!(found, [0, 1, 2, 7], "pages of {page_max}");
    }
    // The record counts too.
    api.put(RECORD, json!({ "metadata": { "creationTimestamp": "2026-01-01T00:00:05Z" } }));
    api.put(&format!("{CLAIMS}/data-kv-8"), claim("data-kv-8", AFTER));
    let found = kv3.former_claims().await.unwrap();
    assert_eq!(found.last(), Some(&former(8, ClaimOrigin::OlderThanRecord)));
    api.delete(RECORD);
    assert_eq!(kv3.former_claims().await.unwrap().len(), 4);
    api.delete(SET);
    assert!(matches!(kv3.former_claims().await, Err(OrchestratorError::Refused(_))));
}

/// An answer that is no list must not count as an empty one.
#[tokio::test]
async fn a_list_that_fails_says_nothing_about_claims() {
    let api = manifests().await;
    let kv0 = member(&api, "kv-0");
    for (mode, text) in [
        (
            Mode::Refuses(403, "Forbidden"),
            "Kubernetes forbids the request: list of persistentvolumeclaims: 403 ",
        ),
        (Mode::Refuses(401, "Unauthorized"), "Kubernetes forbids the request: "),
        (Mode::Refuses(404, "NotFound"), "Kubernetes refuses the request: "),
        (Mode::Refuses(410, "Expired"), "Kubernetes "),
        (Mode::Proxies(404), "Kubernetes is unreachable: "),
        (Mode::Breaks, "Kubernetes is unreachable: "),
        (Mode::Hangs, "Kubernetes is unreachable: "),
        (Mode::Garbles, ""),
    ] {
        api.set_mode(mode);
        let error = kv0.connection().list::<k8s_openapi::api::core::v1::PersistentVolumeClaim>();
        let error = error.await.unwrap_err().to_string();
        assert!(error.starts_with(text), "{mode:?}: {error}");
    }
}

#[tokio::test]
async fn an_order_is_stored_in_the_record_that_was_read() {
    let api = manifests().await;
    let (kv0, kv1) = (member(&api, "kv-0"), member(&api, "kv-1"));
    let read = kv0.bootstrap_record().await.unwrap().unwrap();
    assert_eq!(read.order, None);
    let order = FoundingOrder::new(&[former(1, ClaimOrigin::OlderThanSet)]);
    assert_eq!(kv0.order_founding(&order, &read.version).await, Ok(true));
    assert_eq!(kv1.order_founding(&order, &read.version).await, Ok(false));
    let read = kv1.bootstrap_record().await.unwrap().unwrap();
    assert_eq!(read.order, Some(order));
    assert_eq!(api.object(RECORD)["data"], json!({ "found": "despite data-kv-1" }));
}

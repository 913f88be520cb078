//! StatefulSet to intent, ConfigMap to bootstrap record and back.

use std::time::Duration;

use serde_json::{Value, json};

use super::{super::objects, api::merge, set};
use crate::{
    membership::{BootstrapRecord, FoundingOrder, Intent, OrchestratorError, PodCreation},
    types::{ClusterId, DesiredReplicas, MemberId, Ordinal},
};

fn intent(set: Value) -> Result<Intent, OrchestratorError> {
    objects::intent(Some(&serde_json::from_value(set).unwrap()))
}

fn with(patch: Value) -> Value {
    let mut set = set(3);
    merge(&mut set, &patch);
    set
}

#[test]
fn the_spec_says_how_many_pods_and_from_which_ordinal() {
    let wanted = |start, replicas| {
        Ok(Intent::Scale(DesiredReplicas { set: "5e7".into(), generation: 4, start, replicas }))
    };
    assert_eq!(intent(set(3)), wanted(0, 3));
    assert_eq!(intent(with(json!({ "spec": { "ordinals": { "start": 5 } } }))), wanted(5, 3));
    assert_eq!(intent(with(json!({ "spec": { "replicas": null } }))), wanted(0, 1));
    // The status lags behind the spec.
    assert_eq!(intent(with(json!({ "status": { "replicas": 9 } }))), wanted(0, 3));
}

#[test]
fn an_ordered_creation_lasts_until_all_pods_exist() {
    let creation = |patch: Value| {
        objects::pod_creation(&serde_json::from_value(with(patch)).unwrap())
            .map(|PodCreation { first, created, replicas }| (first.0, created, replicas))
    };
    let ordered = |created: u32, more: Value| {
        let mut set = json!({
            "spec": { "podManagementPolicy": "OrderedReady" }, "status": { "replicas": created },
        });
        merge(&mut set, &more);
        creation(set)
    };
    assert_eq!(ordered(1, json!({})), Some((0, 1, 3)));
    assert_eq!(ordered(0, json!({ "spec": { "ordinals": { "start": 5 } } })), Some((5, 0, 3)));
    assert_eq!(ordered(0, json!({ "status": null })), Some((0, 0, 3)));
    // All pods exist, or more while others terminate.
    assert_eq!(ordered(3, json!({})), None);
    assert_eq!(ordered(4, json!({})), None);
    assert_eq!(ordered(0, json!({ "spec": { "replicas": 0 } })), None);
    let going = json!({ "metadata": { "deletionTimestamp": "2026-01-02T00:00:00Z" } });
    assert_eq!(ordered(1, going), None);
    let parallel = json!({ "spec": { "podManagementPolicy": "Parallel" } });
    assert_eq!(ordered(1, parallel), None);
    assert_eq!(creation(json!({ "status": { "replicas": 1 } })), None);
}

#[test]
fn all_hibernate_if_the_set_is_gone_going_or_scaled_to_nothing() {
    assert_eq!(objects::intent(None), Ok(Intent::Hibernate));
    assert_eq!(intent(set(0)), Ok(Intent::Hibernate));
    let going = json!({ "metadata": { "deletionTimestamp": "2026-01-02T00:00:00Z" } });
    assert_eq!(intent(with(going)), Ok(Intent::Hibernate));
}

#[test]
fn a_malformed_set_is_an_error_and_no_hibernation() {
    for patch in [
        json!({ "spec": { "replicas": -1 } }),
        json!({ "spec": { "ordinals": { "start": -1 } } }),
        json!({ "metadata": { "generation": null } }),
        json!({ "metadata": { "generation": -1 } }),
        json!({ "metadata": { "uid": null } }),
        json!({ "spec": null }),
    ] {
        let error = intent(with(patch.clone())).unwrap_err();
        assert!(
            matches!(&error, OrchestratorError::Malformed { object, .. } if object == "StatefulSet kv"),
            "{patch}: {error}"
        );
    }
}

fn config_map(data: Value) -> Value {
    json!({
        "metadata": { "name": "kv-cluster", "resourceVersion": "7",
                      "creationTimestamp": "2026-01-01T00:10:00Z" },
        "data": data,
    })
}

fn record(data: Value) -> Result<BootstrapRecord, OrchestratorError> {
    let config_map = serde_json::from_value(config_map(data)).unwrap();
    let set = serde_json::from_value(set(3)).unwrap();
    objects::stored_record(&config_map, &set).map(|stored| stored.record)
}

#[test]
fn a_record_survives_a_round_trip_over_any_other() {
    let records = [
        BootstrapRecord::Empty,
        BootstrapRecord::Claimed {
            cluster: ClusterId(u64::MAX),
            member: MemberId(0xabc),
            ordinal: Ordinal(0),
        },
        BootstrapRecord::Formed { cluster: ClusterId(0xdead_beef) },
    ];
    for before in records {
        for after in records {
            let mut object = config_map(json!({ "note": "of another owner" }));
            merge(&mut object, &objects::record_patch(before));
            merge(&mut object, &objects::record_patch(after));
            assert_eq!(object["data"]["note"], "of another owner");
            assert_eq!(record(object["data"].clone()), Ok(after));
        }
    }
}

/// The order must reach the end of the founding that it permits, and no further one.
#[test]
fn a_founding_order_ends_with_a_formed_or_emptied_record() {
    let set = serde_json::from_value(set(3)).unwrap();
    let order = |object: &Value| {
        let stored = objects::stored_record(&serde_json::from_value(object.clone()).unwrap(), &set);
        stored.unwrap().order
    };
    let despite = |names: &[&str]| FoundingOrder {
        despite: names.iter().map(|name| (*name).to_string()).collect(),
    };
    let mut object = config_map(json!({}));
    assert_eq!(order(&object), None);
    let given = despite(&["data-kv-0", "data-kv-1"]);
    merge(&mut object, &objects::founding_order_patch(&given));
    assert_eq!(object["data"], json!({ "found": "despite data-kv-0,data-kv-1" }));
    assert_eq!(order(&object), Some(given.clone()));
    let cluster = ClusterId(7);
    let claimed = BootstrapRecord::Claimed { cluster, member: MemberId(1), ordinal: Ordinal(0) };
    merge(&mut object, &objects::record_patch(claimed));
    assert_eq!(order(&object), Some(given));
    for last in [BootstrapRecord::Formed { cluster }, BootstrapRecord::Empty] {
        let mut object = object.clone();
        merge(&mut object, &objects::record_patch(last));
        assert_eq!(order(&object), None, "{last:?}");
    }
    // Written by hand: an order names its claims, and another value is no damage.
    for (value, expected) in [
        (" despite data-kv-1, data-kv-0\n", Some(despite(&["data-kv-0", "data-kv-1"]))),
        ("despite", Some(despite(&[]))),
        ("despite-volumes", None),
        ("yes", None),
        ("", None),
    ] {
        assert_eq!(order(&config_map(json!({ "found": value }))), expected, "{value:?}");
    }
    assert_eq!(despite(&[]).to_string(), "despite");
}

#[test]
fn a_record_without_data_is_empty_and_a_damaged_one_is_an_error_with_instructions() {
    assert_eq!(record(Value::Null), Ok(BootstrapRecord::Empty));
    assert_eq!(record(json!({})), Ok(BootstrapRecord::Empty));
    assert_eq!(record(json!({ "note": "x" })), Ok(BootstrapRecord::Empty));
    for data in [
        json!({ "state": "formed" }),
        json!({ "state": "formed", "cluster": "0" }),
        json!({ "state": "formed", "cluster": "no number" }),
        json!({ "state": "formed", "cluster": "11112222333344445" }),
        json!({ "state": "" }),
        json!({ "state": "founded", "cluster": "1" }),
        json!({ "cluster": "1" }),
        json!({ "state": "claimed", "cluster": "1", "member": "2" }),
        json!({ "state": "claimed", "cluster": "1", "ordinal": "0" }),
        json!({ "state": "claimed", "cluster": "1", "member": "2", "ordinal": "99999999999" }),
        json!({ "state": "claimed", "cluster": "1", "member": "2", "ordinal": "-1" }),
    ] {
        let error = record(data.clone()).unwrap_err().to_string();
        assert!(error.starts_with("ConfigMap kv-cluster is malformed: data."), "{error}");
        assert!(error.contains("restore `state: formed`"), "{data}: {error}");
    }
}

#[test]
fn a_recreated_record_is_recognized_by_its_age() {
    let set = serde_json::from_value(set(3)).unwrap();
    for (created, younger_by) in [
        ("2026-01-01T00:10:01Z", Some(Duration::from_secs(601))),
        ("2025-12-31T23:00:00Z", Some(Duration::ZERO)),
        ("", None),
    ] {
        let mut object = config_map(json!({}));
        object["metadata"]["creationTimestamp"] =
            if created.is_empty() { Value::Null } else { json!(created) };
        let stored = objects::stored_record(&serde_json::from_value(object).unwrap(), &set);
        assert_eq!(stored.ok().map(|stored| stored.younger_by), younger_by);
    }
}

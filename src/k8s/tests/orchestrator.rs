//! Intent and bootstrap record over the wire.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{RECORD, SET, api::Mode, manifests, member, set};
use crate::{
    membership::{BootstrapRecord, Intent, Orchestrator as _, OrchestratorError},
    types::{ClusterId, MemberId, Ordinal},
};

fn claimed_by(ordinal: u32) -> BootstrapRecord {
    let cluster = ClusterId(100 + u64::from(ordinal));
    BootstrapRecord::Claimed { cluster, member: MemberId(1), ordinal: Ordinal(ordinal) }
}

#[tokio::test]
async fn intent_is_never_cached() {
    let api = manifests().await;
    let kv0 = member(&api, "kv-0");
    for replicas in [3, 5, 1] {
        api.put(SET, set(replicas));
        let Intent::Scale(desired) = kv0.intent().await.unwrap() else { panic!("hibernates") };
        assert_eq!(desired.replicas, replicas);
    }
    api.delete(SET);
    assert_eq!(kv0.intent().await, Ok(Intent::Hibernate));
    // A resourceVersion in the query would allow an answer from a cache.
    assert!(api.requests().iter().all(|request| *request == format!("GET {SET}")));
}

/// Otherwise a proxy, or a starting API server, would stop all members.
#[tokio::test]
async fn only_the_api_server_itself_can_report_the_set_as_deleted() {
    let api = manifests().await;
    let kv0 = member(&api, "kv-0");
    for mode in [Mode::Proxies(404), Mode::Proxies(503), Mode::Breaks, Mode::Hangs] {
        api.set_mode(mode);
        let answer = kv0.intent().await;
        assert!(matches!(answer, Err(OrchestratorError::Unreachable(_))), "{mode:?}: {answer:?}");
    }
}

#[tokio::test]
async fn errors_distinguish_unreachable_refused_and_malformed() {
    let api = manifests().await;
    let kv0 = member(&api, "kv-0");
    for (mode, text) in [
        (
            Mode::Forbids,
            "Kubernetes forbids the request: StatefulSet kv: 403 kv Forbidden (the manifests ",
        ),
        (
            Mode::Refuses(401, "Unauthorized"),
            "Kubernetes forbids the request: StatefulSet kv: 401 kv Una",
        ),
        (Mode::Refuses(422, "Invalid"), "Kubernetes refuses the request: StatefulSet kv: 422 kv"),
        (Mode::Refuses(500, "InternalError"), "Kubernetes is unreachable: StatefulSet kv: 500 "),
        (Mode::Refuses(429, "TooManyRequests"), "Kubernetes is unreachable: StatefulSet kv: 429"),
        (Mode::Hangs, "Kubernetes is unreachable: StatefulSet kv: no answer within 2s"),
        (Mode::Garbles, "StatefulSet kv is malformed: invalid type: integer"),
    ] {
        api.set_mode(mode);
        let error = kv0.intent().await.unwrap_err().to_string();
        assert!(error.starts_with(text), "{mode:?}: {error}");
    }
    api.go_away().await;
    let error = kv0.intent().await.unwrap_err().to_string();
    assert!(error.contains("StatefulSet kv") && error.contains("onnection refused"), "{error}");
    assert_eq!(kv0.metrics().failed_calls.get(), 8);
    assert_eq!(kv0.metrics().calls.get(), 10);
}

/// A member that reads a refusal of a permission it had stops at once, so the refusal must be authentic.
#[tokio::test]
async fn an_api_server_that_has_not_read_its_roles_forbids_nothing() {
    let api = manifests().await;
    let kv0 = member(&api, "kv-0");
    api.set_mode(Mode::Refuses(403, "Forbidden"));
    let starting = kv0.intent().await;
    assert!(matches!(starting, Err(OrchestratorError::Unreachable(_))), "{starting:?}");
    for mode in [Mode::Forbids, Mode::Refuses(401, "Unauthorized")] {
        api.set_mode(mode);
        let revoked = kv0.intent().await;
        assert!(matches!(revoked, Err(OrchestratorError::Forbidden(_))), "{mode:?}: {revoked:?}");
    }
}

#[tokio::test]
async fn an_api_server_that_comes_back_is_found_at_once() {
    let api = manifests().await;
    let kv0 = member(&api, "kv-0");
    kv0.intent().await.unwrap();
    api.go_away().await;
    kv0.intent().await.unwrap_err();
    kv0.intent().await.unwrap_err();
    api.come_back().await;
    kv0.intent().await.unwrap();
    // An open but dead connection costs one call, and no more than its limit.
    tokio::try_join!(kv0.intent(), kv0.intent()).unwrap();
    api.set_mode(Mode::Hangs);
    let began = Instant::from(tokio::time::Instant::now());
    kv0.intent().await.unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(10));
    api.set_mode(Mode::Serves);
    kv0.intent().await.unwrap();
}

#[tokio::test]
async fn of_two_founders_one_claims_the_record() {
    let api = manifests().await;
    let (kv0, kv1) = (member(&api, "kv-0"), member(&api, "kv-1"));
    let (read0, read1) = tokio::try_join!(kv0.bootstrap_record(), kv1.bootstrap_record()).unwrap();
    let (read0, read1) = (read0.unwrap(), read1.unwrap());
    assert_eq!((read0.record, &read0.version), (BootstrapRecord::Empty, &read1.version));
    let (won0, won1) = tokio::try_join!(
        kv0.write_bootstrap_record(claimed_by(0), &read0.version),
        kv1.write_bootstrap_record(claimed_by(1), &read1.version),
    )
    .unwrap();
    assert_ne!(won0, won1);
    let winner = claimed_by(u32::from(won1));
    let read = kv0.bootstrap_record().await.unwrap().unwrap();
    assert_eq!(read.record, winner);
    // The next swap is guarded by the version as well.
    let formed = BootstrapRecord::Formed { cluster: ClusterId(100) };
    assert_eq!(kv1.write_bootstrap_record(formed, &read0.version).await, Ok(false));
    assert_eq!(kv1.write_bootstrap_record(formed, &read.version).await, Ok(true));
    assert_eq!(kv0.bootstrap_record().await.unwrap().unwrap().record, formed);
    assert_eq!(api.object(RECORD)["data"], json!({ "state": "formed", "cluster": "64" }));
    assert_eq!(api.object(RECORD)["metadata"]["labels"], json!({ "app": "kv" }));
}

#[tokio::test]
async fn a_deleted_record_reads_as_none_and_cannot_be_written() {
    let api = manifests().await;
    let kv0 = member(&api, "kv-0");
    let read = kv0.bootstrap_record().await.unwrap().unwrap();
    api.delete(RECORD);
    assert_eq!(kv0.write_bootstrap_record(claimed_by(0), &read.version).await, Ok(false));
    assert_eq!(kv0.bootstrap_record().await, Ok(None));
    // Kubernetes accepts an empty version as any version.
    api.put(RECORD, json!({ "metadata": { "name": "kv-cluster" } }));
    assert_eq!(kv0.write_bootstrap_record(claimed_by(0), "").await, Ok(false));
    // Without the set, the record's relative age is unknown.
    api.delete(SET);
    assert!(matches!(kv0.bootstrap_record().await, Err(OrchestratorError::Refused(_))));
}

#[tokio::test]
async fn a_deleted_record_is_created_again_with_the_labels_of_the_set() {
    let api = manifests().await;
    let kv0 = member(&api, "kv-0");
    let labels = json!({ "app.kubernetes.io/name": "ordinal", "app.kubernetes.io/instance": "kv" });
    api.edit(SET, &json!({ "metadata": { "labels": labels } }));
    api.edit(SET, &json!({ "metadata": { "labels": { "app.kubernetes.io/managed-by": "Helm" } } }));
    let formed = |cluster| BootstrapRecord::Formed { cluster: ClusterId(cluster) };
    // An object that exists keeps its record.
    kv0.create_bootstrap_record(formed(1)).await.unwrap();
    assert_eq!(kv0.bootstrap_record().await.unwrap().unwrap().record, BootstrapRecord::Empty);
    api.delete(RECORD);
    kv0.create_bootstrap_record(formed(2)).await.unwrap();
    kv0.create_bootstrap_record(formed(3)).await.unwrap();
    assert_eq!(kv0.bootstrap_record().await.unwrap().unwrap().record, formed(2));
    assert_eq!(api.object(RECORD)["metadata"]["labels"], labels);
    assert_eq!(api.object(RECORD)["data"], json!({ "state": "formed", "cluster": "2" }));
    // Deleted together with the set.
    api.delete(RECORD);
    api.edit(SET, &json!({ "metadata": { "deletionTimestamp": "2026-01-01T00:00:00Z" } }));
    let refused = kv0.create_bootstrap_record(formed(4)).await;
    assert!(matches!(refused, Err(OrchestratorError::Refused(_))), "{refused:?}");
    api.delete(SET);
    let refused = kv0.create_bootstrap_record(formed(4)).await;
    assert!(matches!(refused, Err(OrchestratorError::Refused(_))), "{refused:?}");
    assert!(api.list("/api/v1/namespaces/db/configmaps").is_empty());
}

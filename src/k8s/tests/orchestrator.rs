//! Intent and claim over the wire.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{CLAIM, SET, api::Mode, manifests, member, set};
use crate::{
    membership::{Claim, Intent, Orchestrator as _, OrchestratorError},
    types::{ClusterId, MemberId, Ordinal},
};

fn claimed_by(ordinal: u32) -> Claim {
    let cluster = ClusterId(100 + u64::from(ordinal));
    Claim::Claimed { cluster, member: MemberId(1), ordinal: Ordinal(ordinal) }
}

#[tokio::test]
async fn intent_is_read_anew_each_time() {
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

/// Else a proxy, or an API server that just starts, would stop all members.
#[tokio::test]
async fn only_the_api_server_itself_can_say_that_the_set_is_gone() {
    let api = manifests().await;
    let kv0 = member(&api, "kv-0");
    for mode in [Mode::Proxies(404), Mode::Proxies(503), Mode::Breaks, Mode::Hangs] {
        api.set_mode(mode);
        let answer = kv0.intent().await;
        assert!(matches!(answer, Err(OrchestratorError::Unreachable(_))), "{mode:?}: {answer:?}");
    }
}

#[tokio::test]
async fn errors_say_whether_waiting_helps() {
    let api = manifests().await;
    let kv0 = member(&api, "kv-0");
    for (mode, text) in [
        (Mode::Refuses(403, "Forbidden"), "Kubernetes refuses: StatefulSet kv: 403 kv Forbidden"),
        (Mode::Refuses(401, "Unauthorized"), "Kubernetes refuses: StatefulSet kv: 401 kv Una"),
        (Mode::Refuses(500, "InternalError"), "Kubernetes does not answer: StatefulSet kv: 500 "),
        (Mode::Refuses(429, "TooManyRequests"), "Kubernetes does not answer: StatefulSet kv: 429"),
        (Mode::Hangs, "Kubernetes does not answer: StatefulSet kv: no answer within 2s"),
        (Mode::Raves, "StatefulSet kv cannot be understood: invalid type: integer"),
    ] {
        api.set_mode(mode);
        let error = kv0.intent().await.unwrap_err().to_string();
        assert!(error.starts_with(text), "{mode:?}: {error}");
    }
    api.go_away().await;
    let error = kv0.intent().await.unwrap_err().to_string();
    assert!(error.contains("StatefulSet kv") && error.contains("onnection refused"), "{error}");
    assert_eq!(kv0.metrics().failed_calls.get(), 7);
    assert_eq!(kv0.metrics().calls.get(), 7);
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
    // Connections that are open and dead: each costs one call, and no more than its limit.
    tokio::try_join!(kv0.intent(), kv0.intent()).unwrap();
    api.set_mode(Mode::Hangs);
    let began = Instant::from(tokio::time::Instant::now());
    kv0.intent().await.unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(10));
    api.set_mode(Mode::Serves);
    kv0.intent().await.unwrap();
}

#[tokio::test]
async fn of_two_founders_one_gets_the_claim() {
    let api = manifests().await;
    let (kv0, kv1) = (member(&api, "kv-0"), member(&api, "kv-1"));
    let (read0, read1) = tokio::try_join!(kv0.claim(), kv1.claim()).unwrap();
    let (read0, read1) = (read0.unwrap(), read1.unwrap());
    assert_eq!((read0.claim, &read0.version), (Claim::Empty, &read1.version));
    let (won0, won1) = tokio::try_join!(
        kv0.write_claim(claimed_by(0), &read0.version),
        kv1.write_claim(claimed_by(1), &read1.version),
    )
    .unwrap();
    assert_ne!(won0, won1);
    let winner = claimed_by(u32::from(won1));
    let read = kv0.claim().await.unwrap().unwrap();
    assert_eq!(read.claim, winner);
    // The claim's next step is guarded likewise, by the version that was just read.
    let formed = Claim::Formed { cluster: ClusterId(100) };
    assert_eq!(kv1.write_claim(formed, &read0.version).await, Ok(false));
    assert_eq!(kv1.write_claim(formed, &read.version).await, Ok(true));
    assert_eq!(kv0.claim().await.unwrap().unwrap().claim, formed);
    assert_eq!(api.object(CLAIM)["data"], json!({ "state": "formed", "cluster": "64" }));
    assert_eq!(api.object(CLAIM)["metadata"]["labels"], json!({ "app": "kv" }));
}

#[tokio::test]
async fn a_claim_that_is_gone_is_none_and_cannot_be_written() {
    let api = manifests().await;
    let kv0 = member(&api, "kv-0");
    let read = kv0.claim().await.unwrap().unwrap();
    api.delete(CLAIM);
    assert_eq!(kv0.write_claim(claimed_by(0), &read.version).await, Ok(false));
    assert_eq!(kv0.claim().await, Ok(None));
    // Kubernetes would let an empty version match any.
    api.put(CLAIM, json!({ "metadata": { "name": "kv-cluster" } }));
    assert_eq!(kv0.write_claim(claimed_by(0), "").await, Ok(false));
    // Without its set, nobody knows whether a claim is the first one.
    api.delete(SET);
    assert!(matches!(kv0.claim().await, Err(OrchestratorError::Refused(_))));
}

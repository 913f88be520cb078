//! Lease and Service follow the leader.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;

use super::{
    super::{kubernetes::Kubernetes, mirror::Mirror},
    LEASE, PACE, SERVICE,
    api::Api,
    api::Mode,
    manifests, member, member_at_pace,
};
use crate::{
    membership::LeaderNews,
    types::{ClusterId, Ordinal, Term},
};

const CLUSTER: ClusterId = ClusterId(0xc1);

/// A member that mirrors, and what it is told of who leads.
struct Pod {
    kubernetes: Kubernetes,
    ordinal: u32,
    news: watch::Sender<LeaderNews>,
    mirror: Mirror,
}

fn news(me: u32, term: u64, leader: Option<u32>) -> LeaderNews {
    let (term, is_me) = (Term(term), leader == Some(me));
    LeaderNews { cluster: CLUSTER, term, leader: leader.map(Ordinal), is_me }
}

impl Pod {
    fn start(api: &Api, ordinal: u32) -> Pod {
        Pod::of(member(api, &format!("kv-{ordinal}")), ordinal)
    }

    fn of(kubernetes: Kubernetes, ordinal: u32) -> Pod {
        let sender = watch::Sender::new(news(ordinal, 1, None));
        let mirror = kubernetes.mirror(&sender.subscribe());
        Pod { kubernetes, ordinal, news: sender, mirror }
    }

    fn learns(&self, term: u64, leader: Option<u32>) {
        self.news.send_replace(news(self.ordinal, term, leader));
    }

    async fn stop(self) {
        self.mirror.stop().await;
        self.kubernetes.close().await;
    }
}

fn holder(api: &Api) -> Value {
    api.object(LEASE)["spec"]["holderIdentity"].clone()
}

fn selected(api: &Api) -> Value {
    api.object(SERVICE)["spec"]["selector"].clone()
}

fn of_pod(ordinal: u32) -> Value {
    json!({ "statefulset.kubernetes.io/pod-name": format!("kv-{ordinal}") })
}

async fn until_named(api: &Api, ordinal: u32) {
    let pod = json!(format!("kv-{ordinal}"));
    api.until(&format!("the Lease names {pod}"), |api| holder(api) == pod).await;
    api.until("the Service selects it", |api| selected(api) == of_pod(ordinal)).await;
}

/// What an object named, one after the other.
fn story(api: &Api, path: &str) -> Vec<(u64, String)> {
    let mut story: Vec<_> = api.history(path).iter().filter_map(named).collect();
    story.dedup();
    story
}

fn named(object: &Value) -> Option<(u64, String)> {
    let annotations = &object["metadata"]["annotations"];
    let term = annotations["ordinal.dev/term"].as_str()?.parse().unwrap();
    Some((term, annotations["ordinal.dev/leader"].as_str().unwrap().into()))
}

#[tokio::test]
async fn lease_and_service_name_the_leader_and_follow_it() {
    let api = manifests().await;
    let pods = [Pod::start(&api, 0), Pod::start(&api, 1)];
    for (term, leader) in [(5, 0), (6, 1), (7, 0)] {
        pods.iter().for_each(|pod| pod.learns(term, Some(leader)));
        until_named(&api, leader).await;
    }
    let expected = [(5, 0), (6, 1), (7, 0)].map(|(term, pod)| (term, format!("kv-{pod}")));
    assert_eq!(story(&api, LEASE), expected);
    assert_eq!(story(&api, SERVICE), expected);
    let lease = api.object(LEASE);
    assert_eq!(lease["metadata"]["annotations"]["ordinal.dev/cluster"], "c1");
    assert_eq!(lease["spec"]["leaseTransitions"], 2);
    assert_eq!(lease["spec"]["leaseDurationSeconds"], 15);
    // The rest of an object is not ours.
    assert_eq!(api.object(SERVICE)["spec"]["ports"], json!([{ "port": 2379 }]));
    for pod in pods {
        pod.stop().await;
    }
}

#[tokio::test]
async fn the_lease_is_renewed_and_stays_acquired() {
    let api = manifests().await;
    let kv0 = Pod::start(&api, 0);
    kv0.learns(5, Some(0));
    until_named(&api, 0).await;
    let first = api.object(LEASE)["spec"].clone();
    let renewed = |api: &Api| api.object(LEASE)["spec"]["renewTime"] != first["renewTime"];
    api.until("renewed", renewed).await;
    let later = api.object(LEASE)["spec"].clone();
    assert_eq!(later["acquireTime"], first["acquireTime"]);
    assert_eq!(later["leaseTransitions"], 0);
    assert!(later["renewTime"].as_str() > first["renewTime"].as_str());
    kv0.stop().await;
}

#[tokio::test]
async fn the_lease_is_released_by_whoever_stops_or_stops_leading() {
    let api = manifests().await;
    let (kv0, kv1) = (Pod::start(&api, 0), Pod::start(&api, 1));
    kv0.learns(5, Some(0));
    until_named(&api, 0).await;
    // Nobody leads any more.
    kv0.learns(6, None);
    api.until("released", |api| holder(api).is_null()).await;
    assert_eq!(selected(&api), of_pod(0), "any pod is better than none");
    kv1.learns(7, Some(1));
    until_named(&api, 1).await;
    // Somebody else's is not for the taking.
    kv0.stop().await;
    assert_eq!(holder(&api), "kv-1");
    kv1.stop().await;
    assert_eq!(holder(&api), Value::Null);
    assert_eq!(story(&api, LEASE), [(5, "kv-0".into()), (7, "kv-1".into())]);
}

/// Its process ended without a word, and came back as a follower.
#[tokio::test]
async fn a_name_from_before_a_crash_is_taken_back() {
    let api = manifests().await;
    let before = Pod::start(&api, 0);
    before.learns(5, Some(0));
    until_named(&api, 0).await;
    drop(before);
    let after = Pod::start(&api, 0);
    after.learns(6, None);
    api.until("released", |api| holder(api).is_null()).await;
    after.stop().await;
}

#[tokio::test]
async fn a_deposed_leaders_late_write_changes_nothing() {
    let api = manifests().await;
    let patient = super::Pace { call_limit: Duration::from_secs(10), ..PACE };
    let kv0 = Pod::of(member_at_pace(&api, "kv-0", patient), 0);
    let kv1 = Pod::start(&api, 1);
    let held = api.hold(r#""holderIdentity":"kv-0""#);
    kv0.learns(5, Some(0));
    held.arrived().await;
    kv1.learns(6, Some(1));
    until_named(&api, 1).await;
    held.release();
    // kv-0 has not heard of term 6 and goes on trying, for several renewals.
    let tries = |api: &Api| {
        let get = format!("GET {LEASE}");
        api.requests().iter().filter(|request| **request == get).count()
    };
    let so_far = tries(&api);
    api.until("they go on", |api| tries(api) > so_far + 10).await;
    assert_eq!(holder(&api), "kv-1");
    assert_eq!(story(&api, LEASE), [(6, "kv-1".into())]);
    assert_eq!(selected(&api), of_pod(1));
    // Nor does it take away, stopping, what is not its own.
    kv0.stop().await;
    assert_eq!(holder(&api), "kv-1");
    kv1.stop().await;
}

#[tokio::test]
async fn what_others_change_is_set_right_at_the_next_renewal() {
    let api = manifests().await;
    let kv0 = Pod::start(&api, 0);
    kv0.learns(5, Some(0));
    until_named(&api, 0).await;
    api.edit(SERVICE, &json!({ "spec": { "selector": { "app": "kv" } } }));
    api.until("repaired", |api| selected(api) == of_pod(0)).await;
    api.edit(SERVICE, &json!({ "spec": { "selector": null } }));
    api.until("repaired", |api| selected(api) == of_pod(0)).await;
    api.edit(LEASE, &json!({ "spec": null, "metadata": { "annotations": null } }));
    until_named(&api, 0).await;
    kv0.stop().await;
}

#[tokio::test]
async fn the_mirror_catches_up_when_the_api_server_is_back() {
    let api = manifests().await;
    let pods = [Pod::start(&api, 0), Pod::start(&api, 1)];
    pods.iter().for_each(|pod| pod.learns(5, Some(0)));
    until_named(&api, 0).await;
    api.go_away().await;
    pods.iter().for_each(|pod| pod.learns(6, Some(1)));
    api.come_back().await;
    until_named(&api, 1).await;
    for (term, mode) in [
        (7, Mode::Hangs),
        (8, Mode::Breaks),
        (9, Mode::Refuses(500, "InternalError")),
        (10, Mode::Refuses(403, "Forbidden")),
    ] {
        let leader = (term % 2) as u32;
        let so_far = api.requests().len();
        api.set_mode(mode);
        pods.iter().for_each(|pod| pod.learns(term, Some(leader)));
        api.until("somebody tries", |api| api.requests().len() > so_far + 2).await;
        api.set_mode(Mode::Serves);
        until_named(&api, leader).await;
    }
    for path in [LEASE, SERVICE] {
        assert!(story(&api, path).is_sorted_by(|a, b| a.0 < b.0), "{:?}", story(&api, path));
    }
    for pod in pods {
        pod.stop().await;
    }
}

#[tokio::test]
async fn an_object_that_is_missing_does_not_hold_up_the_other() {
    let api = manifests().await;
    api.delete(LEASE);
    let kv0 = Pod::start(&api, 0);
    kv0.learns(5, Some(0));
    api.until("the Service follows", |api| selected(api) == of_pod(0)).await;
    // It appears, and is used.
    api.put(LEASE, json!({ "metadata": { "name": "kv-leader" } }));
    until_named(&api, 0).await;
    kv0.stop().await;
}

#[tokio::test]
async fn stopping_ends_in_time_when_kubernetes_hangs() {
    let api = manifests().await;
    let kv0 = Pod::start(&api, 0);
    kv0.learns(5, Some(0));
    until_named(&api, 0).await;
    api.set_mode(Mode::Hangs);
    let began = tokio::time::Instant::now();
    kv0.stop().await;
    assert!(began.elapsed() < Duration::from_secs(4));
}

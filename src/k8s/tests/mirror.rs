//! Lease and Service follow the leader.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;

use super::{
    super::{kubernetes::Kubernetes, mirror::Mirror},
    LEASE, SERVICE, TIMING,
    api::Api,
    api::Mode,
    manifests, member, member_with_timing,
};
use crate::{
    membership::LeaderUpdate,
    types::{ClusterId, Ordinal, Term},
};

const CLUSTER: ClusterId = ClusterId(0xc1);

/// A member with a mirror, and the sender of its leader updates.
struct Pod {
    kubernetes: Kubernetes,
    ordinal: u32,
    leader: watch::Sender<LeaderUpdate>,
    mirror: Mirror,
}

fn update(me: u32, term: u64, leader: Option<u32>) -> LeaderUpdate {
    let (term, is_me) = (Term(term), leader == Some(me));
    LeaderUpdate { cluster: CLUSTER, term, leader: leader.map(Ordinal), is_me }
}

impl Pod {
    fn start(api: &Api, ordinal: u32) -> Pod {
        Pod::of(member(api, &format!("kv-{ordinal}")), ordinal)
    }

    fn of(kubernetes: Kubernetes, ordinal: u32) -> Pod {
        let sender = watch::Sender::new(update(ordinal, 1, None));
        let mirror = kubernetes.mirror(&sender.subscribe());
        Pod { kubernetes, ordinal, leader: sender, mirror }
    }

    fn learns(&self, term: u64, leader: Option<u32>) {
        self.leader.send_replace(update(self.ordinal, term, leader));
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

/// The leaders that an object has named, in order.
fn leaders_of(api: &Api, path: &str) -> Vec<(u64, String)> {
    let mut leaders: Vec<_> = api.history(path).iter().filter_map(named).collect();
    leaders.dedup();
    leaders
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
    assert_eq!(leaders_of(&api, LEASE), expected);
    assert_eq!(leaders_of(&api, SERVICE), expected);
    let lease = api.object(LEASE);
    assert_eq!(lease["metadata"]["annotations"]["ordinal.dev/cluster"], "c1");
    assert_eq!(lease["spec"]["leaseTransitions"], 2);
    assert_eq!(lease["spec"]["leaseDurationSeconds"], 15);
    // Other fields are preserved.
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
async fn a_member_that_stops_or_stops_leading_releases_the_lease() {
    let api = manifests().await;
    let (kv0, kv1) = (Pod::start(&api, 0), Pod::start(&api, 1));
    kv0.learns(5, Some(0));
    until_named(&api, 0).await;
    // No member leads any more.
    kv0.learns(6, None);
    api.until("released", |api| holder(api).is_null()).await;
    assert_eq!(selected(&api), of_pod(0), "any pod is better than none");
    kv1.learns(7, Some(1));
    until_named(&api, 1).await;
    // A Lease of another holder is not released.
    kv0.stop().await;
    assert_eq!(holder(&api), "kv-1");
    kv1.stop().await;
    assert_eq!(holder(&api), Value::Null);
    assert_eq!(leaders_of(&api, LEASE), [(5, "kv-0".into()), (7, "kv-1".into())]);
}

/// The term continues, and the leader may become active again in it.
#[tokio::test]
async fn a_leader_without_a_quorum_releases_the_lease_until_it_has_one_again() {
    let api = manifests().await;
    let kv0 = Pod::start(&api, 0);
    for _ in 0..2 {
        kv0.learns(5, Some(0));
        until_named(&api, 0).await;
        kv0.learns(5, None);
        api.until("released", |api| holder(api).is_null()).await;
        assert_eq!(selected(&api), of_pod(0), "no other member leads");
    }
    kv0.learns(5, Some(0));
    until_named(&api, 0).await;
    let lease = api.object(LEASE);
    assert_eq!(lease["spec"]["leaseTransitions"], 0, "no other member has led");
    kv0.stop().await;
}

/// The process crashed while it led, and returned as a follower.
#[tokio::test]
async fn a_lease_from_before_a_crash_is_released() {
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
    let patient = super::KubernetesTiming { call_limit: Duration::from_secs(10), ..TIMING };
    let kv0 = Pod::of(member_with_timing(&api, "kv-0", patient), 0);
    let kv1 = Pod::start(&api, 1);
    let held = api.hold(r#""holderIdentity":"kv-0""#);
    kv0.learns(5, Some(0));
    held.arrived().await;
    kv1.learns(6, Some(1));
    until_named(&api, 1).await;
    held.release();
    // kv-0 does not know term 6 and keeps trying, for several renewals.
    let tries = |api: &Api| {
        let get = format!("GET {LEASE}");
        api.requests().iter().filter(|request| **request == get).count()
    };
    let so_far = tries(&api);
    api.until("they go on", |api| tries(api) > so_far + 10).await;
    assert_eq!(holder(&api), "kv-1");
    assert_eq!(leaders_of(&api, LEASE), [(6, "kv-1".into())]);
    assert_eq!(selected(&api), of_pod(1));
    // Stopping, it does not release another holder's Lease either.
    kv0.stop().await;
    assert_eq!(holder(&api), "kv-1");
    kv1.stop().await;
}

#[tokio::test]
async fn the_next_renewal_repairs_changes_of_others() {
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
        api.until("a member tries", |api| api.requests().len() > so_far + 2).await;
        api.set_mode(Mode::Serves);
        until_named(&api, leader).await;
    }
    for path in [LEASE, SERVICE] {
        assert!(
            leaders_of(&api, path).is_sorted_by(|a, b| a.0 < b.0),
            "{:?}",
            leaders_of(&api, path)
        );
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
    // The Lease is created, and used.
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

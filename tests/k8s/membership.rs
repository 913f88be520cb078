//! The number of replicas changes, or the identity of pods.

use tokio::time::{Duration, sleep};

use crate::k8s::{
    kubectl::within,
    scenarios::ScenarioContext,
    store::{Deletion, Pod, Store},
};

/// Scales, and waits until pods and membership match.
async fn scale(s: &ScenarioContext, replicas: u32) {
    s.store.scale(replicas).await;
    s.store.ready(replicas).await;
    let voters = voters(replicas);
    s.store.membership(voters, replicas as usize - voters).await;
    s.load.progress(100).await;
}

/// The largest odd number up to the replicas, at most five.
fn voters(replicas: u32) -> usize {
    let most = replicas.min(5) as usize;
    if most.is_multiple_of(2) { most.saturating_sub(1) } else { most }
}

pub async fn scale_3_5_3(s: &ScenarioContext) {
    for replicas in [5, 3] {
        scale(s, replicas).await;
    }
}

pub async fn scale_1_3_5_3_1(s: &ScenarioContext) {
    for replicas in [3, 5, 3, 1] {
        scale(s, replicas).await;
    }
}

/// A pause: members keep their identity. A cluster of three that is scaled to one reports that it
/// needs two.
pub async fn scale_3_0_3(s: &ScenarioContext) {
    let before = s.store.ids().await;
    s.store.scale(0).await;
    s.store.ready(0).await;
    s.store.scale(1).await;
    s.store.has_event("kv-0", "scale to at least 2").await;
    s.store.scale(3).await;
    s.store.ready(3).await;
    s.store.membership(3, 0).await;
    assert_eq!(s.store.ids().await, before, "the same members are there again");
}

/// A pause under OrderedReady: kv-0 starts alone, and the next pod is made once it is ready. It must
/// not wait for the majority that only the next pods can give.
pub async fn scale_3_0_3_ordered(s: &ScenarioContext) {
    let before = s.store.ids().await;
    s.store.scale(0).await;
    s.store.ready(0).await;
    s.store.scale(3).await;
    s.store.ready(3).await;
    s.store.membership(3, 0).await;
    assert_eq!(s.store.ids().await, before, "the same members are there again");
}

/// The same, and the volume of the first pod is lost meanwhile: the pod is no member, and joins once
/// the next ones are there.
pub async fn wake_without_first_volume(s: &ScenarioContext) {
    const WAKE_LIMIT: Duration = Duration::from_secs(300);
    let before = s.store.ids().await;
    s.store.scale(0).await;
    s.store.ready(0).await;
    s.store.kubectl.run(&["delete", "persistentvolumeclaim", "data-kv-0"]).await;
    s.store.scale(3).await;
    let woken = within(WAKE_LIMIT, async || {
        let pods = s.store.pods().await;
        let ready = pods.iter().filter(|pod| pod.ready).count();
        if ready == 3 { Ok(()) } else { Err(format!("not 3 are ready: {pods:#?}")) }
    });
    woken.await.unwrap_or_else(|pods| panic!("after {WAKE_LIMIT:?}: {pods}"));
    s.store.membership(3, 0).await;
    assert_ne!(before["kv-0"], s.store.ids().await["kv-0"], "kv-0 has lost its volume");
}

pub async fn scale_5_20_5(s: &ScenarioContext) {
    for replicas in [20, 5] {
        scale(s, replicas).await;
    }
}

/// All pods move to other ordinals, each time next to the present ones: the data moves with them.
pub async fn move_ordinals(s: &ScenarioContext) {
    for start in [10, 20, 0] {
        let patch = format!("{{\"spec\":{{\"ordinals\":{{\"start\":{start}}}}}}}");
        s.store.kubectl.run(&["patch", "statefulset/kv", "--patch", &patch]).await;
        s.store.ready_at(start..start + 3).await;
        s.store.membership(3, 0).await;
        s.load.progress(100).await;
    }
}

/// A member that left returns under a new id, whatever its old volume says.
pub async fn old_volumes_return(s: &ScenarioContext) {
    let before = s.store.ids().await;
    for replicas in [3, 5] {
        scale(s, replicas).await;
    }
    let after = s.store.ids().await;
    for pod in ["kv-3", "kv-4"] {
        assert_ne!(before[pod], after[pod], "{pod} came back as the member that had left");
    }
}

/// Two of five members are down while the set is scaled to three.
pub async fn shrink_past_dead(s: &ScenarioContext) {
    let pods = s.store.ready(5).await;
    for dead in &pods[..2] {
        s.store.hold(dead).await;
    }
    s.load.progress(200).await;
    s.store.scale(3).await;
    s.load.progress(200).await;
    for dead in &pods[..2] {
        s.store.release(&dead.name).await;
    }
    s.store.ready(3).await;
    s.store.membership(3, 0).await;
}

/// The scale-down is reverted while the leaving members still wait for permission to stop.
pub async fn scale_down_reverted(s: &ScenarioContext) {
    s.store.scale(3).await;
    sleep(Duration::from_millis(300)).await;
    scale(s, 5).await;
}

/// The scale-down is reverted later and later while the leaving members shut down.
pub async fn scale_down_reverted_late(s: &ScenarioContext) {
    for after in [700, 1200, 1600, 2000, 3000] {
        s.store.scale(1).await;
        sleep(Duration::from_millis(after)).await;
        scale(s, 3).await;
    }
}

/// The StatefulSet is deleted and applied again; its volumes stay.
pub async fn recreate(s: &ScenarioContext, cascade: &str) {
    let (before, pods) = (s.store.ids().await, s.store.pods().await);
    let cascade = format!("--cascade={cascade}");
    s.store.kubectl.run(&["delete", "statefulset", "kv", &cascade]).await;
    s.store.apply().await;
    let now = s.store.ready(3).await;
    s.store.membership(3, 0).await;
    assert_eq!(s.store.ids().await, before, "the same members are there again");
    let same = now.iter().zip(&pods).all(|(now, then)| now.uid == then.uid);
    assert_eq!(same, cascade.ends_with("orphan"), "only pods that were left alone stay");
}

/// Another pod claims to be kv-1, with an empty disk.
pub async fn two_of_one_ordinal(s: &ScenarioContext) {
    let (before, pods) = (s.store.ids().await, s.store.ready(3).await);
    let impostor = impostor(&s.store, &pods[1]).await;
    s.store.kubectl.feed(&["apply", "--filename=-"], &impostor).await;
    s.store.kubectl.run(&["wait", "--for=condition=Initialized", "pod/impostor"]).await;
    for _ in 0..5 {
        sleep(Duration::from_secs(2)).await;
        s.load.progress(100).await;
        assert_eq!(s.store.ids().await, before, "the impostor has changed the membership");
        let impostor = s.store.kubectl.get(&["pod", "impostor"]).await;
        let conditions = impostor["status"]["conditions"].as_array().expect("it has been seen");
        let ready = conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True");
        assert!(!ready, "the impostor is ready");
    }
    s.store.delete(&["impostor"], Deletion::Force).await;
    assert_eq!(s.store.ready(3).await, pods, "the members did not notice it");
}

/// A copy of the pod without its labels, so that no Service selects it, and without its volume.
async fn impostor(store: &Store, pod: &Pod) -> String {
    let mut copy = store.kubectl.get(&["pod", &pod.name]).await;
    copy["metadata"] = serde_json::json!({"name": "impostor"});
    let spec = copy["spec"].as_object_mut().expect("a pod has a spec");
    for key in ["nodeName", "subdomain", "serviceAccount"] {
        spec.remove(key);
    }
    let volumes = spec["volumes"].as_array_mut().expect("a member has volumes");
    volumes.retain(|volume| volume["name"] == "data");
    volumes[0] = serde_json::json!({"name": "data", "emptyDir": {}});
    let mounts = spec["containers"][0]["volumeMounts"].as_array_mut().expect("and mounts them");
    mounts.retain(|mount| mount["name"] == "data");
    copy.as_object_mut().expect("a pod is an object").remove("status");
    copy.to_string()
}

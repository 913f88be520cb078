//! Pods end: with all other objects, with a second signal, with less time than they were promised.

use tokio::time::{Duration, sleep};

use crate::k8s::{
    kubectl::eventually,
    scenarios::ScenarioContext,
    store::{Deletion, Pod},
};

/// From `kubectl delete -k` until no pod is left.
const DELETION_LIMIT: Duration = Duration::from_secs(10);
/// A grace period that is shorter than that of the manifest: a spot instance, or an impatient person.
const SHORT_GRACE: &str = "--grace-period=5";

/// `kubectl delete -k` deletes the Role of the pods first, so that they can neither read their
/// StatefulSet nor wait for each other. The same members return.
pub async fn delete_everything(s: &ScenarioContext) {
    let (cluster, members) = (s.store.cluster().await, s.store.ids().await);
    let lasted = s.store.delete_objects().await;
    println!("  no pod is left after {lasted:.1?}");
    assert!(lasted <= DELETION_LIMIT, "the pods are gone after {lasted:.1?}");
    s.store.apply().await;
    s.store.ready(3).await;
    assert_eq!(s.store.cluster().await, cluster, "another cluster has been founded");
    assert_eq!(s.store.ids().await, members, "the same members are there again");
    s.store.membership(3, 0).await;
}

/// Some supervisors repeat the signal. It must not shorten the hand-over of the leader.
pub async fn second_signal(s: &ScenarioContext) {
    let leader = s.store.leader().await;
    s.store.delete(&[&leader.name], Deletion::Graceful).await;
    for _ in 0..5 {
        s.host().signal_if_alive(&leader, "TERM").await;
        sleep(Duration::from_millis(50)).await;
    }
    s.store.replaced(&leader).await;
    s.store.ready(3).await;
}

/// Another member is down, so the leader may not stop: it serves until its own deadline, then ends
/// by itself, before it is killed.
pub async fn short_grace(s: &ScenarioContext) {
    let (leader, follower) = (s.store.leader().await, s.store.follower().await);
    s.store.hold(&follower).await;
    s.store.keep_object(&leader).await;
    s.store.kubectl.run(&["delete", "pod", &leader.name, "--wait=false", SHORT_GRACE]).await;
    let code = eventually(async || exit_code(s, &leader).await).await;
    for pod in [&leader, &follower] {
        s.store.release(&pod.name).await;
    }
    assert_eq!(code, 0, "{} was killed", leader.name);
    s.store.replaced(&leader).await;
    s.store.ready(3).await;
}

async fn exit_code(s: &ScenarioContext, pod: &Pod) -> Result<i64, String> {
    let now = s.store.kubectl.get(&["pod", &pod.name]).await;
    let state = &now["status"]["containerStatuses"][0]["state"];
    state["terminated"]["exitCode"].as_i64().ok_or_else(|| format!("{} runs: {state}", pod.name))
}

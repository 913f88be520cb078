//! Pods and volumes fail; the number of replicas stays.

use crate::k8s::{
    kubectl::{eventually, within},
    scenarios::ScenarioContext,
    store::{Deletion, Pod},
};
use tokio::time::Duration;

/// Bootstrap only: the report has the time until all pods were ready.
pub async fn form(s: &ScenarioContext) {
    s.store.membership(3, 0).await;
}

/// Deletes one pod, and waits until its replacement is ready.
async fn end(s: &ScenarioContext, pod: &Pod, how: Deletion) {
    s.store.delete(&[&pod.name], how).await;
    s.store.replaced(pod).await;
    s.store.ready(3).await;
}

async fn end_all(s: &ScenarioContext, pods: &[Pod], how: Deletion) {
    let names: Vec<&str> = pods.iter().map(|pod| pod.name.as_str()).collect();
    s.store.delete(&names, how).await;
    for pod in pods {
        s.store.replaced(pod).await;
    }
    s.store.ready(3).await;
}

pub async fn delete_follower(s: &ScenarioContext) {
    end(s, &s.store.follower().await, Deletion::Graceful).await;
}

pub async fn delete_leader(s: &ScenarioContext) {
    end(s, &s.store.leader().await, Deletion::Graceful).await;
}

pub async fn force_delete_leader(s: &ScenarioContext) {
    end(s, &s.store.leader().await, Deletion::Force).await;
}

pub async fn delete_all(s: &ScenarioContext) {
    end_all(s, &s.store.pods().await, Deletion::Graceful).await;
}

pub async fn force_delete_all(s: &ScenarioContext) {
    end_all(s, &s.store.pods().await, Deletion::Force).await;
}

pub async fn delete_two(s: &ScenarioContext) {
    let pods = [s.store.leader().await, s.store.follower().await];
    end_all(s, &pods, Deletion::Force).await;
}

/// Drains node after node, as the PodDisruptionBudget permits.
pub async fn drain(s: &ScenarioContext) {
    let before = s.store.ready(3).await;
    for pod in &before {
        eventually(async || s.store.evict(&pod.name).await).await;
    }
    for pod in &before {
        s.store.replaced(pod).await;
    }
    s.store.ready(3).await;
}

pub async fn rolling_update(s: &ScenarioContext) {
    let before = s.store.ready(3).await;
    s.store.kubectl.run(&["rollout", "restart", "statefulset/kv"]).await;
    for pod in &before {
        s.store.replaced(pod).await;
    }
    s.store.ready(3).await;
}

/// Pods with a user id and a group of their own for each namespace, as OpenShift chooses them: they
/// read and write the volumes that another user has filled.
pub async fn arbitrary_user(s: &ScenarioContext) {
    let before = s.store.ready(3).await;
    let ids = r#"{"runAsUser": 1000680000, "runAsGroup": 0, "fsGroup": 1000680000}"#;
    let patch = format!("{{\"spec\":{{\"template\":{{\"spec\":{{\"securityContext\":{ids}}}}}}}}}");
    s.store.kubectl.run(&["patch", "statefulset/kv", "--patch", &patch]).await;
    for pod in &before {
        s.store.replaced(pod).await;
    }
    s.store.ready(3).await;
}

/// The last pod gets an image that does not exist; the others stay.
pub async fn bad_image(s: &ScenarioContext) {
    let before = s.store.ready(3).await;
    s.store.kubectl.run(&["set", "image", "statefulset/kv", "kvd=ordinal:missing"]).await;
    s.store
        .until(|pods| match pods.get(2) {
            Some(pod) if pod.uid != before[2].uid && !pod.ready => Ok(()),
            pod => Err(format!("kv-2 has still the old image: {pod:?}")),
        })
        .await;
    s.load.progress(200).await;
    s.store.kubectl.run(&["rollout", "undo", "statefulset/kv"]).await;
    // Whether Kubernetes removes the pod that cannot start depends on its version
    // (kubernetes#67250, #137409): its manual says to delete it.
    let broken = s.store.pod("kv-2").await.expect("it waits for its image");
    s.store.delete(&["kv-2"], Deletion::Graceful).await;
    s.store.replaced(&broken).await;
    let after = s.store.ready(3).await;
    assert_eq!(after[..2], before[..2], "only the last pod was to change");
}

/// The PVC is deleted first: it goes with its pod, and the next pod gets a new one.
pub async fn lose_volume(s: &ScenarioContext, ordinal: usize) {
    let name = format!("kv-{ordinal}");
    let claim = format!("data-{name}");
    let before = s.store.ids().await;
    let old = s.store.pod(&name).await.expect("it is ready");
    s.store.kubectl.run(&["delete", "persistentvolumeclaim", &claim, "--wait=false"]).await;
    s.store.delete(&[&name], Deletion::Force).await;
    s.store.replaced(&old).await;
    s.store.ready(3).await;
    s.store.membership(3, 0).await;
    let after = s.store.ids().await;
    assert_ne!(before[&name], after[&name], "an empty disk came back as the member it was");
}

/// A member returns with the contents of its volume from this many starts ago. It has acknowledged
/// entries since, so it must not return as the same member.
pub async fn roll_volume_back(s: &ScenarioContext, starts: usize) {
    let (name, before) = ("kv-1", s.store.ids().await);
    let mut pod = s.store.pod(name).await.expect("it is ready");
    let volume = s.host().volume(&s.store.kubectl, name).await;
    let copy = volume.with_extension("older");
    s.store.hold(&pod).await;
    s.host().copy(&volume, &copy).await;
    for _ in 0..starts {
        s.store.release(name).await;
        pod = s.store.replaced(&pod).await;
        s.load.progress(200).await;
        s.store.hold(&pod).await;
    }
    s.host().restore(&copy, &volume).await;
    s.store.release(name).await;
    let back = within(Duration::from_secs(60), async || match s.store.pod(name).await {
        Some(now) if now.uid != pod.uid && now.ready => Ok(()),
        now => Err(format!("{now:?}")),
    });
    // The member has started over with an empty volume. If it refuses to start instead, an operator
    // reads the reason and deletes its volume.
    if back.await.is_err() {
        lose_volume(s, 1).await;
    }
    s.store.ready(3).await;
    let after = s.store.ids().await;
    assert_ne!(before[name], after[name], "a volume that was rolled back was taken for the newest");
}

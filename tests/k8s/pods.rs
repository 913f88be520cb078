//! Pods and volumes come to harm; nobody changes how many there are.

use crate::{
    kubectl::{eventually, within},
    scenarios::Stage,
    store::{End, Pod},
};
use tokio::time::Duration;

/// Forming alone: the clock of the report is the time until they were ready.
pub(crate) async fn form(s: &Stage) {
    s.store.membership(3, 0).await;
}

/// Ends one pod, and waits until another is ready in its place.
async fn end(s: &Stage, pod: &Pod, how: End) {
    s.store.delete(&[&pod.name], how).await;
    s.store.replaced(pod).await;
    s.store.ready(3).await;
}

async fn end_all(s: &Stage, pods: &[Pod], how: End) {
    let names: Vec<&str> = pods.iter().map(|pod| pod.name.as_str()).collect();
    s.store.delete(&names, how).await;
    for pod in pods {
        s.store.replaced(pod).await;
    }
    s.store.ready(3).await;
}

pub(crate) async fn delete_follower(s: &Stage) {
    end(s, &s.store.follower().await, End::Graceful).await;
}

pub(crate) async fn delete_leader(s: &Stage) {
    end(s, &s.store.leader().await, End::Graceful).await;
}

pub(crate) async fn force_delete_leader(s: &Stage) {
    end(s, &s.store.leader().await, End::Force).await;
}

pub(crate) async fn delete_all(s: &Stage) {
    end_all(s, &s.store.pods().await, End::Graceful).await;
}

pub(crate) async fn force_delete_all(s: &Stage) {
    end_all(s, &s.store.pods().await, End::Force).await;
}

pub(crate) async fn delete_two(s: &Stage) {
    let pods = [s.store.leader().await, s.store.follower().await];
    end_all(s, &pods, End::Force).await;
}

/// Node after node is emptied, as far as the PodDisruptionBudget lets it.
pub(crate) async fn drain(s: &Stage) {
    let before = s.store.ready(3).await;
    for pod in &before {
        eventually(async || s.store.evict(&pod.name).await).await;
    }
    for pod in &before {
        s.store.replaced(pod).await;
    }
    s.store.ready(3).await;
}

pub(crate) async fn rolling_update(s: &Stage) {
    let before = s.store.ready(3).await;
    s.store.kubectl.run(&["rollout", "restart", "statefulset/kv"]).await;
    for pod in &before {
        s.store.replaced(pod).await;
    }
    s.store.ready(3).await;
}

/// The last pod gets an image that does not exist; the others stay as they are.
pub(crate) async fn bad_image(s: &Stage) {
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
    s.store.delete(&["kv-2"], End::Graceful).await;
    s.store.replaced(&broken).await;
    let after = s.store.ready(3).await;
    assert_eq!(after[..2], before[..2], "only the last pod was to change");
}

/// The claim first: it goes when its pod does, and the next pod gets another.
pub(crate) async fn lose_volume(s: &Stage, ordinal: usize) {
    let name = format!("kv-{ordinal}");
    let claim = format!("data-{name}");
    let before = s.store.ids().await;
    let old = s.store.pod(&name).await.expect("it is ready");
    s.store.kubectl.run(&["delete", "persistentvolumeclaim", &claim, "--wait=false"]).await;
    s.store.delete(&[&name], End::Force).await;
    s.store.replaced(&old).await;
    s.store.ready(3).await;
    s.store.membership(3, 0).await;
    let after = s.store.ids().await;
    assert_ne!(before[&name], after[&name], "an empty disk came back as the member it was");
}

/// A member comes back with what its volume held so many starts ago: it has promised more since, so
/// it must not come back as the member it was.
pub(crate) async fn roll_volume_back(s: &Stage, starts: usize) {
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
    // It has made itself an empty member. If it is refused instead, an operator who reads why
    // deletes its volume.
    if back.await.is_err() {
        lose_volume(s, 1).await;
    }
    s.store.ready(3).await;
    let after = s.store.ids().await;
    assert_ne!(before[name], after[name], "a volume that was rolled back was taken for the newest");
}

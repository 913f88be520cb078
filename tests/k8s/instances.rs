//! Two instances of the manifests in one namespace: each has its own members and data. One of them may
//! have every component.

use crate::k8s::{
    check::assert_history_holds,
    kubectl::rendered,
    manifests::install_monitoring_kinds,
    scenarios::ScenarioContext,
    store::{Installation, Store},
    workload::Workload,
};

/// The second instance is applied beside the first, both are scaled, and the second one is deleted
/// and applied again.
pub async fn two_instances(s: &ScenarioContext) {
    let first = s.store.cluster().await;
    let manifests = rendered("tests/k8s/manifests-second").await;
    let (kubectl, three) = (s.store.kubectl.clone(), s.store.installation());
    let store = Store::install_instance(kubectl, "second-kv", three, manifests).await;
    store.ready(3).await;
    let second = store.cluster().await;
    assert_ne!(first, second, "the second instance has joined the first");
    let load = Workload::start(&store).await;

    store.scale(1).await;
    s.store.scale(5).await;
    for (instance, replicas) in [(&store, 1), (&s.store, 5)] {
        instance.ready(replicas).await;
        instance.membership(replicas as usize, 0).await;
    }
    s.load.progress(100).await;
    load.progress(100).await;
    store.delete_objects().await;
    s.load.progress(100).await;
    store.apply_as(Installation { replicas: 3, ..three }).await;
    s.store.scale(3).await;
    for instance in [&s.store, &store] {
        instance.ready(3).await;
        instance.membership(3, 0).await;
    }
    load.progress(100).await;
    let seen = load.stop(&store).await;
    assert_history_holds(&store, &seen).await;
    assert_eq!((s.store.cluster().await, store.cluster().await), (first, second));
}

/// The ids that OpenShift's admission adds to a pod that leaves them open.
const ADMITTED: &str = "runAsUser: 1000680000\n        fsGroup: 1000680000\n        ";

/// An instance with all components at once is applied, scaled, deleted and applied again.
pub async fn all_components(s: &ScenarioContext) {
    let kubectl = s.store.kubectl.clone();
    install_monitoring_kinds(&kubectl).await;
    kubectl.run(&["label", "nodes", "--all", "--overwrite", "topology.kubernetes.io/zone=a"]).await;
    let open = "fsGroupChangePolicy: OnRootMismatch";
    let manifests = rendered("tests/k8s/manifests-all").await;
    assert!(manifests.contains(open), "no {open}: {manifests}");
    let manifests = manifests.replace(open, &format!("{ADMITTED}{open}"));
    let five = Installation { replicas: 5, start: 0, policy: "OrderedReady" };
    let store = Store::install_instance(kubectl, "all-kv", five, manifests).await;
    store.ready(5).await;
    store.membership(5, 0).await;
    let (cluster, members) = (store.cluster().await, store.ids().await);
    let load = Workload::start(&store).await;
    for replicas in [7, 5] {
        store.scale(replicas).await;
        store.ready(replicas).await;
        store.membership(5, replicas as usize - 5).await;
        load.progress(100).await;
    }
    store.delete_objects().await;
    store.apply().await;
    store.ready(5).await;
    store.membership(5, 0).await;
    load.progress(100).await;
    assert_eq!((store.cluster().await, store.ids().await), (cluster, members));
    let seen = load.stop(&store).await;
    assert_history_holds(&store, &seen).await;
}

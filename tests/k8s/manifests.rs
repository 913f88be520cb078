//! The API server accepts the manifests in `k8s/`, and applying them again reverts nothing.

use serde_json::{Value, json};

use crate::k8s::kubectl::{Kubectl, rendered};

/// The last one combines all components, under other names.
const DIRECTORIES: [&str; 4] =
    ["k8s/base", "k8s/overlays/dev", "k8s/overlays/production", "tests/k8s/manifests-all"];

pub async fn check() {
    let kubectl = Kubectl { namespace: format!("ordinal-manifests-{}", std::process::id()) };
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {
        "name": kubectl.namespace,
        "labels": {
            "pod-security.kubernetes.io/enforce": "restricted",
            "pod-security.kubernetes.io/warn": "restricted",
        }
    }});
    kubectl.feed(&["apply", "--filename=-"], &namespace.to_string()).await;
    install_monitoring_kinds(&kubectl).await;
    for directory in DIRECTORIES {
        accepted(&kubectl, directory).await;
    }
    applying_again_takes_nothing_back(&kubectl).await;
    kubectl.run(&["delete", "namespace", &kubectl.namespace, "--wait=false"]).await;
}

/// The kinds of the Prometheus operator.
pub async fn install_monitoring_kinds(kubectl: &Kubectl) {
    let kinds = file("tests/k8s/manifests/monitoring-kinds.yaml");
    let (stdout, _) = kubectl.feed(&["apply", "--output=name", "--filename=-"], &kinds).await;
    for kind in stdout.lines() {
        kubectl.run(&["wait", "--for=condition=Established", kind]).await;
    }
}

fn file(path: &str) -> String {
    std::fs::read_to_string(path).unwrap()
}

/// No warning: neither of deprecated fields nor of Pod Security.
async fn accepted(kubectl: &Kubectl, directory: &str) {
    let manifests = rendered(directory).await;
    let args = ["apply", "--server-side", "--dry-run=server", "--validate=strict", "--filename=-"];
    let (stderr, complaint) = kubectl.feed(&args, &manifests).await;
    assert!(complaint.is_empty(), "{directory}: {complaint}");
    let objects = manifests.matches("\nkind: ").count();
    assert_eq!(stderr.lines().count(), objects, "{directory}: {stderr}");
    println!("{directory}: {objects} objects accepted");
}

/// Fields that kvd writes at run time, and that a later `kubectl apply` must not touch.
async fn applying_again_takes_nothing_back(kubectl: &Kubectl) {
    let manifests = rendered("k8s/base").await.replace("  replicas: 3\n", "  replicas: 0\n");
    kubectl.feed(&["apply", "--filename=-"], &manifests).await;
    let written = [
        ("configmap/kv-cluster", json!({"data": {"uid": "1"}})),
        ("lease/kv-leader", json!({"spec": {"holderIdentity": "kv-0", "leaseTransitions": 1}})),
        (
            "service/kv-leader",
            json!({
                "metadata": {"annotations": {"ordinal/term": "1"}},
                "spec": {"selector": {"statefulset.kubernetes.io/pod-name": "kv-0"}}
            }),
        ),
    ];
    for (object, patch) in &written {
        let patch = format!("--patch={patch}");
        kubectl.run(&["patch", object, "--type=merge", "--field-manager=kvd", &patch]).await;
    }
    for how in [&["apply"][..], &["apply", "--server-side", "--force-conflicts"]] {
        kubectl.feed(&[how, &["--filename=-"]].concat(), &manifests).await;
        for (object, patch) in &written {
            let now = kubectl.get(&[object]).await;
            assert!(contains(&now, patch), "{how:?} takes {patch} from {object}: {now}");
        }
    }
}

fn contains(whole: &Value, part: &Value) -> bool {
    match part {
        Value::Object(fields) => fields.iter().all(|(key, part)| contains(&whole[key], part)),
        part => whole == part,
    }
}

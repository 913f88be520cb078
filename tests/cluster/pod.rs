//! A member in a pod is founded, and terminated. Kubernetes is a small API server in this process.

use std::{
    fs,
    process::{Command, ExitStatus, Output},
    time::Duration,
};

use ordinal::proto::etcdserverpb::RangeRequest;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::support::{
    WAIT_TIMEOUT, http,
    kvd::{self, Kvd},
    ports::Ports,
    retry::with_retry,
};

use api::{Api, Mode};

#[allow(dead_code, reason = "the library's tests use the rest")]
#[path = "../../src/k8s/tests/api.rs"]
mod api;

const SET: &str = "/apis/apps/v1/namespaces/db/statefulsets/kv";
const RECORD: &str = "/api/v1/namespaces/db/configmaps/kv-cluster";
const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/db/leases/kv-leader";
const SERVICE: &str = "/api/v1/namespaces/db/services/kv-leader";
const POD: &str = "/api/v1/namespaces/db/pods/kv-0";
const CLAIMS: &str = "/api/v1/namespaces/db/persistentvolumeclaims";
const SLICE: &str = "/apis/discovery.k8s.io/v1/namespaces/db/endpointslices/kv-client-1";

const SECOND: Duration = Duration::from_secs(1);

/// The only pod of a StatefulSet, which serves clients.
struct Pod {
    api: Api,
    kvd: Kvd,
    _scratch: TempDir,
}

impl Pod {
    async fn start() -> Pod {
        let mut pod = Pod::begin(set(), &[]).await;
        pod.kvd.ready().await;
        pod.has_read_its_set().await;
        pod
    }

    /// Does not wait until it serves clients.
    async fn begin(set: Value, claims: &[Value]) -> Pod {
        let api = Api::start().await;
        api.put(SET, set);
        for claim in claims {
            let name = claim["metadata"]["name"].as_str().unwrap();
            api.put(&format!("{CLAIMS}/{name}"), claim.clone());
        }
        api.put(RECORD, json!({ "metadata": { "name": "kv-cluster" } }));
        api.put(LEASE, json!({ "metadata": { "name": "kv-leader" } }));
        api.put(SERVICE, json!({ "metadata": { "name": "kv-leader" }, "spec": { "ports": [] } }));
        api.put(POD, pod(None));
        let (scratch, ports) = (TempDir::new().unwrap(), Ports::free());
        let kubeconfig = scratch.path().join("kubeconfig");
        fs::write(&kubeconfig, kubeconfig_of(&api)).unwrap();
        let data = scratch.path().join("data");
        let mut command = kvd::command(&["serve", "--ordinal=0", "--statefulset=kv"]);
        command
            .args(["--namespace=db", "--pod-uid=uid-of-kv-0"])
            .args(["--termination-grace-period=120s", "--data-dir", data.to_str().unwrap()])
            .args(["--listen-client-urls", &ports.client.to_string()])
            .args(["--listen-peer-urls", &ports.peer.to_string()])
            .args(["--listen-admin", &ports.admin.to_string()])
            .env("KUBECONFIG", &kubeconfig);
        let log = scratch.path().join("log");
        Pod { api, kvd: Kvd::spawn(&mut command, log, ports), _scratch: scratch }
    }

    /// Orders a founding at the peer port.
    async fn found(&self) -> Output {
        let mut kvctl = Command::new(env!("CARGO_BIN_EXE_kvctl"));
        kvctl.args(["cluster", "found", "--despite-volumes", "--peer-endpoint"]);
        kvctl.arg(self.kvd.ports.peer.to_string());
        tokio::task::spawn_blocking(move || kvctl.output().unwrap()).await.unwrap()
    }

    /// Waits until the member has read its StatefulSet while it serves.
    async fn has_read_its_set(&self) {
        let reads = |api: &Api| {
            let read = format!("GET {SET}");
            api.requests().iter().filter(|request| **request == read).count()
        };
        let before = reads(&self.api);
        self.api.until("the set is read again", |api| reads(api) >= before + 2).await;
    }

    fn publish(&self, conditions: &Value) {
        let target = json!({ "kind": "Pod", "name": "kv-0", "uid": "uid-of-kv-0" });
        let endpoint =
            json!({ "addresses": ["10.0.0.8"], "conditions": conditions, "targetRef": target });
        let slice = json!({
            "metadata": { "name": "kv-client-1" },
            "addressType": "IPv4", "endpoints": [endpoint], "ports": [],
        });
        self.api.put(SLICE, slice);
    }

    fn readiness(&self) -> http::Answer {
        http::get(self.kvd.ports.admin, "/readyz", WAIT_TIMEOUT).unwrap()
    }

    /// The exit status and the time from now until the exit.
    async fn ends(&mut self) -> (ExitStatus, Duration) {
        let began = Instant::now();
        let status = self.kvd.exited(WAIT_TIMEOUT).await;
        (status, began.elapsed())
    }
}

fn set() -> Value {
    json!({
        "metadata": { "name": "kv", "uid": "5e7", "generation": 4 },
        "spec": { "replicas": 1, "serviceName": "kv-peers", "selector": {}, "template": {} },
    })
}

/// The own pod; with a grace period, it is being deleted.
fn pod(deletion_grace_seconds: Option<u32>) -> Value {
    let mut metadata = json!({ "name": "kv-0", "uid": "uid-of-kv-0" });
    if let Some(seconds) = deletion_grace_seconds {
        metadata["deletionTimestamp"] = json!("2026-01-02T00:00:00Z");
        metadata["deletionGracePeriodSeconds"] = json!(seconds);
    }
    let spec = json!({ "terminationGracePeriodSeconds": 120, "containers": [] });
    json!({ "metadata": metadata, "spec": spec })
}

fn kubeconfig_of(api: &Api) -> String {
    let server = api.url().to_string();
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{ "name": "test", "cluster": { "server": server } }],
        "users": [{ "name": "test", "user": {} }],
        "contexts": [{ "name": "test", "context": { "cluster": "test", "user": "test" } }],
    })
    .to_string()
}

/// A pod waits because of the claim of a former one, until a person orders otherwise.
#[test]
fn kvctl_orders_a_founding_despite_the_claims_that_it_prints() {
    with_retry(async || {
        let mut set = set();
        let template = json!({ "metadata": { "name": "data" }, "spec": {} });
        set["spec"]["volumeClaimTemplates"] = json!([template]);
        let old = json!({ "name": "data-kv-1", "creationTimestamp": "2025-12-31T00:00:00Z" });
        let mut pod = Pod::begin(set, &[json!({ "metadata": old, "spec": {} })]).await;
        pod.kvd.logs("data-kv-1 is older than the StatefulSet").await;
        pod.kvd.logs("the StatefulSet has no pod for it").await;
        assert!(pod.api.object(RECORD)["data"]["state"].is_null());
        assert!(!pod.kvd.log().contains("kvctl"), "{}", pod.kvd.log());

        let ordered = pod.found().await;
        let printed = String::from_utf8_lossy(&ordered.stdout);
        assert!(ordered.status.success(), "{ordered:?}");
        assert!(printed.contains("founds a new cluster despite data-kv-1,"), "{printed}");
        pod.kvd.ready().await;
        let orders = pod.api.history(RECORD);
        let ordered = json!("despite data-kv-1");
        assert!(orders.iter().any(|record| record["data"]["found"] == ordered), "{orders:#?}");
        let record = pod.api.object(RECORD);
        assert_eq!(record["data"]["state"], "formed");
        assert!(record["data"]["found"].is_null(), "{record}");

        let refused = pod.found().await;
        let printed = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        assert!(printed.contains("there is nothing to found"), "{printed}");
    });
}

/// The Role is deleted before the StatefulSet, so that its pods cannot read it any more.
#[test]
fn a_pod_whose_manifests_are_deleted_stops_within_seconds() {
    with_retry(async || {
        for refusal in [Mode::Forbids, Mode::Refuses(401, "Unauthorized")] {
            let mut pod = Pod::start().await;
            pod.publish(&json!({ "ready": true }));
            pod.api.set_mode(refusal);
            pod.kvd.signal("TERM");
            let (status, took) = pod.ends().await;
            assert!(status.success(), "{status}\n{}", pod.kvd.log());
            assert!(pod.kvd.log().contains("may no longer be read"), "{}", pod.kvd.log());
            assert!(took < 7 * SECOND, "{took:?}\n{}", pod.kvd.log());
        }
    });
}

#[test]
fn a_pod_that_restarts_outlasts_an_api_server_that_starts() {
    with_retry(async || {
        let mut pod = Pod::start().await;
        pod.publish(&json!({ "terminating": true }));
        pod.api.set_mode(Mode::Refuses(403, "Forbidden"));
        pod.kvd.signal("TERM");
        sleep(SECOND).await;
        pod.api.set_mode(Mode::Serves);
        let (status, _) = pod.ends().await;
        assert!(status.success(), "{status}\n{}", pod.kvd.log());
        assert!(!pod.kvd.log().contains("may no longer be read"), "{}", pod.kvd.log());
    });
}

#[test]
fn a_pod_serves_until_its_endpoint_is_withdrawn() {
    with_retry(async || {
        let mut pod = Pod::start().await;
        pod.publish(&json!({ "ready": true, "serving": true, "terminating": false }));
        pod.kvd.signal("TERM");
        pod.kvd.logs("SIGTERM received").await;
        let began = Instant::now();
        while began.elapsed() < 2 * SECOND {
            let not_ready = pod.readiness();
            // The signal may have been logged a moment earlier.
            assert!(not_ready.status == 503 || began.elapsed() < SECOND / 2, "{not_ready:?}");
            // A new connection each time.
            let range = RangeRequest { key: "k".into(), ..RangeRequest::default() };
            pod.kvd.kv().await.range(range).await.unwrap();
        }
        pod.publish(&json!({ "ready": false, "serving": true, "terminating": true }));
        let (status, took) = pod.ends().await;
        assert!(status.success(), "{status}\n{}", pod.kvd.log());
        assert!(took >= SECOND, "no time for kube-proxy: {took:?}");
    });
}

#[test]
fn a_second_sigterm_is_ignored_and_sigint_ends_a_pod_at_once() {
    with_retry(async || {
        let mut pod = Pod::start().await;
        pod.publish(&json!({ "ready": true }));
        pod.kvd.signal("TERM");
        pod.kvd.logs("SIGTERM received").await;
        pod.kvd.signal("TERM");
        pod.kvd.logs("SIGTERM received again").await;
        assert!(pod.kvd.exited_within(SECOND).await.is_none(), "{}", pod.kvd.log());
        pod.kvd.signal("INT");
        let (status, _) = pod.ends().await;
        assert_eq!(status.code(), Some(130), "{status}\n{}", pod.kvd.log());
    });
}

#[test]
fn a_pod_ends_within_the_grace_period_of_its_deletion() {
    with_retry(async || {
        // From the beginning, and while the pod waits for the withdrawal of its endpoint.
        for (first, second) in [(5, None), (1, None), (120, Some(5))] {
            let mut pod = Pod::start().await;
            pod.publish(&json!({ "ready": true }));
            pod.api.put(POD, self::pod(Some(first)));
            pod.kvd.signal("TERM");
            if let Some(second) = second {
                pod.kvd.logs("SIGTERM received").await;
                sleep(2 * SECOND).await;
                pod.api.put(POD, self::pod(Some(second)));
            }
            let (status, took) = pod.ends().await;
            assert!(status.success(), "{status}\n{}", pod.kvd.log());
            // A busy machine may take longer than a single second.
            let limit = second.unwrap_or(first).max(3) * SECOND;
            assert!(took < limit, "{first}, {second:?}: {took:?}\n{}", pod.kvd.log());
            assert!(pod.kvd.log().contains("shorter than configured"), "{}", pod.kvd.log());
        }
    });
}

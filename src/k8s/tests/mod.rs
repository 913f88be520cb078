//! Members against a small API server ([`api`]), which stores objects with their versions, and can refuse,
//! hang, break connections or be down. No Kubernetes is needed.

mod api;
mod claims;
mod conversions;
mod events;
mod mirror;
mod names;
mod orchestrator;
mod outage;
mod termination;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use serde_json::{Value, json};

use super::{
    kubernetes::{Kubernetes, KubernetesOptions, KubernetesTiming},
    mirror::{MirrorOptions, MirrorTiming},
    outage::Backoff,
};
use crate::clock::Clock;
use api::Api;

const SET: &str = "/apis/apps/v1/namespaces/db/statefulsets/kv";
const RECORD: &str = "/api/v1/namespaces/db/configmaps/kv-cluster";
const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/db/leases/kv-leader";
const SERVICE: &str = "/api/v1/namespaces/db/services/kv-leader";
const EVENTS: &str = "/api/v1/namespaces/db/events";

/// Fast enough for tests, slow enough for a busy machine.
const TIMING: KubernetesTiming = KubernetesTiming {
    call_limit: Duration::from_secs(2),
    close_limit: Duration::from_millis(1000),
    event_backoff: BACKOFF,
    mirror: MirrorTiming {
        renewal: Duration::from_millis(50),
        backoff: BACKOFF,
        stop_limit: Duration::from_millis(1500),
    },
};
const BACKOFF: Backoff = Backoff {
    initial: Duration::from_millis(10),
    max: Duration::from_millis(50),
    max_refused: Duration::from_millis(50),
};

/// A clock that advances by a second with each reading.
#[derive(Debug)]
struct Ticking(AtomicU64);

impl Clock for Ticking {
    fn now(&self) -> Duration {
        Duration::from_secs(self.0.fetch_add(1, Relaxed))
    }
}

/// One pod's member.
fn member(api: &Api, pod: &str) -> Kubernetes {
    member_with_timing(api, pod, TIMING)
}

fn member_with_timing(api: &Api, pod: &str, timing: KubernetesTiming) -> Kubernetes {
    let options = KubernetesOptions {
        namespace: "db".into(),
        statefulset: "kv".into(),
        bootstrap_configmap: "kv-cluster".into(),
        pod: pod.into(),
        mirror: MirrorOptions {
            lease: Some("kv-leader".into()),
            service: Some("kv-leader".into()),
        },
        pod_uid: Some(format!("uid-of-{pod}")),
    };
    let clock = Arc::new(Ticking(AtomicU64::new(1_700_000_000)));
    Kubernetes::new(kube::Config::new(api.url()), options, clock, timing).unwrap()
}

/// An API server with the objects of the manifests.
async fn manifests() -> Api {
    let api = Api::start().await;
    api.put(SET, set(3));
    api.put(RECORD, json!({ "metadata": { "name": "kv-cluster", "labels": { "app": "kv" } } }));
    api.put(LEASE, json!({ "metadata": { "name": "kv-leader" } }));
    api.put(
        SERVICE,
        json!({ "metadata": { "name": "kv-leader" }, "spec": { "ports": [{ "port": 2379 }] } }),
    );
    api
}

fn set(replicas: u32) -> Value {
    json!({
        "metadata": { "name": "kv", "uid": "5e7", "generation": 4,
                      "creationTimestamp": "2026-01-01T00:00:00Z" },
        "spec": { "replicas": replicas, "serviceName": "kv-peers",
                  "selector": {}, "template": {} },
    })
}

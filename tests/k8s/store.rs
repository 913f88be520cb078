//! A store in a namespace of its own, installed and changed with `kubectl`.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use ordinal::client::{Client, Endpoint, Timeouts};
use serde_json::Value;
use tokio::time::{Duration, Instant, timeout};

use crate::k8s::{
    follow::{Followed, Objects},
    kubectl::{Kubectl, eventually, rendered},
};

/// Short, so that a client of a dead member soon tries another.
pub const TIMEOUTS: Timeouts =
    Timeouts { dial: Duration::from_millis(300), command: Duration::from_secs(2) };
const CLIENT_PORT: u16 = 2379;
/// A finalizer that keeps the object of a deleted pod, so that the StatefulSet does not replace it.
const HOLD_FINALIZER: &str = "ordinal.test/hold";
/// The pods of all instances in a namespace.
const MEMBER_PODS: &[&str] = &["pods", "--selector=app.kubernetes.io/component=member"];
/// The name of the StatefulSet in the base.
pub const STATEFULSET: &str = "kv";
/// Bound on the wait for a followed change before the next poll.
const POLL_INTERVAL: Duration = Duration::from_secs(5);

#[derive(Debug, Clone)]
pub struct Store {
    pub kubectl: Kubectl,
    /// The name of the StatefulSet, which begins the names of its pods.
    pub name: String,
    installation: Installation,
    /// The manifests as they are shipped.
    shipped: String,
    /// The followed pods of the members.
    followed: Arc<Followed<Vec<Pod>>>,
}

/// The fields of the StatefulSet that scenarios choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Installation {
    pub replicas: u32,
    /// The first ordinal.
    pub start: u32,
    /// The `podManagementPolicy`.
    pub policy: &'static str,
}

/// A pod, as the API server knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    pub name: String,
    pub uid: String,
    pub ip: String,
    pub ready: bool,
    pub deleting: bool,
    pub restarts: i64,
}

/// How a pod is terminated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    Graceful,
    /// SIGKILL, and an immediate replacement.
    Force,
}

impl Store {
    /// Creates the namespace, under the restricted Pod Security standard, and installs the store.
    pub async fn install(namespace: &str, installation: Installation) -> Store {
        let kubectl = Kubectl { namespace: namespace.into() };
        let make = format!(
            "{{apiVersion: v1, kind: Namespace, metadata: {{name: {namespace}, labels: \
             {{pod-security.kubernetes.io/enforce: restricted}}}}}}"
        );
        kubectl.feed(&["apply", "--filename=-"], &make).await;
        let manifests = rendered("tests/k8s/manifests").await;
        Store::install_instance(kubectl, STATEFULSET, installation, manifests).await
    }

    /// Installs an instance whose StatefulSet has this name.
    pub async fn install_instance(
        kubectl: Kubectl,
        name: &str,
        installation: Installation,
        shipped: String,
    ) -> Store {
        let name = name.to_owned();
        let view = {
            let name = name.clone();
            move |objects: &Objects| members(&name, objects.values())
        };
        let followed = Arc::new(Followed::begin(kubectl.clone(), MEMBER_PODS, view));
        let store = Store { kubectl, name, installation, shipped, followed };
        store.apply().await;
        store
    }

    /// The installation of the beginning.
    pub fn installation(&self) -> Installation {
        self.installation
    }

    pub async fn apply(&self) {
        self.apply_as(self.installation).await;
    }

    pub async fn apply_as(&self, installation: Installation) {
        self.kubectl.feed(&["apply", "--filename=-"], &self.manifests(installation)).await;
    }

    fn manifests(&self, installation: Installation) -> String {
        let Installation { replicas, start, policy } = installation;
        let ordinals = format!("\n  ordinals: {{start: {start}}}");
        let ordinals = if start == 0 { "" } else { &ordinals };
        let manifests = with_field(&self.shipped, "replicas", &format!("{replicas}{ordinals}"));
        with_field(&manifests, "podManagementPolicy", policy)
    }

    /// Deletes all objects of the manifests, in their order, as `kubectl delete -k` does. The
    /// volumes stay. Waits until the pods are gone, and returns the time that this took.
    pub async fn delete_objects(&self) -> Duration {
        let began = Instant::now();
        let manifests = self.manifests(self.installation);
        self.kubectl.feed(&["delete", "--wait=false", "--filename=-"], &manifests).await;
        self.until(|pods| if pods.is_empty() { Ok(()) } else { Err(format!("left: {pods:#?}")) })
            .await;
        began.elapsed()
    }

    /// Deletes everything, volumes included.
    pub async fn remove(self) {
        let names: Vec<String> = self.pods().await.into_iter().map(|pod| pod.name).collect();
        for name in &names {
            self.release(name).await;
        }
        // First the controllers, then the pods, without a grace period.
        let _ = self.kubectl.attempt(&["delete", "statefulset", "--all", "--cascade=orphan"]).await;
        let force = ["delete", "pod", "--all", "--force", "--grace-period=0"];
        let _ = self.kubectl.attempt(&force).await;
        // Kubernetes deletes the rest in the background.
        let _ = self
            .kubectl
            .attempt(&["delete", "namespace", &self.kubectl.namespace, "--wait=false"])
            .await;
    }

    /// The members' pods, by ordinal.
    pub async fn pods(&self) -> Vec<Pod> {
        let list = self.kubectl.get(MEMBER_PODS).await;
        members(&self.name, list["items"].as_array().expect("a list has items"))
    }

    /// The last followed state of the pods, without a request.
    pub fn followed_pods(&self) -> Vec<Pod> {
        self.followed.subscribe().borrow().clone()
    }

    pub async fn pod(&self, name: &str) -> Option<Pod> {
        named(self.pods().await, name)
    }

    /// Waits until the pods satisfy `judge`. It polls the API server, at once when the followed
    /// pods satisfy `judge`.
    pub async fn until<T>(&self, judge: impl Fn(Vec<Pod>) -> Result<T, String>) -> T {
        let mut followed = self.followed.subscribe();
        eventually(async || {
            let judged = judge(self.pods().await);
            if judged.is_err() {
                let likely = followed.wait_for(|pods| judge(pods.clone()).is_ok());
                let _ = timeout(POLL_INTERVAL, likely).await;
            }
            judged
        })
        .await
    }

    /// Waits until exactly this many members run, and all are ready.
    pub async fn ready(&self, replicas: u32) -> Vec<Pod> {
        self.ready_at(0..replicas).await
    }

    /// The same, at these ordinals.
    pub async fn ready_at(&self, ordinals: Range<u32>) -> Vec<Pod> {
        self.until(|pods| {
            let names = pods.iter().map(|pod| pod.name.clone());
            let wanted = ordinals.clone().map(|ordinal| format!("{}-{ordinal}", self.name));
            let all = names.eq(wanted) && pods.iter().all(|pod| pod.ready && !pod.deleting);
            if all { Ok(pods) } else { Err(format!("not {ordinals:?} ready: {pods:#?}")) }
        })
        .await
    }

    /// Waits until a replacement of this pod is ready.
    pub async fn replaced(&self, old: &Pod) -> Pod {
        self.until(|pods| match named(pods, &old.name) {
            Some(pod) if pod.uid != old.uid && pod.ready && !pod.deleting => Ok(pod),
            now => Err(format!("{} is not replaced: {now:?}", old.name)),
        })
        .await
    }

    /// Waits for an Event about this object that contains the text.
    pub async fn has_event(&self, about: &str, text: &str) {
        let of = format!("--field-selector=involvedObject.name={about}");
        eventually(async || {
            let events = self.kubectl.run(&["get", "events", &of]).await;
            if events.contains(text) { Ok(()) } else { Err(format!("no {text:?}: {events}")) }
        })
        .await;
    }

    pub async fn scale(&self, replicas: u32) {
        let (name, replicas) = (&self.name, format!("--replicas={replicas}"));
        self.kubectl.run(&["scale", "statefulset", name, &replicas]).await;
    }

    /// Deletes pods, without waiting.
    pub async fn delete(&self, pods: &[&str], end: Deletion) {
        let how: &[&str] = match end {
            Deletion::Graceful => &["--wait=false"],
            Deletion::Force => &["--wait=false", "--force", "--grace-period=0"],
        };
        self.kubectl.run(&[&["delete", "pod"], pods, how].concat()).await;
    }

    /// Evicts a pod, as `kubectl drain` does for each pod of a node.
    ///
    /// # Errors
    /// If the PodDisruptionBudget forbids the eviction now.
    pub async fn evict(&self, pod: &str) -> Result<(), String> {
        let namespace = &self.kubectl.namespace;
        let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}/eviction");
        let eviction = serde_json::json!({
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": pod, "namespace": namespace},
        });
        let args = ["create", "--raw", &path, "--filename=-"];
        self.kubectl.try_feed(&args, &eviction.to_string()).await.map(drop)
    }

    /// Kills the process of a pod and prevents a replacement until it is [released](Self::release):
    /// a member that is down, as on a lost node.
    pub async fn hold(&self, pod: &Pod) {
        self.keep_object(pod).await;
        self.delete(&[&pod.name], Deletion::Force).await;
        let client = client_of(&[endpoint(&pod.ip)]);
        eventually(async || match client.status().await {
            Ok(_) => Err(format!("{} still answers", pod.name)),
            Err(_) => Ok(()),
        })
        .await;
    }

    /// Keeps the object of this pod beyond its end, until it is [released](Self::release).
    pub async fn keep_object(&self, pod: &Pod) {
        let patch = format!("{{\"metadata\":{{\"finalizers\":[\"{HOLD_FINALIZER}\"]}}}}");
        self.kubectl.run(&["patch", "pod", &pod.name, "--patch", &patch]).await;
    }

    pub async fn release(&self, pod: &str) {
        let patch = "{\"metadata\":{\"finalizers\":null}}";
        let _ = self.kubectl.attempt(&["patch", "pod", pod, "--patch", patch]).await;
    }

    /// Waits until a pod reports that it leads.
    pub async fn leader(&self) -> Pod {
        eventually(async || {
            for pod in self.pods().await.into_iter().filter(|pod| pod.ready && !pod.deleting) {
                let status = client_of(&[endpoint(&pod.ip)]).status().await;
                if status.is_ok_and(|s| s.leader == s.header.unwrap_or_default().member_id) {
                    return Ok(pod);
                }
            }
            Err("no pod leads".into())
        })
        .await
    }

    pub async fn follower(&self) -> Pod {
        let leader = self.leader().await;
        let pods = self.pods().await;
        pods.into_iter().rev().find(|pod| pod.name != leader.name).expect("there are others")
    }

    /// A client of all members that are ready.
    pub async fn client(&self) -> Client {
        client_of_ready(&self.pods().await)
    }

    /// Waits until the cluster has exactly this many voters and learners.
    pub async fn membership(&self, voters: usize, learners: usize) {
        let followed = self.followed.subscribe();
        eventually(async || {
            let client = client_of_ready(&followed.borrow());
            let answer = client.member_list().await;
            let members = answer.map_err(|error| error.to_string())?.members;
            let (l, v): (Vec<_>, Vec<_>) = members.iter().partition(|member| member.is_learner);
            let right = (v.len(), l.len()) == (voters, learners);
            if right { Ok(()) } else { Err(format!("not {voters}+{learners}: {members:#?}")) }
        })
        .await;
    }

    /// The cluster of all ready pods.
    pub async fn cluster(&self) -> u64 {
        let clusters = self.clusters().await;
        let first = clusters.values().next().copied().expect("a pod is ready");
        assert!(clusters.values().all(|cluster| *cluster == first), "two clusters: {clusters:x?}");
        first
    }

    /// The cluster of each ready pod that answers.
    pub async fn clusters(&self) -> BTreeMap<String, u64> {
        let mut clusters = BTreeMap::new();
        for pod in self.pods().await.into_iter().filter(|pod| pod.ready) {
            if let Ok(status) = client_of(&[endpoint(&pod.ip)]).status().await {
                clusters.insert(pod.name, status.header.unwrap_or_default().cluster_id);
            }
        }
        clusters
    }

    /// The name of the Service for clients.
    pub fn client_service(&self) -> String {
        format!("{}-client", self.name)
    }

    /// The member id of each pod, by name.
    pub async fn ids(&self) -> BTreeMap<String, u64> {
        let members = self.client().await.member_list().await.unwrap().members;
        members.into_iter().map(|member| (member.name, member.id)).collect()
    }
}

pub fn endpoint(ip: &str) -> Endpoint {
    let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
    format!("{host}:{CLIENT_PORT}").parse().expect("an address and a port")
}

pub fn client_of(endpoints: &[Endpoint]) -> Client {
    // An address on which nothing listens, if no pod is ready.
    let unreachable = || vec!["127.0.0.1:9".parse().expect("an address and a port")];
    let endpoints = if endpoints.is_empty() { unreachable() } else { endpoints.to_vec() };
    Client::new(endpoints, TIMEOUTS)
}

/// Changes the one line of the manifests that has this field of a `spec`.
fn with_field(manifests: &str, field: &str, value: &str) -> String {
    let begin = format!("\n  {field}: ");
    let parts: Vec<&str> = manifests.split(&begin).collect();
    let [before, after] = parts[..] else { panic!("not one line with {field}: {manifests}") };
    let (_, rest) = after.split_once('\n').expect("a line has an end");
    format!("{before}{begin}{value}\n{rest}")
}

/// The pods of one StatefulSet, by ordinal.
fn members<'a>(statefulset: &str, items: impl IntoIterator<Item = &'a Value>) -> Vec<Pod> {
    let mut pods: Vec<(u32, Pod)> = items
        .into_iter()
        .map(pod)
        .filter_map(|pod| Some((ordinal(statefulset, &pod.name)?, pod)))
        .collect();
    pods.sort_by_key(|(ordinal, _)| *ordinal);
    pods.into_iter().map(|(_, pod)| pod).collect()
}

fn named(pods: Vec<Pod>, name: &str) -> Option<Pod> {
    pods.into_iter().find(|pod| pod.name == name)
}

fn client_of_ready(pods: &[Pod]) -> Client {
    let ready = pods.iter().filter(|pod| pod.ready);
    client_of(&ready.map(|pod| endpoint(&pod.ip)).collect::<Vec<_>>())
}

/// `None` for a pod of another StatefulSet.
fn ordinal(statefulset: &str, pod: &str) -> Option<u32> {
    pod.strip_prefix(statefulset)?.strip_prefix('-')?.parse().ok()
}

fn pod(item: &Value) -> Pod {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let conditions = item["status"]["conditions"].as_array();
    let ready = |c: &Value| c["type"] == "Ready" && c["status"] == "True";
    Pod {
        name: text(&item["metadata"]["name"]),
        uid: text(&item["metadata"]["uid"]),
        ip: text(&item["status"]["podIP"]),
        ready: conditions.is_some_and(|conditions| conditions.iter().any(ready)),
        deleting: item["metadata"]["deletionTimestamp"].is_string(),
        restarts: item["status"]["containerStatuses"][0]["restartCount"].as_i64().unwrap_or(0),
    }
}

//! Operations on the host of the cluster: stop its API server or DNS, cut a pod off, send a signal
//! to a member, change its volume or let the disk below hang, change objects behind the API server's
//! back. Available if tests/k8s/cluster runs the cluster.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use serde_json::Value;
use tokio::{io::AsyncWriteExt, process::Command};

use crate::k8s::{
    kubectl::Kubectl,
    store::{Pod, Store},
};

/// The iptables chain of this test.
const CHAIN: &str = "ORDINAL-CUT";

#[derive(Debug)]
pub struct Host {
    cluster: PathBuf,
}

impl Host {
    pub fn from_env() -> Option<Host> {
        env::var_os("K8S_CLUSTER").map(|cluster| Host { cluster: cluster.into() })
    }

    /// SIGKILL to one of the cluster's programs.
    pub async fn stop(&self, program: &str) {
        run(Command::new(&self.cluster).args(["stop", program])).await;
    }

    pub async fn start(&self, program: &str) {
        run(Command::new(&self.cluster).args(["start", program])).await;
    }

    /// DNS that answers from a cache for this time, as a node-local cache does, until
    /// [`heal`](Self::heal).
    pub async fn cache_dns(&self, seconds: u32) {
        self.stop("dns").await;
        let mut start = Command::new(&self.cluster);
        run(start.args(["start", "dns"]).env("K8S_DNS_CACHE", seconds.to_string())).await;
    }

    /// Drops packets between this pod and all others. Clients on the node still reach it, so that
    /// the answers of a member that is cut off are checked, too.
    pub async fn cut_off(&self, pod: &Pod) {
        let iptables = if pod.ip.contains(':') { "ip6tables" } else { "iptables" };
        for rule in [["--new-chain", CHAIN].as_slice(), &["--insert", "FORWARD", "--jump", CHAIN]] {
            run(Command::new(iptables).arg("--wait").args(rule)).await;
        }
        for direction in ["--source", "--destination"] {
            let rule = ["--append", CHAIN, direction, &pod.ip, "--jump", "DROP"];
            run(Command::new(iptables).arg("--wait").args(rule)).await;
        }
    }

    /// Starts the stopped programs, removes the packet filter, and lets all disks continue.
    pub async fn heal(&self) {
        self.thaw().await;
        // DNS may have a cache.
        self.stop("dns").await;
        for program in ["apiserver", "dns"] {
            self.start(program).await;
        }
        for iptables in ["iptables", "ip6tables"] {
            for rule in [
                ["--delete", "FORWARD", "--jump", CHAIN].as_slice(),
                &["--flush", CHAIN],
                &["--delete-chain", CHAIN],
            ] {
                // Mostly there is nothing to undo.
                let _ = Command::new(iptables).arg("--wait").args(rule).output().await;
            }
        }
    }

    /// Sends a signal to the member's process, past Kubernetes, if it still runs.
    pub async fn signal_if_alive(&self, pod: &Pod, signal: &str) {
        if let Some(process) = process_of(pod) {
            let _ = Command::new("kill").args(["-s", signal, &process]).output().await;
        }
    }

    /// Writes an object to the database of the control plane.
    pub async fn overwrite(&self, key: &str, object: &Value) {
        let mut etcdctl = Command::new("etcdctl");
        etcdctl.args(["--endpoints=127.0.0.1:2379", "put", key]).stdin(Stdio::piped());
        let mut running = etcdctl.stdout(Stdio::null()).spawn().expect("etcdctl is there");
        let mut stdin = running.stdin.take().expect("it is piped");
        stdin.write_all(object.to_string().as_bytes()).await.expect("etcdctl reads");
        drop(stdin);
        let done = running.wait().await.expect("etcdctl ends");
        assert!(done.success(), "etcdctl put {key}: {done}");
    }

    /// The directory of a member's volume.
    pub async fn volume(&self, kubectl: &Kubectl, pod: &str) -> PathBuf {
        let claim = kubectl.get(&["persistentvolumeclaim", &format!("data-{pod}")]).await;
        let name = claim["spec"]["volumeName"].as_str().expect("it is bound").to_owned();
        let volume = kubectl.get(&["persistentvolume", &name]).await;
        volume["spec"]["local"]["path"].as_str().expect("it is local").into()
    }

    /// Takes a volume away: a pod that needs it waits until it is [attached](Self::attach).
    pub async fn detach(&self, volume: &Path) {
        run(Command::new("mv").arg(volume).arg(detached(volume))).await;
    }

    pub async fn attach(&self, volume: &Path) {
        run(Command::new("mv").arg(detached(volume)).arg(volume)).await;
    }

    /// Moves a volume to a disk of its own. No pod may use it.
    pub async fn give_disk(&self, volume: &Path) {
        run(Command::new(&self.cluster).arg("disk").arg(volume)).await;
    }

    /// From now on, each write to this volume hangs, until [`thaw`](Self::thaw). The volume has a
    /// [disk](Self::give_disk).
    pub async fn freeze(&self, volume: &Path) {
        run(Command::new(&self.cluster).arg("freeze").arg(volume)).await;
    }

    /// All disks continue.
    pub async fn thaw(&self) {
        run(Command::new(&self.cluster).arg("thaw")).await;
    }

    /// Replaces directory `to` by a copy of `from`.
    pub async fn copy(&self, from: &PathBuf, to: &PathBuf) {
        run(Command::new("rm").arg("-rf").arg(to)).await;
        run(Command::new("cp").arg("-a").arg(from).arg(to)).await;
    }

    /// Replaces the contents of a volume, not its directory, which may be mounted.
    pub async fn restore(&self, copy: &PathBuf, volume: &PathBuf) {
        run(Command::new("find").arg(volume).args(["-mindepth", "1", "-delete"])).await;
        run(Command::new("cp").arg("-a").arg(copy.join(".")).arg(volume)).await;
        run(Command::new("rm").arg("-rf").arg(copy)).await;
    }
}

fn detached(volume: &Path) -> PathBuf {
    volume.with_extension("detached")
}

/// The first process of a pod's container, as this host numbers it. The kubelet names the pod's
/// cgroup by its uid.
fn process_of(pod: &Pod) -> Option<String> {
    let of_pod = |process: &Path| {
        let cgroups = fs::read_to_string(process.join("cgroup")).unwrap_or_default();
        let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
        cgroups.contains(&format!("pod{}", pod.uid)) && name.trim() == "kvd"
    };
    let processes = fs::read_dir("/proc").ok()?.flatten().map(|entry| entry.path());
    let process = processes.into_iter().find(|process| of_pod(process))?;
    Some(process.file_name()?.to_str()?.to_owned())
}

async fn run(command: &mut Command) {
    let done = command.output().await.expect("the program is there");
    let stderr = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{command:?}: {stderr}");
}

/// Objects, events and logs that help to diagnose a failure, collected before the namespace goes.
pub async fn evidence(store: &Store) -> String {
    let mut evidence = String::new();
    let queries: [&[&str]; 6] = [
        &["get", "pods,persistentvolumeclaims", "--output=wide"],
        &["get", "configmap/kv-cluster", "lease/kv-leader", "service/kv-leader", "--output=yaml"],
        &["get", "events", "--sort-by=.lastTimestamp"],
        &["describe", "pods"],
        &["logs", "--selector=app.kubernetes.io/component=member", "--prefix", "--tail=1000"],
        &["logs", "--selector=app.kubernetes.io/component=member", "--prefix", "--previous"],
    ];
    for query in queries {
        let answer = store.kubectl.attempt(query).await.unwrap_or_else(|stderr| stderr);
        evidence += &format!("$ kubectl {}\n{answer}\n", query.join(" "));
    }
    evidence
}

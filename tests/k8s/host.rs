//! Operations on the host of the cluster: stop its API server or DNS, cut a pod off, change a
//! volume behind a member's back. Available if tests/k8s/cluster runs the cluster.

use std::{env, path::PathBuf};

use tokio::process::Command;

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

    /// Drops packets between this pod and all others. Clients on the node still reach it, so that
    /// the answers of a member that is cut off are checked, too.
    pub async fn cut_off(&self, pod: &Pod) {
        for rule in [["--new-chain", CHAIN].as_slice(), &["--insert", "FORWARD", "--jump", CHAIN]] {
            run(Command::new("iptables").arg("--wait").args(rule)).await;
        }
        for direction in ["--source", "--destination"] {
            let rule = ["--append", CHAIN, direction, &pod.ip, "--jump", "DROP"];
            run(Command::new("iptables").arg("--wait").args(rule)).await;
        }
    }

    /// Starts the stopped programs, and removes the packet filter.
    pub async fn heal(&self) {
        for program in ["apiserver", "dns"] {
            self.start(program).await;
        }
        for rule in [
            ["--delete", "FORWARD", "--jump", CHAIN].as_slice(),
            &["--flush", CHAIN],
            &["--delete-chain", CHAIN],
        ] {
            // Mostly there is nothing to undo.
            let mut iptables = Command::new("iptables");
            let _ = iptables.arg("--wait").args(rule).output().await;
        }
    }

    /// The directory of a member's volume.
    pub async fn volume(&self, kubectl: &Kubectl, pod: &str) -> PathBuf {
        let claim = kubectl.get(&["persistentvolumeclaim", &format!("data-{pod}")]).await;
        let name = claim["spec"]["volumeName"].as_str().expect("it is bound").to_owned();
        let volume = kubectl.get(&["persistentvolume", &name]).await;
        volume["spec"]["local"]["path"].as_str().expect("it is local").into()
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

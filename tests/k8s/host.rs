//! What only whoever runs the cluster can do: stop its API server or DNS, cut a pod off, change a
//! volume behind a member's back. There where tests/k8s/cluster runs it.

use std::{env, path::PathBuf};

use tokio::process::Command;

use crate::{
    kubectl::Kubectl,
    store::{Pod, Store},
};

/// The chain of packets' rules that is ours.
const CUT: &str = "ORDINAL-CUT";

#[derive(Debug)]
pub(crate) struct Host {
    cluster: PathBuf,
}

impl Host {
    pub(crate) fn of_env() -> Option<Host> {
        env::var_os("K8S_CLUSTER").map(|cluster| Host { cluster: cluster.into() })
    }

    /// SIGKILL to one of its programs.
    pub(crate) async fn stop(&self, program: &str) {
        run(Command::new(&self.cluster).args(["stop", program])).await;
    }

    pub(crate) async fn start(&self, program: &str) {
        run(Command::new(&self.cluster).args(["start", program])).await;
    }

    /// No pod reaches this one, nor it them. Clients on the node do, so that what they are told
    /// by a member that is cut off is checked, too.
    pub(crate) async fn cut_off(&self, pod: &Pod) {
        for rule in [["--new-chain", CUT].as_slice(), &["--insert", "FORWARD", "--jump", CUT]] {
            run(Command::new("iptables").arg("--wait").args(rule)).await;
        }
        for direction in ["--source", "--destination"] {
            let rule = ["--append", CUT, direction, &pod.ip, "--jump", "DROP"];
            run(Command::new("iptables").arg("--wait").args(rule)).await;
        }
    }

    /// Starts what was stopped, and reconnects what was cut off.
    pub(crate) async fn heal(&self) {
        for program in ["apiserver", "dns"] {
            self.start(program).await;
        }
        for rule in [
            ["--delete", "FORWARD", "--jump", CUT].as_slice(),
            &["--flush", CUT],
            &["--delete-chain", CUT],
        ] {
            // Mostly there is nothing to undo.
            let mut iptables = Command::new("iptables");
            let _ = iptables.arg("--wait").args(rule).output().await;
        }
    }

    /// Where the volume of a member is.
    pub(crate) async fn volume(&self, kubectl: &Kubectl, pod: &str) -> PathBuf {
        let claim = kubectl.get(&["persistentvolumeclaim", &format!("data-{pod}")]).await;
        let name = claim["spec"]["volumeName"].as_str().expect("it is bound").to_owned();
        let volume = kubectl.get(&["persistentvolume", &name]).await;
        volume["spec"]["local"]["path"].as_str().expect("it is local").into()
    }

    /// Makes one directory a copy of another.
    pub(crate) async fn copy(&self, from: &PathBuf, to: &PathBuf) {
        run(Command::new("rm").arg("-rf").arg(to)).await;
        run(Command::new("cp").arg("-a").arg(from).arg(to)).await;
    }

    /// Replaces what is in a volume, not the directory, which may be mounted.
    pub(crate) async fn restore(&self, copy: &PathBuf, volume: &PathBuf) {
        run(Command::new("find").arg(volume).args(["-mindepth", "1", "-delete"])).await;
        run(Command::new("cp").arg("-a").arg(copy.join(".")).arg(volume)).await;
        run(Command::new("rm").arg("-rf").arg(copy)).await;
    }
}

async fn run(command: &mut Command) {
    let done = command.output().await.expect("the program is there");
    let complaint = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{command:?}: {complaint}");
}

/// What helps to see why something failed, before the namespace goes.
pub(crate) async fn evidence(store: &Store) -> String {
    let mut evidence = String::new();
    let questions: [&[&str]; 6] = [
        &["get", "pods,persistentvolumeclaims", "--output=wide"],
        &["get", "configmap/kv-cluster", "lease/kv-leader", "service/kv-leader", "--output=yaml"],
        &["get", "events", "--sort-by=.lastTimestamp"],
        &["describe", "pods"],
        &["logs", "--selector=app.kubernetes.io/component=member", "--prefix", "--tail=1000"],
        &["logs", "--selector=app.kubernetes.io/component=member", "--prefix", "--previous"],
    ];
    for question in questions {
        let answer = store.kubectl.attempt(question).await.unwrap_or_else(|complaint| complaint);
        evidence += &format!("$ kubectl {}\n{answer}\n", question.join(" "));
    }
    evidence
}

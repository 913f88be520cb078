//! A member that is a pod: its ways to Kubernetes.

use std::sync::Arc;

use anyhow::Context;
use tokio::sync::watch;

use super::member::Pod;
use crate::{
    clock::SystemClock,
    config::Serve,
    k8s::{Kubernetes, KubernetesOptions, Mirror, MirrorOptions},
    membership::LeaderNews,
};

/// What was started for a pod, and is ended after its member.
pub(super) struct Ways {
    kubernetes: Arc<Kubernetes>,
    mirror: Mirror,
}

/// `None`: this process is no pod of a StatefulSet.
pub(super) async fn connect(args: &Serve, name: &str) -> anyhow::Result<Option<(Pod, Ways)>> {
    let Some(statefulset) = args.kubernetes.statefulset.clone() else { return Ok(None) };
    let options = KubernetesOptions {
        namespace: args.kubernetes.namespace.clone(),
        statefulset,
        claim: args.kubernetes.claim.clone(),
        pod: name.to_string(),
        mirror: MirrorOptions {
            lease: args.kubernetes.lease_mirror.clone(),
            service: args.kubernetes.leader_service.clone(),
        },
        pod_uid: args.kubernetes.pod_uid.clone(),
    };
    let connected = Kubernetes::connect(options, Arc::new(SystemClock)).await;
    let kubernetes = Arc::new(connected.context("--statefulset needs a way to Kubernetes")?);
    let (leader, news) = watch::channel(LeaderNews::default());
    let mirror = kubernetes.mirror(&news);
    let pod = Pod { orchestrator: kubernetes.clone(), leader, grace: args.grace };
    Ok(Some((pod, Ways { kubernetes, mirror })))
}

/// Where a pod's data belongs: a volume of another set is refused.
pub(super) fn home(args: &Serve) -> String {
    let set = args.kubernetes.statefulset.as_ref();
    set.map_or_else(String::new, |set| format!("{}/{set}", args.kubernetes.namespace))
}

impl Ways {
    /// Once the member has ended: nobody leads here any more.
    pub(super) async fn end(self) {
        self.mirror.stop().await;
        self.kubernetes.close().await;
    }
}

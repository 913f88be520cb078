//! A member in a pod: its handle on Kubernetes.

use std::sync::Arc;

use anyhow::Context;
use tokio::sync::watch;

use super::member_config::PodContext;
use crate::{
    clock::SystemClock,
    config::Serve,
    k8s::{Kubernetes, KubernetesOptions, Mirror, MirrorOptions},
    membership::LeaderUpdate,
};

/// The pod's tasks that outlive its member.
pub struct KubernetesHandle {
    kubernetes: Arc<Kubernetes>,
    mirror: Mirror,
}

/// `None`: this process is no pod of a StatefulSet.
pub async fn connect(
    args: &Serve,
    name: &str,
) -> anyhow::Result<Option<(PodContext, KubernetesHandle)>> {
    let Some(statefulset) = args.kubernetes.statefulset.clone() else { return Ok(None) };
    let options = KubernetesOptions {
        namespace: args.kubernetes.namespace.clone(),
        statefulset,
        bootstrap_configmap: args.kubernetes.bootstrap_configmap.clone(),
        pod: name.to_string(),
        mirror: MirrorOptions {
            lease: args.kubernetes.lease_mirror.clone(),
            service: args.kubernetes.leader_service.clone(),
        },
        pod_uid: args.kubernetes.pod_uid.clone(),
    };
    let connected = Kubernetes::connect(options, Arc::new(SystemClock)).await;
    let kubernetes = Arc::new(connected.context("--statefulset requires access to Kubernetes")?);
    let (sender, updates) = watch::channel(LeaderUpdate::default());
    let mirror = kubernetes.mirror(&updates);
    let pod = PodContext {
        orchestrator: kubernetes.clone(),
        leader: sender,
        grace: args.termination_grace_period,
    };
    Ok(Some((pod, KubernetesHandle { kubernetes, mirror })))
}

/// The namespace and StatefulSet of the pod's data. A volume of another set is refused.
pub fn home(args: &Serve) -> String {
    let set = args.kubernetes.statefulset.as_ref();
    set.map_or_else(String::new, |set| format!("{}/{set}", args.kubernetes.namespace))
}

impl KubernetesHandle {
    /// Must be called after the member has stopped, so that it does not lead any more.
    pub async fn close(self) {
        self.mirror.stop().await;
        self.kubernetes.close().await;
    }
}

//! A member in a pod: its handle on Kubernetes.

use std::{net::IpAddr, sync::Arc};

use anyhow::Context;
use tokio::sync::watch;

use super::{
    member_config::PodContext,
    stateful_pod::{PodFlags, StatefulPod},
};
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

/// `None`: this process is not a pod of a StatefulSet.
pub async fn connect(
    args: &Serve,
    pod: Option<&StatefulPod>,
) -> anyhow::Result<Option<(PodContext, KubernetesHandle)>> {
    let Some(pod) = pod else { return Ok(None) };
    let connected = Kubernetes::connect(options(args, pod), Arc::new(SystemClock)).await;
    let kubernetes = Arc::new(connected.context("a pod of a StatefulSet requires Kubernetes")?);
    let (sender, updates) = watch::channel(LeaderUpdate::default());
    let mirror = kubernetes.mirror(&updates);
    let pod = PodContext {
        orchestrator: kubernetes.clone(),
        leader: sender,
        grace: args.termination_grace_period,
    };
    Ok(Some((pod, KubernetesHandle { kubernetes, mirror })))
}

pub fn flags(args: &Serve) -> PodFlags<'_> {
    let flags = &args.kubernetes;
    PodFlags {
        pod_name: flags.pod_name.as_deref(),
        statefulset: flags.statefulset.as_deref(),
        namespace: &flags.namespace,
    }
}

/// A name that no flag gives follows from that of the pod.
fn options(args: &Serve, pod: &StatefulPod) -> KubernetesOptions {
    let flags = &args.kubernetes;
    let leader_object = |flag: Option<&String>| {
        let name = flag.cloned().unwrap_or_else(|| pod.leader_object());
        (!name.is_empty()).then_some(name)
    };
    KubernetesOptions {
        namespace: flags.namespace.clone(),
        statefulset: pod.statefulset().into(),
        bootstrap_configmap: flags
            .bootstrap_configmap
            .clone()
            .unwrap_or_else(|| pod.bootstrap_configmap()),
        pod: pod.name.clone(),
        mirror: MirrorOptions {
            // Without a value, the flag asks for what is the default today.
            lease: leader_object(flags.lease_mirror.as_ref().and_then(Option::as_ref)),
            service: leader_object(flags.leader_service.as_ref()),
        },
        pod_uid: flags.pod_uid.clone(),
    }
}

/// The address of the pod.
pub fn ip(args: &Serve) -> Option<IpAddr> {
    args.kubernetes.pod_ip
}

impl KubernetesHandle {
    /// Must be called after the member has stopped, so that it does not lead any more.
    pub async fn close(self) {
        self.mirror.stop().await;
        self.kubernetes.close().await;
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        serve: Serve,
    }

    fn parsed(line: &str) -> KubernetesOptions {
        let args = ["serve", "--data-dir", "d"].into_iter().chain(line.split_whitespace());
        let args = Line::try_parse_from(args).unwrap().serve;
        let pod = StatefulPod::of(flags(&args), None, "b-kv-2").unwrap().unwrap();
        options(&args, &pod)
    }

    #[test]
    fn every_object_has_the_name_of_the_instance() {
        for line in ["--pod-name b-kv-2 --namespace ns", "--statefulset b-kv --namespace ns"] {
            let options = parsed(line);
            assert_eq!((options.pod.as_str(), options.statefulset.as_str()), ("b-kv-2", "b-kv"));
            assert_eq!(options.namespace, "ns");
            assert_eq!(options.bootstrap_configmap, "b-kv-cluster");
            assert_eq!(options.mirror.lease.as_deref(), Some("b-kv-leader"));
            assert_eq!(options.mirror.service.as_deref(), Some("b-kv-leader"));
        }
    }

    #[test]
    fn a_flag_gives_an_object_another_name_or_none() {
        let named =
            parsed("--pod-name b-kv-2 --bootstrap-configmap c --lease-mirror l --leader-service s");
        assert_eq!(named.bootstrap_configmap, "c");
        assert_eq!(named.mirror.lease.as_deref(), Some("l"));
        assert_eq!(named.mirror.service.as_deref(), Some("s"));
        let none = parsed("--pod-name b-kv-2 --lease-mirror= --leader-service=");
        assert_eq!((none.mirror.lease, none.mirror.service), (None, None));
        let old = parsed("--pod-name b-kv-2 --claim c --lease-mirror");
        assert_eq!(old.bootstrap_configmap, "c");
        assert_eq!(old.mirror.lease.as_deref(), Some("b-kv-leader"));
    }
}

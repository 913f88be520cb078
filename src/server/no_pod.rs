//! A build without Kubernetes: no member is a pod.

use std::net::IpAddr;

use super::{
    member_config::PodContext,
    stateful_pod::{PodFlags, StatefulPod},
};
use crate::config::Serve;

pub enum KubernetesHandle {}

pub async fn connect(
    _: &Serve,
    _: Option<&StatefulPod>,
) -> anyhow::Result<Option<(PodContext, KubernetesHandle)>> {
    Ok(None)
}

pub fn flags(_: &Serve) -> PodFlags<'_> {
    PodFlags::default()
}

pub fn ip(_: &Serve) -> Option<IpAddr> {
    None
}

impl KubernetesHandle {
    pub async fn close(self) {
        match self {}
    }
}

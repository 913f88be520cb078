//! A build without Kubernetes: no member is a pod.

use super::member_config::PodContext;
use crate::config::Serve;

pub enum KubernetesHandle {}

pub async fn connect(_: &Serve, _: &str) -> anyhow::Result<Option<(PodContext, KubernetesHandle)>> {
    Ok(None)
}

pub fn home(_: &Serve) -> String {
    String::new()
}

impl KubernetesHandle {
    pub async fn close(self) {
        match self {}
    }
}

//! A pod of a StatefulSet, and the names that follow from its own.
//!
//! A pod is named SET-ORDINAL. The manifests name all objects of one instance after its StatefulSet, so
//! the pod's name is the only one that a member must be told: two instances in one namespace cannot be
//! mixed up by a name that was written down twice.
//!
//! ```text
//! pod kv-3  →  StatefulSet kv, ordinal 3      ConfigMap kv-cluster      Lease, Service kv-leader
//!              peers kv-{ordinal}.kv-peers    clients kv-3.kv-peers.NAMESPACE.svc
//! ```
//!
//! The pod's name never comes from a guess: `--pod-name` or `--statefulset` says that this process is a
//! pod. The host name stands in for the name only beside `--statefulset`.

use crate::types::Ordinal;

/// The flags that make a member a pod of a StatefulSet.
#[derive(Debug, Clone, Copy, Default)]
pub struct PodFlags<'a> {
    pub pod_name: Option<&'a str>,
    pub statefulset: Option<&'a str>,
    pub namespace: &'a str,
}

/// A pod of a StatefulSet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatefulPod {
    pub name: String,
    pub ordinal: Ordinal,
    set: String,
    namespace: String,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PodNameError {
    #[error(
        "{0:?} is not the name of a StatefulSet's pod, SET-ORDINAL: set KVD_POD_NAME from the pod's \
         metadata.name"
    )]
    NotOfASet(String),
    #[error(
        "pod {pod} belongs to StatefulSet {set}, but --statefulset says {told}: remove --statefulset \
         (KVD_STATEFULSET); the name of the pod is enough"
    )]
    OtherSet { pod: String, set: String, told: String },
    #[error(
        "pod {pod} has ordinal {ordinal}, but --ordinal says {told}: remove --ordinal (KVD_ORDINAL); \
         the name of the pod is enough"
    )]
    OtherOrdinal { pod: String, ordinal: Ordinal, told: Ordinal },
}

impl StatefulPod {
    /// The pod that the flags name; `None`: this process is not a pod of a StatefulSet.
    ///
    /// # Errors
    /// If the name is not that of a pod, or a flag contradicts it: such a member would pose as one of
    /// another instance, or as another one of its own.
    pub fn of(
        flags: PodFlags<'_>,
        ordinal: Option<Ordinal>,
        host: &str,
    ) -> Result<Option<StatefulPod>, PodNameError> {
        let PodFlags { pod_name, statefulset, namespace } = flags;
        let pod = match (pod_name, statefulset, ordinal) {
            (Some(name), ..) => StatefulPod::named(name, namespace)?,
            (None, Some(set), Some(ordinal)) => {
                StatefulPod::named(&format!("{set}-{ordinal}"), namespace)?
            }
            (None, Some(_), None) => StatefulPod::named(host_label(host), namespace)?,
            (None, None, _) => return Ok(None),
        };
        if let Some(told) = statefulset.filter(|told| *told != pod.set) {
            let told = told.into();
            return Err(PodNameError::OtherSet { pod: pod.name, set: pod.set, told });
        }
        if let Some(told) = ordinal.filter(|told| *told != pod.ordinal) {
            let StatefulPod { name: pod, ordinal, .. } = pod;
            return Err(PodNameError::OtherOrdinal { pod, ordinal, told });
        }
        Ok(Some(pod))
    }

    fn named(name: &str, namespace: &str) -> Result<StatefulPod, PodNameError> {
        let parts = name.rsplit_once('-').filter(|(set, _)| !set.is_empty());
        let parts = parts.and_then(|(set, number)| Some((set, number.parse().ok()?)));
        let (set, ordinal) = parts.ok_or_else(|| PodNameError::NotOfASet(name.into()))?;
        Ok(StatefulPod {
            name: name.into(),
            ordinal: Ordinal(ordinal),
            set: set.into(),
            namespace: namespace.into(),
        })
    }

    /// The namespace and StatefulSet of the pod's data. A volume of another set is refused.
    pub fn home(&self) -> String {
        format!("{}/{}", self.namespace, self.set)
    }

    /// The pattern of the members' peer addresses. The search path of the pod's DNS adds the namespace.
    pub fn peer_template(&self, port: u16) -> String {
        format!("{}-{{ordinal}}.{}:{port}", self.set, self.peers_service())
    }

    /// This member's URL for clients in any namespace.
    pub fn client_url(&self, port: u16) -> String {
        format!("http://{}.{}.{}.svc:{port}", self.name, self.peers_service(), self.namespace)
    }

    fn peers_service(&self) -> String {
        format!("{}-peers", self.set)
    }
}

#[cfg(feature = "k8s")]
impl StatefulPod {
    pub fn statefulset(&self) -> &str {
        &self.set
    }

    pub fn bootstrap_configmap(&self) -> String {
        format!("{}-cluster", self.set)
    }

    /// The name of the leader's Lease, and of its Service.
    pub fn leader_object(&self) -> String {
        format!("{}-leader", self.set)
    }
}

/// The first label of a host name. A pod with `setHostnameAsFQDN` has its domain in it, too.
pub fn host_label(host: &str) -> &str {
    host.split('.').next().unwrap_or(host)
}

/// The number at the end of a host name, without its domain.
pub fn trailing_number(host: &str) -> Option<u32> {
    let label = host_label(host);
    let digits = label.len() - label.bytes().rev().take_while(u8::is_ascii_digit).count();
    label[digits..].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(
        pod_name: Option<&str>,
        statefulset: Option<&str>,
        ordinal: Option<u32>,
        host: &str,
    ) -> Result<Option<StatefulPod>, PodNameError> {
        let flags = PodFlags { pod_name, statefulset, namespace: "ns" };
        StatefulPod::of(flags, ordinal.map(Ordinal), host)
    }

    #[test]
    fn all_names_follow_from_the_name_of_the_pod() {
        let pod = pod(Some("b-kv-10"), None, None, "node-1").unwrap().unwrap();
        assert_eq!((pod.name.as_str(), pod.ordinal), ("b-kv-10", Ordinal(10)));
        assert_eq!(pod.home(), "ns/b-kv");
        assert_eq!(pod.peer_template(2380), "b-kv-{ordinal}.b-kv-peers:2380");
        assert_eq!(pod.client_url(2379), "http://b-kv-10.b-kv-peers.ns.svc:2379");
        #[cfg(feature = "k8s")]
        {
            assert_eq!(pod.statefulset(), "b-kv");
            assert_eq!(pod.bootstrap_configmap(), "b-kv-cluster");
            assert_eq!(pod.leader_object(), "b-kv-leader");
        }
    }

    #[test]
    fn a_host_name_alone_makes_no_pod() {
        assert_eq!(pod(None, None, None, "kv-0"), Ok(None));
        assert_eq!(pod(None, None, Some(0), "kv-0"), Ok(None));
    }

    #[test]
    fn the_host_name_stands_in_for_the_name_of_the_pod_with_or_without_its_domain() {
        for host in ["kv-3", "kv-3.kv-peers.ns.svc.cluster.local"] {
            let pod = pod(None, Some("kv"), None, host).unwrap().unwrap();
            assert_eq!((pod.name.as_str(), pod.ordinal), ("kv-3", Ordinal(3)));
        }
        let pod = pod(None, Some("kv"), Some(3), "laptop").unwrap().unwrap();
        assert_eq!(pod.name, "kv-3");
    }

    #[test]
    fn a_name_without_a_set_or_an_ordinal_is_refused() {
        for name in ["", "kv", "kv-", "-3", "3", "kv-x", "kv-3.kv-peers", "kv-99999999999"] {
            let refused = Err(PodNameError::NotOfASet(name.into()));
            assert_eq!(pod(Some(name), None, None, "kv-0"), refused, "{name:?}");
        }
    }

    #[test]
    fn no_flag_lets_a_pod_pose_as_another() {
        // A second instance, by a `namePrefix` that left an old variable behind.
        for pod_name in [Some("b-kv-0"), None] {
            let error = pod(pod_name, Some("kv"), None, "b-kv-0").unwrap_err();
            assert!(matches!(error, PodNameError::OtherSet { .. }), "{error}");
        }
        let error = pod(Some("kv-1"), None, Some(0), "kv-1").unwrap_err();
        assert!(matches!(error, PodNameError::OtherOrdinal { .. }), "{error}");
        assert!(pod(Some("kv-1"), Some("kv"), Some(1), "kv-1").is_ok());
    }

    #[test]
    fn a_host_name_has_its_number_before_its_domain() {
        let fqdn = "kv-3.kv-peers.ns.svc.cluster.local";
        assert_eq!((host_label(fqdn), trailing_number(fqdn)), ("kv-3", Some(3)));
        assert_eq!((host_label("kv-3"), trailing_number("kv-3")), ("kv-3", Some(3)));
        assert_eq!(trailing_number("laptop.office7"), None);
    }
}

//! The texts for a volume whose bootstrap record names another cluster as formed: they say how to go on.

use std::fmt;

use super::identity::Identity;
use crate::types::ClusterId;

/// A member's cluster, and the other one in the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub struct OtherFormed {
    pub ours: ClusterId,
    pub formed: ClusterId,
    /// The record is older than this member's recovery from the cluster that it names.
    is_older: bool,
}

impl OtherFormed {
    pub fn new(identity: &Identity, formed: ClusterId) -> OtherFormed {
        let is_older = identity.recovered_from == Some(formed);
        OtherFormed { ours: identity.cluster, formed, is_older }
    }
}

impl fmt::Display for OtherFormed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let OtherFormed { ours, formed, is_older } = self;
        write!(
            f,
            "it belongs to cluster {ours}, but the bootstrap record names cluster {formed}. "
        )?;
        if *is_older {
            return write!(
                f,
                "{ours} was recovered from {formed}, so the record is an old one, probably restored from a \
                 backup: write cluster {ours} into the ConfigMap, then delete the pods, whose restarts are \
                 delayed by now"
            );
        }
        write!(
            f,
            "If {ours} is the right one, write its id into the ConfigMap, then delete the pod; if not, \
             delete this ordinal's PersistentVolumeClaim and its pod"
        )
    }
}

/// The record names a cluster that a stored recovery order must not replace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub struct StaleRecovery {
    ours: ClusterId,
    formed: ClusterId,
    recovered_from: Option<ClusterId>,
}

impl StaleRecovery {
    pub fn new(identity: &Identity, formed: ClusterId) -> StaleRecovery {
        let Identity { cluster: ours, recovered_from, .. } = *identity;
        StaleRecovery { ours, formed, recovered_from }
    }
}

impl fmt::Display for StaleRecovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let StaleRecovery { ours, formed, recovered_from } = self;
        match recovered_from {
            Some(lost) => write!(
                f,
                "this volume has the order to recover cluster {lost} as cluster {ours}, but the bootstrap \
                 record names cluster {formed}, which exists since. "
            )?,
            None => write!(
                f,
                "this volume has the order to recover as cluster {ours}, stored by an older version without \
                 the id of the lost cluster, and the bootstrap record names cluster {formed}. "
            )?,
        }
        write!(
            f,
            "If {formed} serves, delete this ordinal's PersistentVolumeClaim and its pod, and it joins {formed}; \
             if {formed} is lost, write cluster {ours} into the ConfigMap, then delete the pod"
        )
    }
}

//! Pure conversions for a pod that terminates: its grace period, and whether clients are sent to it.

use std::time::Duration;

use k8s_openapi::api::{
    core::v1::{ObjectReference, Pod},
    discovery::v1::{Endpoint, EndpointConditions, EndpointSlice},
};

use crate::membership::Termination;

/// The kubelet gives every pod this time at least.
const GRACE_MIN: Duration = Duration::from_secs(1);

/// The termination, with the time from SIGTERM to SIGKILL. A pod that is being deleted has the grace period of its deletion, which
/// may be shorter than that of its spec, and may be shortened later. `None`: another pod has the name, or
/// no period is stated.
///
/// The period counts from the signal. The pod's timestamps are not used: they are of another machine's clock.
pub fn of_pod(pod: &Pod, uid: Option<&str>) -> Option<Termination> {
    let metadata = &pod.metadata;
    if uid.is_some() && metadata.uid.as_deref() != uid {
        return None;
    }
    let deletion = metadata.deletion_timestamp.as_ref().and(metadata.deletion_grace_period_seconds);
    let of_spec = || pod.spec.as_ref()?.termination_grace_period_seconds;
    let seconds = u64::try_from(deletion.or_else(of_spec)?).unwrap_or(0);
    let is_deleted = metadata.deletion_timestamp.is_some();
    Some(Termination { grace: Duration::from_secs(seconds).max(GRACE_MIN), is_deleted })
}

/// Whether any of these lists the pod as an endpoint for new connections.
///
/// A Service with `publishNotReadyAddresses` keeps the condition `ready` of a pod that is not ready, or
/// terminates; `serving` and `terminating` are true to their names in every slice.
pub fn is_published(slices: &[EndpointSlice], pod: &str, uid: Option<&str>) -> bool {
    let endpoints = slices.iter().flat_map(|slice| &slice.endpoints);
    let mut of_pod = endpoints.filter(|endpoint| is_of(endpoint, pod, uid));
    of_pod.any(|endpoint| accepts_connections(endpoint.conditions.as_ref()))
}

fn is_of(endpoint: &Endpoint, pod: &str, pod_uid: Option<&str>) -> bool {
    let Some(ObjectReference { kind, name, uid, .. }) = &endpoint.target_ref else { return false };
    let same_uid = match (uid.as_deref(), pod_uid) {
        (Some(uid), Some(pod_uid)) => uid == pod_uid,
        _ => true,
    };
    kind.as_deref() == Some("Pod") && name.as_deref() == Some(pod) && same_uid
}

/// An unknown condition counts as in a reader of the API: as ready, as serving, and as not terminating.
fn accepts_connections(conditions: Option<&EndpointConditions>) -> bool {
    conditions.is_none_or(|conditions| {
        conditions.ready.unwrap_or(true)
            && conditions.serving.unwrap_or(true)
            && !conditions.terminating.unwrap_or(false)
    })
}

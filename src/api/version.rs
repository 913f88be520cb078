//! The versions of etcd whose API this is.

/// The etcd version that `Status` and `/version` report, and with which responses and texts are compared.
///
/// From 3.5.13 on, kube-apiserver relies on the order of responses: a `WatchProgressRequest` is answered
/// in order with the events, and kube-apiserver builds its consistent reads from cache on that. So both
/// go through one queue.
pub const ETCD_VERSION: &str = "3.6.16";

/// etcd's storage schema version that belongs to [`ETCD_VERSION`].
pub const ETCD_STORAGE_VERSION: &str = "3.6.0";

//! Refuses methods that are not implemented, in etcd's words: methods and services that etcd does not
//! know either, and etcd's services that this version lacks.

use axum::{
    body::Body,
    http::{Response, Uri},
};
use tonic::{Code, Status};

/// The packages of etcd's API. Their services exist, here or in a later version.
const ETCD_PACKAGES: [&str; 3] = ["etcdserverpb.", "v3lockpb.", "v3electionpb."];

/// Services with at least one route here.
const ROUTED_SERVICES: [&str; 6] = [
    "etcdserverpb.KV",
    "etcdserverpb.Watch",
    "etcdserverpb.Lease",
    "etcdserverpb.Cluster",
    "etcdserverpb.Maintenance",
    "grpc.health.v1.Health",
];

/// The router's fallback, for paths without a route.
pub async fn fallback(uri: Uri) -> Response<Body> {
    status_of_path(uri.path()).into_http()
}

fn status_of_path(path: &str) -> Status {
    let name = path.trim_start_matches('/');
    Status::unimplemented(match name.rsplit_once('/') {
        None => format!("malformed method name: {path:?}"),
        Some((service, method)) if ROUTED_SERVICES.contains(&service) => {
            format!("unknown method {method} for service {service}")
        }
        Some((service, _)) if ETCD_PACKAGES.iter().any(|package| service.starts_with(package)) => {
            format!("ordinal: {name} is not implemented")
        }
        Some((service, _)) => format!("unknown service {service}"),
    })
}

/// Adds etcd's text to the status of a tonic service without the method, which has no text.
pub fn name_method(status: &Status, path: &str) -> Option<Status> {
    if status.code() != Code::Unimplemented || !status.message().is_empty() {
        return None;
    }
    let (service, method) = path.trim_start_matches('/').rsplit_once('/')?;
    Some(Status::unimplemented(format!("unknown method {method} for service {service}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_methods_have_etcds_texts() {
        assert_eq!(status_of_path("/foo.Bar/Nope").message(), "unknown service foo.Bar");
        assert_eq!(status_of_path("/foo").message(), "malformed method name: \"/foo\"");
        let watch = status_of_path("/etcdserverpb.Watch/Nothing");
        assert_eq!(watch.message(), "unknown method Nothing for service etcdserverpb.Watch");
        let lock = status_of_path("/v3lockpb.Lock/Lock");
        assert_eq!(lock.message(), "ordinal: v3lockpb.Lock/Lock is not implemented");
        let path = "/etcdserverpb.KV/Nope";
        let unknown = name_method(&Status::unimplemented(""), path).unwrap();
        assert_eq!(unknown.message(), "unknown method Nope for service etcdserverpb.KV");
        assert!(name_method(&Status::unimplemented("because"), path).is_none());
    }
}

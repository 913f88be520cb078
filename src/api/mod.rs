//! The etcd v3 gRPC services. Each handler validates, calls the node, maps the error, and fills the
//! header.
//!
//! Where a client could tell us from etcd, etcd is right: the gRPC code and the text are etcd's, because
//! clients match on both. The services call the node through [`NodePort`] and hold no state, so the same
//! code serves a cluster, a simulation and a test.
//!
//! ```text
//! validate, overlap   checks of a request before the node sees it
//! kv, range_stream    keys and values
//! lease               leases, and the streams that keep them alive
//! cluster             members
//! maintenance         status, hashes, alarms, leadership transfer
//! watch               events
//! health              gRPC's health service
//! cluster_admin       our own service: the cluster at a glance, disaster recovery
//! session             the session token: reads that never go back in time
//! header, errors      headers of responses, and error statuses
//! unimplemented       methods that are not implemented
//! options, version    bounds on requests; etcd's versions
//! ```

mod cluster;
mod cluster_admin;
mod errors;
mod header;
mod health;
mod kv;
mod lease;
mod maintenance;
mod options;
mod overlap;
mod range_stream;
mod session;
#[cfg(test)]
mod tests;
mod unimplemented;
mod validate;
mod version;
mod watch;

use axum::{body::Body, http::Response, routing::post};
use tonic::{Status, codec::CompressionEncoding, service::Routes};

use crate::{
    node::{MembershipPort, NodePort},
    proto::{
        cluster_admin::cluster_admin_server::ClusterAdminServer,
        etcdserverpb::{
            cluster_server::ClusterServer, kv_server::KvServer, lease_server::LeaseServer,
            maintenance_server::MaintenanceServer,
        },
        health::health_server::HealthServer,
    },
    shutdown::ShutdownSignal,
    watch::Watches,
};

pub use errors::request_aborted;
pub use options::{Options, message_bytes_max};
pub use version::ETCD_VERSION;
pub use watch::ClientAddress;

/// All of etcd's services on this node, and our own. The size of a response has no bound.
///
/// A service that is not implemented answers `Unimplemented`, with its name. Streams end when `shutdown`
/// resolves.
pub fn routes<N: NodePort, M: MembershipPort>(
    node: N,
    members: M,
    watches: Watches,
    options: Options,
    shutdown: ShutdownSignal,
) -> Routes {
    let message_bytes = message_bytes_max(options.max_request_bytes);
    let watch = watch::WatchService {
        node: node.clone(),
        watches,
        shutdown: shutdown.clone(),
        progress_interval: options.watch_progress_interval,
        message_bytes_max: message_bytes,
    };
    let kv = kv::KvService::new(node.clone(), options);
    let lease = lease::LeaseService::new(node.clone(), shutdown.clone());
    let health = health::HealthService { shutdown };
    let cluster = cluster::ClusterService::new(node.clone(), members.clone());
    let maintenance = maintenance::MaintenanceService::new(node, members.clone());
    let cluster_admin = cluster_admin::ClusterAdminService { members };

    // As in etcd, requests may be compressed; responses are not.
    macro_rules! server {
        ($server:ident, $service:expr) => {
            server!($server, $service, message_bytes)
        };
        ($server:ident, $service:expr, $message_bytes:expr) => {
            $server::new($service)
                .max_decoding_message_size($message_bytes)
                .accept_compressed(CompressionEncoding::Gzip)
        };
    }
    let routes = Routes::new(server!(KvServer, kv))
        .add_service(server!(LeaseServer, lease, options::STREAM_MESSAGE_BYTES_MAX))
        .add_service(server!(ClusterServer, cluster))
        .add_service(server!(MaintenanceServer, maintenance))
        .add_service(server!(ClusterAdminServer, cluster_admin))
        .add_service(server!(HealthServer, health));
    let router = routes.into_axum_router().fallback(unimplemented::fallback);
    let router = router.route(watch::PATH, post(move |request| watch.clone().call(request)));
    router.into()
}

/// Methods with one request and a stream of responses. etcd's transport reads the request like one of a
/// stream.
const SERVER_STREAMS: [&str; 3] = [
    "/etcdserverpb.KV/RangeStream",
    "/etcdserverpb.Maintenance/Snapshot",
    "/grpc.health.v1.Health/Watch",
];

/// Translates a refusal by the transport, not by a service, into the words of etcd's transport.
///
/// A refusal before the first message has its status in the headers. A stream that has begun is
/// translated where it is read. The server must pass each response of [`routes`] through this function; a
/// layer of the router would cost every call.
pub fn translate_transport_error(path: &str, response: Response<Body>) -> Response<Body> {
    if !response.headers().contains_key(Status::GRPC_STATUS) {
        return response;
    }
    let Some(status) = Status::from_header_map(response.headers()) else { return response };
    if SERVER_STREAMS.contains(&path) {
        return errors::translate_stream_status(status).into_http();
    }
    let translated = errors::translate_transport_status(&status)
        .or_else(|| unimplemented::name_method(&status, path));
    translated.map_or(response, Status::into_http)
}

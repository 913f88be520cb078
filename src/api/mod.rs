//! The etcd v3 gRPC services. Thin: validate, call the node, map the error, fill the header.
//!
//! Where a client could tell us from etcd, etcd is right: the same gRPC code, and the same text, since
//! clients match on it. What a service does lies behind [`NodePort`]; nothing here holds state, so the
//! same code serves a cluster, a simulation and a test.
//!
//! ```text
//! validate, overlap   what is refused before the node sees it
//! kv, range_stream    keys and values
//! lease               leases, and the streams that keep them alive
//! cluster             members
//! maintenance         how a member is doing
//! watch               changes of keys
//! own                 what etcd has no words for: the cluster at a glance
//! session             what a client has seen, wherever it asks
//! header, errors      what every answer, and every refusal, looks like
//! ```

mod cluster;
mod errors;
mod header;
mod kv;
mod lease;
mod maintenance;
mod overlap;
mod own;
mod range_stream;
mod session;
#[cfg(test)]
mod tests;
mod validate;
mod watch;

use std::time::Duration;

use axum::{
    body::Body,
    http::{Response, Uri},
    middleware::map_response,
    routing::post,
};
use tonic::{Status, service::Routes};

use crate::{
    node::{MembershipPort, NodePort},
    proto::{
        etcdserverpb::{
            cluster_server::ClusterServer, kv_server::KvServer, lease_server::LeaseServer,
            maintenance_server::MaintenanceServer,
        },
        own::ordinal_server::OrdinalServer,
    },
    stop::Stopping,
    watch::Watches,
};

pub use watch::ClientAddress;

/// The etcd whose API this is, as `Status` and `/version` tell it.
///
/// What answers and texts are compared with. From 3.5.13 on kube-apiserver takes it that a
/// `WatchProgressRequest` is answered in order with the events, and builds its consistent reads from
/// cache on it: so they go through one queue.
pub const ETCD_VERSION: &str = "3.6.16";

/// The version of etcd's storage schema that goes with [`ETCD_VERSION`].
pub const ETCD_STORAGE_VERSION: &str = "3.6.0";

/// What a message may be longer than the request in it: etcd's allowance for everything around keys
/// and values. A request between the two bounds is refused by us with a text; beyond, by the transport.
const MESSAGE_OVERHEAD_BYTES: usize = 512 * 1024;

/// Bounds on a request; etcd's defaults.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// The largest write, in bytes as it is encoded.
    pub max_request_bytes: usize,
    /// The most operations on the longest path through a transaction: of its comparisons, successes
    /// and failures the longest list, and on top those of a nested transaction.
    pub max_txn_ops: usize,
    /// How often a watch that asks for it is told its progress while nothing happens.
    pub watch_progress_interval: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            max_request_bytes: 1536 * 1024,
            max_txn_ops: 128,
            watch_progress_interval: Duration::from_secs(600),
        }
    }
}

/// All of etcd's services on this node, and our own. The size of an answer has no bound.
///
/// A service that is not here yet answers `Unimplemented`, with its name. Streams that would go on for
/// ever end when `stopping` says so.
pub fn routes<N: NodePort, M: MembershipPort>(
    node: N,
    members: M,
    watches: Watches,
    options: Options,
    stopping: Stopping,
) -> Routes {
    let message_bytes = message_bytes_max(options.max_request_bytes);
    let watch = watch::WatchService {
        node: node.clone(),
        watches,
        stopping: stopping.clone(),
        progress_interval: options.watch_progress_interval,
        message_bytes_max: message_bytes,
    };
    let kv = kv::KvService::new(node.clone(), options);
    let lease = lease::LeaseService::new(node.clone(), stopping);
    let cluster = cluster::ClusterService::new(node.clone(), members.clone());
    let maintenance = maintenance::MaintenanceService::new(node, members.clone());
    let own = own::OwnService { members };

    let routes = Routes::new(KvServer::new(kv).max_decoding_message_size(message_bytes))
        .add_service(LeaseServer::new(lease).max_decoding_message_size(message_bytes))
        .add_service(ClusterServer::new(cluster).max_decoding_message_size(message_bytes))
        .add_service(MaintenanceServer::new(maintenance).max_decoding_message_size(message_bytes))
        .add_service(OrdinalServer::new(own).max_decoding_message_size(message_bytes));
    let router = routes.into_axum_router().fallback(unknown_method);
    let router = router.route(watch::PATH, post(move |request| watch.clone().call(request)));
    router.layer(map_response(in_etcds_words)).into()
}

/// The longest message that is taken in where a request may have so many bytes; and what a watch that
/// allows fragments is sent in one.
pub fn message_bytes_max(max_request_bytes: usize) -> usize {
    max_request_bytes.saturating_add(MESSAGE_OVERHEAD_BYTES)
}

/// Only what the transport refused before a service saw it has its status in the header.
async fn in_etcds_words(response: Response<Body>) -> Response<Body> {
    if !response.headers().contains_key(Status::GRPC_STATUS) {
        return response;
    }
    let status = Status::from_header_map(response.headers());
    match status.as_ref().and_then(errors::of_transport) {
        Some(status) => status.into_http(),
        None => response,
    }
}

async fn unknown_method(uri: Uri) -> Response<Body> {
    let method = uri.path().trim_start_matches('/');
    Status::unimplemented(format!("ordinal: {method} is not implemented")).into_http()
}

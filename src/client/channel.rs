//! The channel to an endpoint, and the services on it.

use std::{io, time::Duration};

use tokio::{sync::OnceCell, time::timeout};
use tonic::{Request, metadata::MetadataValue, transport::Channel};

use super::{endpoint::Endpoint, error::Unreachable};
use crate::proto::etcdserverpb::{
    kv_client::KvClient, lease_client::LeaseClient, maintenance_client::MaintenanceClient,
    watch_client::WatchClient,
};

/// HTTP/2 pings detect a member that vanished without closing the connection, also on idle streams. etcd
/// closes connections that ping more often than every 5 s.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(6);

/// Unbounded: a member may answer a range with a response of any size.
const RESPONSE_BYTES_MAX: usize = usize::MAX;

/// An endpoint, and the channel to it after the first use.
#[derive(Debug)]
pub struct EndpointChannel {
    pub endpoint: Endpoint,
    channel: OnceCell<Channel>,
}

impl EndpointChannel {
    pub fn new(endpoint: Endpoint) -> EndpointChannel {
        EndpointChannel { endpoint, channel: OnceCell::new() }
    }

    /// The channel to this endpoint. When its connection breaks, the channel reconnects by itself.
    pub async fn connect(&self, dial_timeout: Duration) -> Result<Channel, Unreachable> {
        let connect = async || {
            Channel::builder(self.endpoint.uri())
                .connect_timeout(dial_timeout)
                .tcp_nodelay(true)
                .http2_keep_alive_interval(PING_INTERVAL)
                .keep_alive_timeout(PING_TIMEOUT)
                .connect()
                .await
        };
        let name = self.endpoint.to_string();
        // The channel's own timeout covers neither the DNS lookup nor the HTTP/2 handshake.
        match timeout(dial_timeout, self.channel.get_or_try_init(connect)).await {
            Ok(channel) => channel.cloned().map_err(|error| Unreachable::new(&name, &error)),
            Err(_) => Err(Unreachable::new(&name, &io::Error::from(io::ErrorKind::TimedOut))),
        }
    }
}

pub fn kv_service(channel: Channel) -> KvClient<Channel> {
    KvClient::new(channel).max_decoding_message_size(RESPONSE_BYTES_MAX)
}

pub fn maintenance_service(channel: Channel) -> MaintenanceClient<Channel> {
    MaintenanceClient::new(channel)
}

pub fn lease_service(channel: Channel) -> LeaseClient<Channel> {
    LeaseClient::new(channel).max_decoding_message_size(RESPONSE_BYTES_MAX)
}

pub fn watch_service(channel: Channel) -> WatchClient<Channel> {
    WatchClient::new(channel).max_decoding_message_size(RESPONSE_BYTES_MAX)
}

/// The request of a stream that must end when its member has no leader: another member may have one.
pub fn require_leader<M>(message: M) -> Request<M> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
    request
}

//! The ports of a member, and the servers on them: how they are started, drained and cut off.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context;
use tokio::{net::TcpListener, task::JoinHandle};
use tonic::{service::Routes, transport::Server};

use super::{
    admin::{self, Health},
    calls::{self, Calls},
    listen::bind,
    port::Port,
};
use crate::{
    api,
    node::{MembershipPort, Node},
    peer::PeerService,
    proto,
    stop::{Stop, Stopping},
    watch::Watches,
};

/// In-flight client requests get so long to end at shutdown.
const DRAIN: Duration = Duration::from_secs(5);
/// What is left then is cut off, which takes no time to speak of.
const CUT: Duration = Duration::from_secs(1);
/// Streams of one client's connection. (etcd has no bound; each watcher may be a stream.)
const CLIENT_STREAMS_MAX: u32 = 4096;
/// Streams of one peer's connection, of which a handful are in use.
const PEER_STREAMS_MAX: u32 = 32;
/// Who is silent for so long is asked for a sign of life, and has twice as long to give it: a dead
/// connection is gone within half a minute.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// Where a member listens.
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    pub client: SocketAddr,
    pub peer: SocketAddr,
    pub admin: SocketAddr,
    /// The flag that moves them, for errors.
    pub flags: [&'static str; 3],
}

/// The bound ports, before anything runs on them.
pub(super) struct Listeners {
    pub(super) client: TcpListener,
    pub(super) peer: TcpListener,
    pub(super) admin: TcpListener,
}

/// Servers that were started, and the switches that end them.
pub(super) struct Servers {
    /// They take no further requests.
    stop: Stop,
    /// Their connections end, whatever they are at.
    cut: Stop,
    tasks: Vec<(&'static str, JoinHandle<anyhow::Result<()>>)>,
}

impl Servers {
    pub(super) fn new() -> Servers {
        Servers { stop: Stop::default(), cut: Stop::default(), tasks: Vec::new() }
    }

    fn port(&self, listener: TcpListener) -> Port {
        Port::new(listener, self.cut.stopping())
    }

    /// Resolves when the servers should stop taking requests.
    fn stopped(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut stopping = self.stop.stopping();
        async move { stopping.wait().await }
    }

    fn add(
        &mut self,
        name: &'static str,
        server: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        self.tasks.push((name, tokio::spawn(server)));
    }

    pub(super) fn serve_peers(&mut self, listener: TcpListener, service: PeerService) {
        let server = Server::builder()
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(16 << 20)
            .max_concurrent_streams(PEER_STREAMS_MAX)
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(KEEPALIVE * 2))
            .add_service(service.into_server());
        let (stopped, port) = (self.stopped(), self.port(listener));
        self.add("peer", async move {
            Ok(server.serve_with_incoming_shutdown(port.connections(), stopped).await?)
        });
    }

    pub(super) fn serve_admin(&mut self, listener: TcpListener, health: Health) {
        let (stopped, port) = (self.stopped(), self.port(listener));
        self.add("admin", async move {
            let router = admin::router(health);
            Ok(axum::serve(port, router).with_graceful_shutdown(stopped).await?)
        });
    }

    pub(super) fn serve_clients(
        &mut self,
        listener: TcpListener,
        side: ClientSide<impl MembershipPort>,
    ) -> anyhow::Result<()> {
        let ClientSide { node, watches, members, calls, options } = side;
        let (_, health) = tonic_health::server::health_reporter();
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
            .build_v1()
            .context("the built-in descriptors are unreadable")?;
        let routes = api::routes(node, members, watches, options, self.stop.stopping())
            .add_service(health)
            .add_service(reflection);
        let observed = axum::middleware::from_fn_with_state(calls, calls::observe);
        let routes = Routes::from(routes.into_axum_router().layer(observed));
        let server = Server::builder()
            .max_concurrent_streams(CLIENT_STREAMS_MAX)
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(KEEPALIVE * 2))
            .add_routes(routes);
        let (stopped, port) = (self.stopped(), self.port(listener));
        self.add("client", async move {
            Ok(server.serve_with_incoming_shutdown(port.connections(), stopped).await?)
        });
        Ok(())
    }

    pub(super) fn stopping(&self) -> Stopping {
        self.stop.stopping()
    }

    /// Lets requests under way end, for a while; then cuts them off.
    pub(super) async fn drain(mut self) {
        self.stop.stop();
        let ended = async {
            for (name, task) in &mut self.tasks {
                join(name, task).await;
            }
        };
        if tokio::time::timeout(DRAIN, ended).await.is_ok() {
            return;
        }
        tracing::info!("connections are still open: closing them");
        self.cut.stop();
        for (name, task) in &mut self.tasks {
            if !task.is_finished() && tokio::time::timeout(CUT, join(name, task)).await.is_err() {
                tracing::error!(server = name, "did not end");
                task.abort();
            }
        }
    }
}

/// What answers clients.
pub(super) struct ClientSide<M> {
    pub(super) node: Node,
    pub(super) watches: Watches,
    pub(super) members: M,
    pub(super) calls: Calls,
    pub(super) options: api::Options,
}

pub(super) async fn listen(ports: &Ports) -> anyhow::Result<Listeners> {
    let [client, peer, admin] = ports.flags;
    Ok(Listeners {
        client: bind("client port", client, ports.client).await?,
        peer: bind("peer port", peer, ports.peer).await?,
        admin: bind("admin port", admin, ports.admin).await?,
    })
}

async fn join(server: &str, task: &mut JoinHandle<anyhow::Result<()>>) {
    match task.await {
        Ok(Ok(())) => {}
        Ok(Err(e)) => tracing::error!(server, error = %e, "ended badly"),
        Err(e) => tracing::error!(server, error = %e, "ended badly"),
    }
}

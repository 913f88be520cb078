//! The ports of a member, and the servers on them: start, drain, abort.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use hyper_util::service::TowerToHyperService;
use tokio::{net::TcpListener, task::JoinHandle};
use tonic::service::Routes;

use super::{
    admin::{self, MemberHealth},
    connections::{self, CLIENT_LIMITS, ConnectionCounters, ConnectionListener, PEER_LIMITS},
    grpc::{GrpcServer, calls::CallMetrics},
    listen::bind,
    pod_creation,
};
use crate::{
    api,
    membership::Orchestrator,
    node::{MembershipPort, Node},
    peer::PeerService,
    proto,
    shutdown::{Shutdown, ShutdownSignal},
    watch::Watches,
};

/// Limit for requests in flight to end at shutdown.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Limit for an aborted server to end. An abort takes no time to speak of.
const ABORT_TIMEOUT: Duration = Duration::from_secs(1);

/// The addresses where a member listens.
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    pub client: SocketAddr,
    pub peer: SocketAddr,
    pub admin: SocketAddr,
    /// The flags that set them, for error texts.
    pub flags: [&'static str; 3],
}

/// The bound ports, before a server runs on them.
pub struct Listeners {
    pub client: TcpListener,
    pub peer: TcpListener,
    pub admin: TcpListener,
}

/// Started servers, and the signals that end them.
pub struct Servers {
    /// The servers take no further requests.
    stop: Shutdown,
    /// All connections end at once.
    abort: Shutdown,
    tasks: Vec<(&'static str, JoinHandle<anyhow::Result<()>>)>,
}

impl Servers {
    pub fn new() -> Servers {
        Servers { stop: Shutdown::default(), abort: Shutdown::default(), tasks: Vec::new() }
    }

    fn accept_on(
        &self,
        listener: TcpListener,
        counts: &Arc<ConnectionCounters>,
    ) -> ConnectionListener {
        ConnectionListener::new(listener, self.abort.signal(), counts.clone())
    }

    fn add(
        &mut self,
        name: &'static str,
        server: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        self.tasks.push((name, tokio::spawn(server)));
    }

    pub fn serve_peers(
        &mut self,
        listener: TcpListener,
        service: PeerService,
        counts: &Arc<ConnectionCounters>,
    ) {
        let routes = TowerToHyperService::new(Routes::new(service.into_server()).prepare());
        let (listener, shutdown) = (self.accept_on(listener, counts), self.shutdown_signal());
        self.add("peer", async move {
            connections::serve(listener, PEER_LIMITS, |_| routes.clone(), shutdown).await;
            Ok(())
        });
    }

    /// Joins the task that follows the creation of pods together with the servers.
    pub fn follow_pod_creation(&mut self, health: MemberHealth, pods: Arc<dyn Orchestrator>) {
        let following = pod_creation::follow_pod_creation(health, pods, self.shutdown_signal());
        self.add("pod-creation", async move {
            following.await;
            Ok(())
        });
    }

    pub fn serve_admin(&mut self, listener: TcpListener, health: MemberHealth) {
        let counts = &health.connections().admin;
        let (listener, mut shutdown) = (self.accept_on(listener, counts), self.shutdown_signal());
        self.add("admin", async move {
            let stopped = async move { shutdown.wait().await };
            let router = admin::router(health);
            Ok(axum::serve(listener, router).with_graceful_shutdown(stopped).await?)
        });
    }

    pub fn serve_clients(
        &mut self,
        listener: TcpListener,
        services: ClientServices<impl MembershipPort>,
    ) -> anyhow::Result<()> {
        let ClientServices { node, watches, members, calls, connections, options } = services;
        let routes = api::routes(node, members, watches, options, self.shutdown_signal())
            .add_service(reflection().build_v1()?)
            .add_service(reflection().build_v1alpha()?);
        let grpc = GrpcServer::new(routes, calls);
        let (listener, shutdown) = (self.accept_on(listener, &connections), self.shutdown_signal());
        self.add("client", async move {
            connections::serve(listener, CLIENT_LIMITS, |client| grpc.connection(client), shutdown)
                .await;
            Ok(())
        });
        Ok(())
    }

    pub fn shutdown_signal(&self) -> ShutdownSignal {
        self.stop.signal()
    }

    /// Lets requests in flight end within `limit`; then aborts them.
    pub async fn drain(mut self, limit: Duration) {
        self.stop.trigger();
        let ended = async {
            for (name, task) in &mut self.tasks {
                join(name, task).await;
            }
        };
        if tokio::time::timeout(limit, ended).await.is_ok() {
            return;
        }
        tracing::info!("drain timed out: closing open connections");
        self.abort.trigger();
        for (name, task) in &mut self.tasks {
            if !task.is_finished()
                && tokio::time::timeout(ABORT_TIMEOUT, join(name, task)).await.is_err()
            {
                tracing::error!(server = name, "server did not end");
                task.abort();
            }
        }
    }
}

/// Describes all services to tools such as grpcurl, in both versions of the reflection API.
fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
}

/// The services of the client port.
pub struct ClientServices<M> {
    pub node: Node,
    pub watches: Watches,
    pub members: M,
    pub calls: CallMetrics,
    pub connections: Arc<ConnectionCounters>,
    pub options: api::Options,
}

/// Must run on a Tokio runtime.
pub fn listen(ports: &Ports) -> anyhow::Result<Listeners> {
    let [client, peer, admin] = ports.flags;
    Ok(Listeners {
        client: bind("client port", client, ports.client)?,
        peer: bind("peer port", peer, ports.peer)?,
        admin: bind("admin port", admin, ports.admin)?,
    })
}

async fn join(server: &str, task: &mut JoinHandle<anyhow::Result<()>>) {
    match task.await {
        Ok(Ok(())) => {}
        Ok(Err(e)) => tracing::error!(server, error = %e, "server failed"),
        Err(e) => tracing::error!(server, error = %e, "server failed"),
    }
}

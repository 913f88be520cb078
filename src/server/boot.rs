//! Starts one member, in stages. A stage is a struct; its method consumes it and returns the next stage:
//!
//! ```text
//! Listening ──form──▶ Formed ──recover──▶ Recovered ──serve──▶ Serving (lifecycle.rs)
//! ```
//!
//! A shutdown during an early stage returns without a next stage: the member has served no client yet,
//! and the next start repeats the stage.

use std::{pin::Pin, sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio::{net::TcpListener, sync::oneshot};

use super::{
    context::MemberContext,
    lifecycle::Serving,
    member_config::MemberConfig,
    pod_creation::refuse_clients,
    scrape::MetricSources,
    servers::{ClientServices, DRAIN_TIMEOUT, Servers, listen},
    stack::MemberStack,
    tasks::BackgroundTasks,
};
use crate::{
    api,
    clock::SystemClock,
    membership::{self, AdminContext, MemberAdmin, MembershipReconciler},
    node::{MembershipPort, Node, NodePort},
    peer::{PeerClient, PeerIdentity, PeerService, RunningMember},
    rng::SystemRng,
};

/// A starting member serves clients once it has a leader, or after this time (etcd: the same).
const FIRST_LEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Interval between two checks for the first leader.
const FIRST_LEADER_CHECK_INTERVAL: Duration = Duration::from_millis(10);

/// Runs a member until `shutdown`. Sends `ready` once the member serves clients.
///
/// # Errors
/// Everything that keeps the member from starting, or stops it; the text names the port, or the file and
/// the offset.
pub async fn run(
    config: MemberConfig,
    shutdown: impl Future<Output = ()> + Send,
    ready: oneshot::Sender<()>,
) -> anyhow::Result<()> {
    let mut shutdown = std::pin::pin!(shutdown);
    let listening = Listening::open(config).await?;
    let Some(formed) = listening.form(shutdown.as_mut()).await? else { return Ok(()) };
    let Some(recovered) = formed.recover(shutdown.as_mut()).await? else { return Ok(()) };
    let Some(serving) = recovered.serve(shutdown.as_mut()).await? else { return Ok(()) };
    // The receiver may be gone.
    let _ = ready.send(());
    serving.run(shutdown).await
}

/// The ports are bound and the data directory is open. Peers and probes are answered.
struct Listening {
    context: MemberContext,
    client_listener: TcpListener,
    internal_servers: Servers,
    peer_service: PeerService,
}

impl Listening {
    async fn open(config: MemberConfig) -> anyhow::Result<Listening> {
        let listeners = listen(&config.ports)?;
        let context = MemberContext::open(config).await?;
        let mut internal_servers = Servers::new();
        let peer_service = PeerService::new(
            context.bootstrap.clone(),
            context.config.addresses.clone(),
            context.lanes,
            &context.peers,
            internal_servers.shutdown_signal(),
        );
        let health = &context.health;
        let peer_connections = &health.connections().peer;
        internal_servers.serve_peers(listeners.peer, peer_service.clone(), peer_connections);
        internal_servers.serve_admin(listeners.admin, health.clone());
        if let Some(pods) = context.config.orchestrator() {
            internal_servers.follow_pod_creation(health.clone(), pods);
        }
        let client_listener = listeners.client;
        Ok(Listening { context, client_listener, internal_servers, peer_service })
    }

    /// Waits until this volume has an identity in a cluster. `None`: shutdown came first.
    async fn form<F: Future<Output = ()>>(
        self,
        shutdown: Pin<&mut F>,
    ) -> anyhow::Result<Option<Formed>> {
        let Listening { context, client_listener, internal_servers, peer_service } = self;
        let formed = tokio::select! {
            formed = context.bootstrap.run(&context.peers) => formed?,
            never = refuse_clients(|| client_listener.accept(), &context.health) => match never {},
            () = shutdown => {
                internal_servers.drain(DRAIN_TIMEOUT).await;
                return Ok(None);
            }
        };
        context.health.set_formed();
        let identity = &formed.identity;
        tracing::info!(
            cluster = %identity.cluster,
            member = %identity.member,
            ordinal = %identity.ordinal,
            "starting as a member"
        );
        context.peers.set_identity(PeerIdentity::from(identity));
        Ok(Some(Formed { context, client_listener, internal_servers, peer_service, formed }))
    }
}

/// The volume has an identity in a cluster.
struct Formed {
    context: MemberContext,
    client_listener: TcpListener,
    internal_servers: Servers,
    peer_service: PeerService,
    formed: membership::Bootstrapped,
}

impl Formed {
    /// Recovers the log and the storage, and starts Raft and the node. `None`: shutdown came first; a
    /// long recovery starts over the next time.
    async fn recover<F: Future<Output = ()>>(
        self,
        shutdown: Pin<&mut F>,
    ) -> anyhow::Result<Option<Recovered>> {
        let stack = tokio::select! {
            started = MemberStack::start(&self.context, &self.formed.identity) => started?,
            () = shutdown => return Ok(None),
        };
        if stack.storage.rebuilt.is_some() {
            self.context.health.note_rebuilt_tables();
        }
        let reconciler = Arc::new(MembershipReconciler::new(
            stack.raft.clone(),
            stack.node.clone(),
            self.formed.identity.cluster,
            self.context.config.max_voters,
            self.context.config.orchestrator(),
        ));
        Ok(Some(Recovered { stage: self, stack, reconciler }))
    }
}

/// Raft and the node run on the recovered data.
struct Recovered {
    stage: Formed,
    stack: MemberStack,
    reconciler: Arc<MembershipReconciler<Node>>,
}

impl Recovered {
    /// Completes the bootstrap of a new cluster, waits for a first leader, and serves clients. `None`:
    /// shutdown came before the bootstrap was complete; the next start continues it.
    async fn serve<F: Future<Output = ()>>(
        self,
        mut shutdown: Pin<&mut F>,
    ) -> anyhow::Result<Option<Serving>> {
        let running = RunningMember {
            raft: self.stack.raft.clone(),
            node: self.stack.node.clone(),
            reconciler: self.reconciler.clone(),
        };
        // An unconfirmed founder takes no part in Raft yet.
        let unconfirmed = self.stage.formed.unconfirmed;
        if !unconfirmed {
            self.stage.peer_service.set_running(running.clone());
        }
        tokio::select! {
            completed = self.complete_bootstrap() => completed?,
            () = shutdown.as_mut() => return Ok(None),
        }
        if unconfirmed {
            self.stage.peer_service.set_running(running);
        }
        // Before the wait: the time without a quorum counts from here.
        let admin = member_admin(&self.stage.context, &self.stack, &self.reconciler);
        // A shutdown during this wait takes its usual way in `Serving`: the member may have to leave.
        let mut shutdown_requested = false;
        tokio::select! {
            () = first_leader(&self.stack.node) => {}
            () = shutdown => shutdown_requested = true,
            _ = self.stage.context.fault.stopped() => {}
        }
        self.start_serving(admin, shutdown_requested).map(Some)
    }

    /// Initializes Raft on the founder, confirms the founding, and settles the identity.
    async fn complete_bootstrap(&self) -> anyhow::Result<()> {
        let Formed { context, formed, .. } = &self.stage;
        let raft = &self.stack.raft;
        if formed.initialize && !raft.is_initialized().await? {
            raft.initialize(&formed.identity.founders).await?;
        }
        if formed.unconfirmed {
            context.bootstrap.confirm_founded(&context.peers, &formed.identity).await?;
        }
        let (bootstrap, identity) = (context.bootstrap.clone(), formed.identity.clone());
        let written =
            context.lanes.run("identity", move || bootstrap.became_member(&identity)).await?;
        written.context("writing the identity panicked")??;
        Ok(())
    }

    fn start_serving(
        self,
        admin: impl MembershipPort,
        shutdown_requested: bool,
    ) -> anyhow::Result<Serving> {
        let Recovered { stage, stack, reconciler } = self;
        let Formed { context, client_listener, internal_servers, formed, .. } = stage;
        let mut client_server = Servers::new();
        let mut unserved_client_port = None;
        if shutdown_requested {
            unserved_client_port = Some(client_listener);
        } else {
            client_server
                .serve_clients(client_listener, client_services(&context, &stack, admin))?;
            // Ready only now that the client port is served.
            context.health.set_running(MetricSources {
                node: stack.node.clone(),
                storage: stack.storage.metrics(),
                peers: context.peers.metrics().clone(),
                watches: stack.watches.clone(),
            });
        }
        let identity = formed.identity;
        let tasks = BackgroundTasks::spawn(&context, &identity, &stack, &reconciler);
        Ok(Serving {
            context,
            identity,
            stack,
            reconciler,
            internal_servers,
            client_server,
            tasks,
            unserved_client_port,
        })
    }
}

fn member_admin(
    context: &MemberContext,
    stack: &MemberStack,
    reconciler: &Arc<MembershipReconciler<Node>>,
) -> MemberAdmin<Node, PeerClient> {
    MemberAdmin::new(AdminContext {
        raft: stack.raft.clone(),
        reconciler: reconciler.clone(),
        peers: context.peers.clone(),
        bootstrap: context.bootstrap.clone(),
        lanes: context.lanes,
        clock: Arc::new(SystemClock),
        rng: Arc::new(SystemRng),
    })
}

fn client_services<M: MembershipPort>(
    context: &MemberContext,
    stack: &MemberStack,
    members: M,
) -> ClientServices<M> {
    let options = api::Options {
        max_request_bytes: context.config.max_request_bytes,
        watch_progress_interval: context.config.watch_progress_interval,
        ..api::Options::default()
    };
    ClientServices {
        node: stack.node.clone(),
        watches: stack.watches.clone(),
        members,
        calls: context.health.calls().clone(),
        connections: context.health.connections().client.clone(),
        options,
    }
}

/// Waits until this member has a leader, for [`FIRST_LEADER_TIMEOUT`] at most. Clients that connect
/// meanwhile wait in the listener's queue; without this wait, the first requests of a new cluster would
/// fail.
async fn first_leader(node: &Node) {
    let has_leader = async {
        while !node.has_leader() {
            tokio::time::sleep(FIRST_LEADER_CHECK_INTERVAL).await;
        }
    };
    if tokio::time::timeout(FIRST_LEADER_TIMEOUT, has_leader).await.is_err() {
        tracing::warn!(waited = ?FIRST_LEADER_TIMEOUT, "no leader yet: serving clients without");
    }
}

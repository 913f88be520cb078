//! A serving member: serves until shutdown, removal or a fault, and then stops its parts in order.

use std::{collections::BTreeSet, pin::Pin, sync::Arc, time::Duration};

use tokio::{net::TcpListener, time::Instant};

use super::{
    context::MemberContext, removal::mark_removed, servers::Servers, stack::MemberStack,
    tasks::BackgroundTasks,
};
use crate::{
    membership::{
        GracefulShutdown, Identity, MembershipReconciler, ShutdownKind, wait_until_removed,
    },
    node::Node,
    peer::PeerClient,
    raft::Raft,
};

/// Limit of a leadership transfer at shutdown. It takes milliseconds; one that takes longer fails.
const LEADER_TRANSFER_TIMEOUT: Duration = Duration::from_secs(2);

/// The last stage of a start (`boot.rs`): clients are served.
pub struct Serving {
    pub context: MemberContext,
    pub identity: Identity,
    pub stack: MemberStack,
    pub reconciler: Arc<MembershipReconciler<Node>>,
    pub internal_servers: Servers,
    pub client_server: Servers,
    pub tasks: BackgroundTasks,
    /// The bound client port, if shutdown was requested before clients were served.
    pub unserved_client_port: Option<TcpListener>,
}

impl Serving {
    /// Serves until shutdown, removal or a fault.
    pub async fn run<F: Future<Output = ()>>(self, shutdown: Pin<&mut F>) -> anyhow::Result<()> {
        let fault = self.context.fault.clone();
        tokio::select! {
            // A fault wins over everything. A member that cannot rely on its own state is not stopped in
            // order: the process ends as it is, and recovers at its next start.
            biased;
            reason = fault.stopped() => Err(anyhow::anyhow!("{reason}")),
            ended = self.serve_then_stop(shutdown) => ended,
        }
    }

    async fn serve_then_stop<F: Future<Output = ()>>(
        self,
        shutdown: Pin<&mut F>,
    ) -> anyhow::Result<()> {
        let raft = self.stack.raft.clone();
        let graceful = GracefulShutdown {
            bootstrap: &self.context.bootstrap,
            lanes: self.context.lanes,
            reconciler: &self.reconciler,
            raft: &raft,
            peers: &self.context.peers,
            me: &self.identity,
            grace: self.context.config.pod.as_ref().map_or(Duration::ZERO, |pod| pod.grace),
        };
        let kind = self.until_stopped(&graceful, shutdown).await?;
        self.context.health.set_stopping();
        self.client_server.drain().await;
        if let Some((ShutdownKind::Leave, deadline)) = kind {
            graceful.complete_leave(deadline).await;
        }
        if let Some((ShutdownKind::Leave | ShutdownKind::Restart, _)) = kind {
            graceful.hand_over_again().await;
        }
        self.tasks.stop().await;
        let data = self.stack.stop().await;
        self.internal_servers.drain().await;
        data.close().await;
        Ok(())
    }

    /// Serves until a shutdown has been permitted, or a recovery is ordered. Returns the kind of the
    /// shutdown and its deadline, if the member is a pod.
    ///
    /// # Errors
    /// When this member was removed.
    async fn until_stopped<F: Future<Output = ()>>(
        &self,
        graceful: &GracefulShutdown<'_, Node, PeerClient>,
        shutdown: Pin<&mut F>,
    ) -> anyhow::Result<Option<(ShutdownKind, Instant)>> {
        let MemberContext { config, peers, bootstrap, .. } = &self.context;
        let raft: &Raft = graceful.raft;
        let orchestrator = config.pod.as_ref().map(|pod| &*pod.orchestrator);
        let known = config.known_ordinals();
        let shutdown = async {
            if self.unserved_client_port.is_none() {
                shutdown.await;
            }
        };
        tokio::select! {
            () = shutdown => {
                if let Some(orchestrator) = orchestrator {
                    let deadline = graceful.deadline();
                    return Ok(Some((graceful.wait(orchestrator, deadline).await, deadline)));
                }
                if config.hands_over {
                    raft.transfer_leadership(&BTreeSet::new(), LEADER_TRANSFER_TIMEOUT).await;
                }
            }
            status = wait_until_removed(peers, &self.identity, raft, &known, orchestrator) => {
                // The process ends as it is: nothing may be answered in the member's name any more.
                return Err(mark_removed(&self.context, status).await);
            }
            () = bootstrap.recovery_ordered() => {
                tracing::warn!("recovery ordered: stopping, to continue alone at the next start");
            }
        }
        Ok(None)
    }
}

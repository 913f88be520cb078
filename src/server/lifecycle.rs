//! A serving member: serves until shutdown, removal, fencing or a fault, and then stops its parts in order.

use std::{
    collections::BTreeSet, convert::Infallible, future, pin::Pin, sync::Arc, time::Duration,
};

use tokio::net::TcpListener;

use super::{
    admin::MemberHealth,
    context::MemberContext,
    removal::{fence, mark_removed},
    servers::{DRAIN_TIMEOUT, Servers},
    stack::MemberStack,
    tasks::BackgroundTasks,
};
use crate::{
    membership::{
        GracePeriod, GracefulShutdown, Identity, MembershipReconciler, OwnSet, ShutdownKind,
        wait_until_fenced, wait_until_removed,
    },
    node::Node,
    peer::PeerClient,
    raft::Raft,
};

/// Limit for requests in flight to end, when all members stop.
const HIBERNATION_DRAIN_TIMEOUT: Duration = Duration::from_secs(1);
/// The part of the rest of the grace period that one drain may take.
const DRAIN_DIVISOR: u32 = 3;
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
        };
        let orchestrator = self.context.config.orchestrator();
        let set = orchestrator.map(|pods| OwnSet::new(pods, self.identity.ordinal));
        let stop = self.until_stopped(&graceful, set.as_ref(), shutdown).await?;
        self.context.health.set_stopping();
        self.client_server.drain(drain_limit(stop.as_ref())).await;
        if let (Some(PodStop { kind, grace }), Some(set)) = (&stop, &set) {
            if *kind == ShutdownKind::Leave {
                graceful.complete_leave(set, grace).await;
            }
            if *kind != ShutdownKind::Hibernate {
                graceful.hand_over_again(grace).await;
            }
        }
        self.tasks.stop().await;
        let data = self.stack.stop().await;
        self.internal_servers.drain(drain_limit(stop.as_ref())).await;
        data.close().await;
        Ok(())
    }

    /// Serves until a shutdown has been permitted, or a recovery is ordered. Returns the stop of a member
    /// that is a pod.
    ///
    /// # Errors
    /// When this member was removed, or fenced by the bootstrap record.
    async fn until_stopped<F: Future<Output = ()>>(
        &self,
        graceful: &GracefulShutdown<'_, Node, PeerClient>,
        set: Option<&OwnSet>,
        shutdown: Pin<&mut F>,
    ) -> anyhow::Result<Option<PodStop>> {
        let MemberContext { config, peers, bootstrap, health, .. } = &self.context;
        let raft: &Raft = graceful.raft;
        let orchestrator = set.map(OwnSet::pods);
        let known = config.known_ordinals();
        let fenced = || wait_until_fenced(&self.identity, raft, orchestrator);
        let shutdown = async {
            if self.unserved_client_port.is_none() {
                shutdown.await;
            }
        };
        tokio::select! {
            () = shutdown => {
                if let (Some(pod), Some(set)) = (&config.pod, set) {
                    let grace = config.start_grace_period(pod.grace);
                    let kind = tokio::select! {
                        kind = graceful.wait(set, &grace) => kind,
                        fenced = fenced() => return Err(fence(fenced)),
                        never = fail_readiness(health, &grace) => match never {},
                    };
                    return Ok(Some(PodStop { kind, grace }));
                }
                if config.hands_over {
                    raft.transfer_leadership(&BTreeSet::new(), LEADER_TRANSFER_TIMEOUT).await;
                }
            }
            status = wait_until_removed(peers, &self.identity, raft, &known, orchestrator) => {
                // The process ends as it is: nothing may be answered in the member's name any more.
                return Err(mark_removed(&self.context, status).await);
            }
            never = learn_permission(set) => match never {},
            fenced = fenced() => return Err(fence(fenced)),
            () = bootstrap.recovery_ordered() => {
                tracing::warn!("recovery ordered: stopping, to continue alone at the next start");
            }
        }
        Ok(None)
    }
}

/// The stop of a pod that has received SIGTERM.
struct PodStop {
    kind: ShutdownKind,
    grace: GracePeriod,
}

/// The time for requests in flight to end. A grace period that is almost over leaves less. Members that
/// hibernate stop together, so their clients have no other member to go to.
fn drain_limit(stop: Option<&PodStop>) -> Duration {
    let Some(PodStop { kind, grace }) = stop else { return DRAIN_TIMEOUT };
    let limit =
        if *kind == ShutdownKind::Hibernate { HIBERNATION_DRAIN_TIMEOUT } else { DRAIN_TIMEOUT };
    grace.deadline().share_of_rest(DRAIN_DIVISOR, limit)
}

async fn learn_permission(set: Option<&OwnSet>) -> Infallible {
    if let Some(set) = set {
        set.learn_permission().await;
    }
    future::pending().await
}

/// Lets `/readyz` fail as soon as only this withdraws the endpoints of the pod. A pod that is being deleted
/// stays ready until it may stop: where no other pod is ready, kube-proxy falls back to terminating pods
/// that serve.
async fn fail_readiness(health: &MemberHealth, grace: &GracePeriod) -> Infallible {
    grace.not_deleted().await;
    health.set_stopping();
    future::pending().await
}

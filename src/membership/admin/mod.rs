//! Membership commands of operators, on any member: `kvctl member …`, `kvctl move-leader`, and
//! `kvctl cluster recover`.
//!
//! ```text
//! contacted member ── MemberAdmin: validates, finds the leader ──▶ MembershipReconciler::handle_change
//! ```
//!
//! No command bypasses the planner. A removal is an input of the planner, which executes it with all its
//! care for majorities: hand over, one joint change, remove. The command waits for the result. So
//! commands and reconciliation cannot undo each other.
//!
//! Where the membership follows a StatefulSet, `kubectl scale` adds and removes members, and these
//! commands are refused.

mod evidence;
mod leader;
mod recover;
mod wire;

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

pub use self::evidence::describe_volume;
use super::{bootstrap::Bootstrap, member_rpc::MemberRpc, reconcile::MembershipReconciler};
use crate::{
    clock::Clock,
    lane::Lanes,
    node::{ClusterOverview, MemberChange, MembershipError, MembershipPort, NodeError, NodePort},
    proto::peer::{AddAt, change_members_request::Change},
    raft::Raft,
    rng::Rng,
    types::{ClusterId, MemberId, Ordinal},
};

const RETRY_INTERVAL: Duration = Duration::from_millis(50);
const FOLLOWS_PODS: &str = "members follow the replicas of the StatefulSet: use kubectl scale";

/// Executes membership commands on one member. Cheap to clone.
#[derive(Debug)]
pub struct MemberAdmin<N, P>(Arc<Inner<N, P>>);

#[derive(Debug)]
struct Inner<N, P> {
    context: AdminContext<N, P>,
    started: Instant,
}

/// The parts of a member that its commands use.
#[derive(Debug)]
pub struct AdminContext<N, P> {
    pub raft: Raft,
    pub reconciler: Arc<MembershipReconciler<N>>,
    pub peers: P,
    pub bootstrap: Arc<Bootstrap>,
    pub lanes: Lanes,
    pub clock: Arc<dyn Clock>,
    pub rng: Arc<dyn Rng>,
}

impl<N, P> Clone for MemberAdmin<N, P> {
    fn clone(&self) -> Self {
        MemberAdmin(self.0.clone())
    }
}

impl<N: NodePort, P: MemberRpc + 'static> MemberAdmin<N, P> {
    pub fn new(context: AdminContext<N, P>) -> MemberAdmin<N, P> {
        MemberAdmin(Arc::new(Inner { context, started: Instant::now() }))
    }

    fn context(&self) -> &AdminContext<N, P> {
        &self.0.context
    }

    fn started(&self) -> Instant {
        self.0.started
    }

    fn add(&self, peer_urls: Vec<String>) -> Result<Change, MembershipError> {
        let mut ordinals = peer_urls.iter().map(|url| self.ordinal_at(url));
        let ordinal = ordinals.next().ok_or(MembershipError::BadUrls)??;
        for other in ordinals {
            if other? != ordinal {
                return Err(MembershipError::BadUrls);
            }
        }
        let nonce = self.context().rng.next_id();
        Ok(Change::Add(AddAt { ordinal: ordinal.0, nonce, peer_urls }))
    }

    fn ordinal_at(&self, url: &str) -> Result<Ordinal, MembershipError> {
        let address = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
        let address = address.ok_or(MembershipError::BadUrls)?.trim_end_matches('/');
        self.context().peers.ordinal_at(address).map_err(|known| {
            MembershipError::Refused(format!(
                "{address} is no ordinal's address: members are dialled at {known}. Start all of \
                 them with --peers or --peer-template that name it"
            ))
        })
    }

    /// Accepts only the current URLs: members dial the addresses of their own configuration.
    async fn update(
        &self,
        member: MemberId,
        peer_urls: &[String],
    ) -> Result<MemberId, MembershipError> {
        let members = self.context().reconciler.node.members(true).await?;
        let found = members.into_iter().find(|m| m.id == member);
        let found = found.ok_or(MembershipError::NotFound)?;
        if found.peer_urls == peer_urls {
            return Ok(member);
        }
        Err(MembershipError::Refused(format!(
            "ordinal {} is dialled at {}, as --peers or --peer-template of every member says: change it \
             there, and restart them one after the other",
            found.ordinal,
            found.peer_urls.join(",")
        )))
    }

    /// Sends the change to the active leader, and waits for one: without a quorum no change completes.
    async fn send_to_leader(&self, change: Change) -> Result<MemberId, MembershipError> {
        let AdminContext { raft, reconciler, peers, .. } = self.context();
        let deadline = Instant::now() + raft.timing().request_timeout();
        let leader_deadline = Instant::now() + raft.timing().leader_wait();
        let was_member =
            matches!(change, Change::Remove(id) if raft.membership().has(MemberId(id)));
        let mut tries = 0;
        loop {
            let now = raft.active_leadership();
            let left = deadline.saturating_duration_since(Instant::now());
            let answer = match now.leader {
                None => Err(NodeError::NoLeader.into()),
                Some(_) if now.is_mine() => reconciler.change(change.clone()).await,
                Some(leader) => match peers.change_members(leader, change.clone(), left).await {
                    Ok(reply) => wire::from_wire(reply),
                    Err(e) => {
                        tracing::debug!(error = %e, "no answer from the leader");
                        Err(NodeError::LeaderChanged.into())
                    }
                },
            };
            tries += usize::from(now.leader.is_some());
            match answer {
                Err(MembershipError::NotLeader) if Instant::now() < deadline => {}
                Err(MembershipError::Node(NodeError::NoLeader))
                    if Instant::now() < leader_deadline => {}
                // The previous leader has completed the removal.
                Err(MembershipError::NotFound) if was_member && tries > 1 => {
                    return answer.or(match change {
                        Change::Remove(id) => Ok(MemberId(id)),
                        _ => Err(MembershipError::NotFound),
                    });
                }
                Err(MembershipError::NotLeader) => return Err(NodeError::Timeout.into()),
                answer => return answer,
            }
            tokio::time::sleep(RETRY_INTERVAL).await;
        }
    }
}

impl<N: NodePort, P: MemberRpc + 'static> MembershipPort for MemberAdmin<N, P> {
    async fn change(&self, change: MemberChange) -> Result<MemberId, MembershipError> {
        let moves_leader = matches!(change, MemberChange::MoveLeader(_));
        if self.context().reconciler.follows_pods() && !moves_leader {
            return Err(MembershipError::Refused(FOLLOWS_PODS.into()));
        }
        let change = match change {
            MemberChange::Add { peer_urls } => self.add(peer_urls)?,
            MemberChange::Update { member, peer_urls } => {
                return self.update(member, &peer_urls).await;
            }
            MemberChange::Remove(member) => Change::Remove(member.0),
            MemberChange::Promote(member) => Change::Promote(member.0),
            MemberChange::MoveLeader(to) => Change::MoveLeader(to.0),
        };
        self.send_to_leader(change).await
    }

    async fn recover(&self, insisted: Option<ClusterId>) -> Result<ClusterId, MembershipError> {
        self.recover_alone(insisted).await
    }

    fn overview(&self) -> ClusterOverview {
        self.context().reconciler.overview(self.context().clock.now())
    }
}

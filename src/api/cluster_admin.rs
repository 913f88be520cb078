//! `ordinal.v1.ClusterAdmin`, our own service: the cluster at a glance, and disaster recovery.

use tonic::{Request, Response, Status};

use crate::{
    node::{ClusterOverview, LeaderOverview, MemberOverview, MembershipPort},
    proto::cluster_admin::{
        self, ClusterReply, ClusterRequest, RecoverReply, RecoverRequest,
        cluster_admin_server::ClusterAdmin,
    },
    types::ClusterId,
};

#[derive(Debug)]
pub struct ClusterAdminService<M> {
    pub members: M,
}

#[tonic::async_trait]
impl<M: MembershipPort> ClusterAdmin for ClusterAdminService<M> {
    async fn cluster(&self, _: Request<ClusterRequest>) -> Result<Response<ClusterReply>, Status> {
        Ok(Response::new(self.members.overview().into()))
    }

    async fn recover(
        &self,
        request: Request<RecoverRequest>,
    ) -> Result<Response<RecoverReply>, Status> {
        let RecoverRequest { accept_data_loss, cluster_id } = request.into_inner();
        if !accept_data_loss {
            return Err(Status::invalid_argument(
                "ordinal: recovery loses all entries that only the lost volumes held; set accept_data_loss to proceed",
            ));
        }
        let cluster = self.members.recover(cluster_id.map(ClusterId)).await?;
        Ok(Response::new(RecoverReply { cluster_id: cluster.0 }))
    }
}

impl From<ClusterOverview> for ClusterReply {
    fn from(overview: ClusterOverview) -> ClusterReply {
        let saturating = |n: u128| u64::try_from(n).unwrap_or(u64::MAX);
        ClusterReply {
            cluster_id: overview.cluster.0,
            member_id: overview.answered_by.0,
            leader: overview.leader.map_or(0, |leader| leader.0),
            term: overview.term.0,
            desired: overview.desired.map(|d| cluster_admin::Desired {
                start: d.start,
                replicas: d.replicas,
                generation: d.generation,
            }),
            follows_pods: overview.follows_pods,
            members: overview.members.into_iter().map(cluster_admin::ClusterMember::from).collect(),
            leading: overview.leading.map(|LeaderOverview { waits_for, tolerates }| {
                cluster_admin::Leading { waits_for: waits_for.unwrap_or_default(), tolerates }
            }),
            answerer: Some(cluster_admin::Answerer {
                version: env!("CARGO_PKG_VERSION").into(),
                unix_ms: saturating(overview.local.now.as_millis()),
                fsync_p99_us: saturating(overview.local.fsync_p99.unwrap_or_default().as_micros()),
                volume_full: overview.local.volume_full,
            }),
        }
    }
}

impl From<MemberOverview> for cluster_admin::ClusterMember {
    fn from(member: MemberOverview) -> cluster_admin::ClusterMember {
        cluster_admin::ClusterMember {
            ordinal: member.member_ref.ordinal.0,
            member_id: member.member_ref.member.0,
            name: member.name,
            votes: member.votes,
            will_vote: member.will_vote,
            boot: member.boot,
            peer_urls: member.peer_urls,
            client_urls: member.client_urls,
            in_contact: member.in_contact,
            lag: member.lag,
        }
    }
}

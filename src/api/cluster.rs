//! Members. They come and go with the replicas of the StatefulSet, not by requests.

use tonic::{Request, Response, Status};

use super::{errors::not_implemented, header};
use crate::{
    node::{self, NodePort},
    proto::etcdserverpb::{
        Member, MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse,
        MemberPromoteRequest, MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse,
        MemberUpdateRequest, MemberUpdateResponse, cluster_server::Cluster,
    },
};

#[derive(Debug)]
pub(super) struct ClusterService<N> {
    node: N,
}

impl<N: NodePort> ClusterService<N> {
    pub(super) fn new(node: N) -> ClusterService<N> {
        ClusterService { node }
    }
}

#[tonic::async_trait]
impl<N: NodePort> Cluster for ClusterService<N> {
    async fn member_list(
        &self,
        request: Request<MemberListRequest>,
    ) -> Result<Response<MemberListResponse>, Status> {
        header::require_leader(&self.node, &request)?;
        let members = self.node.members(request.into_inner().linearizable).await?;
        Ok(Response::new(MemberListResponse {
            header: Some(header::without_revision(self.node.header())),
            members: members.into_iter().map(Member::from).collect(),
        }))
    }

    async fn member_add(
        &self,
        _: Request<MemberAddRequest>,
    ) -> Result<Response<MemberAddResponse>, Status> {
        Err(not_implemented("MemberAdd", "a member joins when it starts; add a replica"))
    }

    async fn member_remove(
        &self,
        _: Request<MemberRemoveRequest>,
    ) -> Result<Response<MemberRemoveResponse>, Status> {
        Err(not_implemented("MemberRemove", "no member can leave yet"))
    }

    async fn member_update(
        &self,
        _: Request<MemberUpdateRequest>,
    ) -> Result<Response<MemberUpdateResponse>, Status> {
        Err(not_implemented("MemberUpdate", "a member says its addresses when it starts"))
    }

    async fn member_promote(
        &self,
        _: Request<MemberPromoteRequest>,
    ) -> Result<Response<MemberPromoteResponse>, Status> {
        Err(not_implemented("MemberPromote", "a learner gets its vote once it has caught up"))
    }
}

impl From<node::Member> for Member {
    fn from(member: node::Member) -> Member {
        Member {
            id: member.id.0,
            name: member.name,
            peer_ur_ls: member.peer_urls,
            client_ur_ls: member.client_urls,
            is_learner: member.learner,
        }
    }
}

//! etcd's Cluster service. In a StatefulSet, members follow the replicas; elsewhere, these requests add
//! and remove members.

use tonic::{Request, Response, Status};

use super::header;
use crate::{
    node::{self, MemberChange, MembershipPort, NodePort},
    proto::etcdserverpb::{
        Member, MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse,
        MemberPromoteRequest, MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse,
        MemberUpdateRequest, MemberUpdateResponse, ResponseHeader, cluster_server::Cluster,
    },
    types::MemberId,
};

#[derive(Debug)]
pub struct ClusterService<N, M> {
    node: N,
    members: M,
}

impl<N: NodePort, M: MembershipPort> ClusterService<N, M> {
    pub fn new(node: N, members: M) -> ClusterService<N, M> {
        ClusterService { node, members }
    }

    fn header(&self) -> Option<ResponseHeader> {
        Some(header::without_revision(self.node.header()))
    }

    /// Applies a change. Returns the changed member, and the members afterwards.
    async fn change(&self, change: MemberChange) -> Result<(MemberId, Vec<Member>), Status> {
        let removed = match change {
            MemberChange::Remove(member) => Some(member),
            _ => None,
        };
        let member = self.members.change(change).await?;
        // After a removal, the list is a local read: this member may be the removed one, which cannot reach
        // the leader any more.
        let list = self.node.members(removed.is_none()).await?;
        let list = list.into_iter().filter(|m| Some(m.id) != removed);
        Ok((member, list.map(Member::from).collect()))
    }
}

#[tonic::async_trait]
impl<N: NodePort, M: MembershipPort> Cluster for ClusterService<N, M> {
    async fn member_list(
        &self,
        request: Request<MemberListRequest>,
    ) -> Result<Response<MemberListResponse>, Status> {
        header::require_leader(&self.node, &request)?;
        let members = self.node.members(request.into_inner().linearizable).await?;
        let members = members.into_iter().map(Member::from).collect();
        Ok(Response::new(MemberListResponse { header: self.header(), members }))
    }

    /// Adds the member as a learner, whatever `isLearner` says. The leader promotes learners that have
    /// caught up.
    async fn member_add(
        &self,
        request: Request<MemberAddRequest>,
    ) -> Result<Response<MemberAddResponse>, Status> {
        header::require_leader(&self.node, &request)?;
        let peer_urls = request.into_inner().peer_ur_ls;
        let (added, members) = self.change(MemberChange::Add { peer_urls }).await?;
        let member = members.iter().find(|m| m.id == added.0).cloned();
        Ok(Response::new(MemberAddResponse { header: self.header(), member, members }))
    }

    async fn member_remove(
        &self,
        request: Request<MemberRemoveRequest>,
    ) -> Result<Response<MemberRemoveResponse>, Status> {
        header::require_leader(&self.node, &request)?;
        let member = MemberId(request.into_inner().id);
        let (_, members) = self.change(MemberChange::Remove(member)).await?;
        Ok(Response::new(MemberRemoveResponse { header: self.header(), members }))
    }

    async fn member_update(
        &self,
        request: Request<MemberUpdateRequest>,
    ) -> Result<Response<MemberUpdateResponse>, Status> {
        header::require_leader(&self.node, &request)?;
        let MemberUpdateRequest { id, peer_ur_ls: peer_urls } = request.into_inner();
        let change = MemberChange::Update { member: MemberId(id), peer_urls };
        let (_, members) = self.change(change).await?;
        Ok(Response::new(MemberUpdateResponse { header: self.header(), members }))
    }

    async fn member_promote(
        &self,
        request: Request<MemberPromoteRequest>,
    ) -> Result<Response<MemberPromoteResponse>, Status> {
        header::require_leader(&self.node, &request)?;
        let member = MemberId(request.into_inner().id);
        let (_, members) = self.change(MemberChange::Promote(member)).await?;
        Ok(Response::new(MemberPromoteResponse { header: self.header(), members }))
    }
}

impl From<node::MemberInfo> for Member {
    fn from(member: node::MemberInfo) -> Member {
        Member {
            id: member.id.0,
            name: member.name,
            peer_ur_ls: member.peer_urls,
            client_ur_ls: member.client_urls,
            is_learner: member.learner,
        }
    }
}

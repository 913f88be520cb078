//! Requests about members and the cluster.

use super::{
    channel::maintenance_service,
    core::Client,
    error::{ClientError, RequestKind},
};
use crate::proto::{
    cluster_admin::{
        ClusterReply, ClusterRequest, RecoverReply, RecoverRequest,
        cluster_admin_client::ClusterAdminClient,
    },
    etcdserverpb::{
        MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse,
        MemberPromoteRequest, MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse,
        MemberUpdateRequest, MemberUpdateResponse, MoveLeaderRequest, MoveLeaderResponse,
        cluster_client::ClusterClient,
    },
    peer::{FoundReply, FoundRequest, peer_client::PeerClient},
};

impl Client {
    /// The members, by a linearizable read.
    pub async fn member_list(&self) -> Result<MemberListResponse, ClientError> {
        let request = MemberListRequest { linearizable: true };
        self.call(RequestKind::Read, request, async |channel, request| {
            ClusterClient::new(channel).member_list(request).await
        })
        .await
    }

    /// Adds a member with these peer URLs. etcd makes it a voter at once, unless `is_learner`.
    pub async fn member_add(
        &self,
        peer_urls: Vec<String>,
        is_learner: bool,
    ) -> Result<MemberAddResponse, ClientError> {
        let request = MemberAddRequest { peer_ur_ls: peer_urls, is_learner };
        self.call(RequestKind::Write, request, async |channel, request| {
            ClusterClient::new(channel).member_add(request).await
        })
        .await
    }

    pub async fn member_remove(&self, id: u64) -> Result<MemberRemoveResponse, ClientError> {
        let request = MemberRemoveRequest { id };
        self.call(RequestKind::Write, request, async |channel, request| {
            ClusterClient::new(channel).member_remove(request).await
        })
        .await
    }

    pub async fn member_update(
        &self,
        id: u64,
        peer_urls: Vec<String>,
    ) -> Result<MemberUpdateResponse, ClientError> {
        let request = MemberUpdateRequest { id, peer_ur_ls: peer_urls };
        self.call(RequestKind::Write, request, async |channel, request| {
            ClusterClient::new(channel).member_update(request).await
        })
        .await
    }

    pub async fn member_promote(&self, id: u64) -> Result<MemberPromoteResponse, ClientError> {
        let request = MemberPromoteRequest { id };
        self.call(RequestKind::Write, request, async |channel, request| {
            ClusterClient::new(channel).member_promote(request).await
        })
        .await
    }

    /// Transfers leadership to this member. On etcd, only the leader accepts the request.
    pub async fn move_leader(&self, to: u64) -> Result<MoveLeaderResponse, ClientError> {
        let request = MoveLeaderRequest { target_id: to };
        self.call(RequestKind::Write, request, async |channel, request| {
            maintenance_service(channel).move_leader(request).await
        })
        .await
    }

    /// Makes the answering member stop, and form a new cluster of one member at its next start. Use a
    /// client with only that member's endpoint. Not on etcd.
    ///
    /// The member refuses unless the other ordinals prove that a majority of the voters is lost.
    /// `insisted`, the present cluster's id, makes it accept without a proof.
    pub async fn recover(&self, insisted: Option<u64>) -> Result<RecoverReply, ClientError> {
        let request = RecoverRequest { accept_data_loss: true, cluster_id: insisted };
        self.call(RequestKind::Write, request, async |channel, request| {
            ClusterAdminClient::new(channel).recover(request).await
        })
        .await
    }

    /// Orders a pod that belongs to no cluster yet to found one, despite the volumes of a former cluster. Use a
    /// client with the *peer* port of that pod. Not on etcd.
    pub async fn found_despite_volumes(&self) -> Result<FoundReply, ClientError> {
        let request = FoundRequest { despite_volumes: true };
        self.call(RequestKind::Write, request, async |channel, request| {
            PeerClient::new(channel).found(request).await
        })
        .await
    }

    /// The cluster as the answering member sees it; the leader knows most. Not on etcd.
    pub async fn cluster(&self) -> Result<ClusterReply, ClientError> {
        self.call(RequestKind::Read, ClusterRequest {}, async |channel, request| {
            ClusterAdminClient::new(channel).cluster(request).await
        })
        .await
    }
}

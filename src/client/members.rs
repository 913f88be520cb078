//! Members: who they are, and commands about them.

use super::{Client, ClientError, Kind, maintenance};
use crate::proto::{
    etcdserverpb::{
        MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse,
        MemberPromoteRequest, MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse,
        MemberUpdateRequest, MemberUpdateResponse, MoveLeaderRequest, MoveLeaderResponse,
        cluster_client::ClusterClient,
    },
    own::{
        ClusterReply, ClusterRequest, RecoverReply, RecoverRequest, ordinal_client::OrdinalClient,
    },
};

impl Client {
    /// Who is a member, as the majority knows it.
    pub async fn member_list(&self) -> Result<MemberListResponse, ClientError> {
        let request = MemberListRequest { linearizable: true };
        self.call(Kind::Read, request, async |channel, request| {
            ClusterClient::new(channel).member_list(request).await
        })
        .await
    }

    /// Keeps a place for a member that is dialled there. Members of etcd make it a voter at once,
    /// unless it is to be a learner.
    pub async fn member_add(
        &self,
        peer_urls: Vec<String>,
        is_learner: bool,
    ) -> Result<MemberAddResponse, ClientError> {
        let request = MemberAddRequest { peer_ur_ls: peer_urls, is_learner };
        self.call(Kind::Write, request, async |channel, request| {
            ClusterClient::new(channel).member_add(request).await
        })
        .await
    }

    pub async fn member_remove(&self, id: u64) -> Result<MemberRemoveResponse, ClientError> {
        let request = MemberRemoveRequest { id };
        self.call(Kind::Write, request, async |channel, request| {
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
        self.call(Kind::Write, request, async |channel, request| {
            ClusterClient::new(channel).member_update(request).await
        })
        .await
    }

    pub async fn member_promote(&self, id: u64) -> Result<MemberPromoteResponse, ClientError> {
        let request = MemberPromoteRequest { id };
        self.call(Kind::Write, request, async |channel, request| {
            ClusterClient::new(channel).member_promote(request).await
        })
        .await
    }

    /// Has this member lead. A member of etcd does so only if it leads itself.
    pub async fn move_leader(&self, to: u64) -> Result<MoveLeaderResponse, ClientError> {
        let request = MoveLeaderRequest { target_id: to };
        self.call(Kind::Write, request, async |channel, request| {
            maintenance(channel).move_leader(request).await
        })
        .await
    }

    /// Orders the member that answers to stop, and to go on alone at its next start, as a new cluster.
    /// To be called on a client of that one member. Not on etcd.
    pub async fn recover(&self) -> Result<RecoverReply, ClientError> {
        let request = RecoverRequest { accept_data_loss: true };
        self.call(Kind::Write, request, async |channel, request| {
            OrdinalClient::new(channel).recover(request).await
        })
        .await
    }

    /// The cluster as the member that answers knows it; its leader knows most. Not on etcd.
    pub async fn cluster(&self) -> Result<ClusterReply, ClientError> {
        self.call(Kind::Read, ClusterRequest {}, async |channel, request| {
            OrdinalClient::new(channel).cluster(request).await
        })
        .await
    }
}

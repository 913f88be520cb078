//! Requests about leases.

use super::super::{
    channel::lease_service,
    core::Client,
    error::{ClientError, RequestKind},
};
use crate::proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseLeasesRequest, LeaseLeasesResponse,
    LeaseRevokeRequest, LeaseRevokeResponse, LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
};

impl Client {
    /// Grants a lease: keys put with it are deleted when it ends. A [`Duration`](std::time::Duration)
    /// suffices as the request. The member may grant more time than requested.
    pub async fn lease_grant(
        &self,
        request: impl Into<LeaseGrantRequest>,
    ) -> Result<LeaseGrantResponse, ClientError> {
        let rpc = async |channel, request| lease_service(channel).lease_grant(request).await;
        self.call(RequestKind::Write, request.into(), rpc).await
    }

    /// Revokes a lease and deletes its keys.
    pub async fn lease_revoke(&self, id: i64) -> Result<LeaseRevokeResponse, ClientError> {
        let rpc = async |channel, request| lease_service(channel).lease_revoke(request).await;
        self.call(RequestKind::Write, LeaseRevokeRequest { id }, rpc).await
    }

    /// The remaining time of a lease, and with `keys` its keys. A lease that does not exist has a TTL
    /// of -1.
    pub async fn lease_time_to_live(
        &self,
        id: i64,
        keys: bool,
    ) -> Result<LeaseTimeToLiveResponse, ClientError> {
        let rpc = async |channel, request| lease_service(channel).lease_time_to_live(request).await;
        self.call(RequestKind::Read, LeaseTimeToLiveRequest { id, keys }, rpc).await
    }

    /// All leases.
    pub async fn leases(&self) -> Result<LeaseLeasesResponse, ClientError> {
        let rpc = async |channel, request| lease_service(channel).lease_leases(request).await;
        self.call(RequestKind::Read, LeaseLeasesRequest {}, rpc).await
    }
}

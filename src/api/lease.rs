//! etcd's Lease service: leases, and the streams that keep them alive.

use std::pin::Pin;

use futures_util::{Stream, StreamExt, stream};
use tonic::{Request, Response, Status, Streaming};

use super::{
    errors::{self, mismatched_reply},
    header, session,
};
use crate::{
    node::{Applied, NodeError, NodePort, TimeToLive},
    proto::etcdserverpb::{
        LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
        LeaseLeasesRequest, LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse,
        LeaseStatus, LeaseTimeToLiveRequest, LeaseTimeToLiveResponse, ResponseHeader,
        lease_server::Lease,
    },
    shutdown::ShutdownSignal,
    types::{Command, LeaseId, Reply},
};

/// Renewals of one stream in flight. The stream reads the next request when the oldest is answered.
const INFLIGHT_RENEWALS_MAX: usize = 16;

#[derive(Debug)]
pub struct LeaseService<N> {
    node: N,
    shutdown: ShutdownSignal,
}

impl<N: NodePort> LeaseService<N> {
    pub fn new(node: N, shutdown: ShutdownSignal) -> LeaseService<N> {
        LeaseService { node, shutdown }
    }

    fn header(&self) -> ResponseHeader {
        let now = self.node.header();
        header::at(now, now.revision)
    }
}

type KeepAliveStream = Pin<Box<dyn Stream<Item = Result<LeaseKeepAliveResponse, Status>> + Send>>;

#[tonic::async_trait]
impl<N: NodePort> Lease for LeaseService<N> {
    async fn lease_grant(
        &self,
        request: Request<LeaseGrantRequest>,
    ) -> Result<Response<LeaseGrantResponse>, Status> {
        header::require_leader(&self.node, &request)?;
        let LeaseGrantRequest { id, ttl } = request.into_inner();

        let (id, Applied { term, reply }) = self.node.lease_grant(LeaseId(id), ttl).await?;
        let Reply::LeaseGrant { revision, ttl } = reply else {
            return Err(mismatched_reply("lease grant"));
        };
        let header = Some(header::applied(self.node.header(), term, revision));
        Ok(Response::new(LeaseGrantResponse { header, id: id.0, ttl, error: String::new() }))
    }

    async fn lease_revoke(
        &self,
        request: Request<LeaseRevokeRequest>,
    ) -> Result<Response<LeaseRevokeResponse>, Status> {
        header::require_leader(&self.node, &request)?;
        let id = LeaseId(request.into_inner().id);

        let Applied { term, reply } = self.node.propose(Command::LeaseRevoke(id)).await?;
        let Reply::LeaseRevoke { revision } = reply else {
            return Err(mismatched_reply("lease revocation"));
        };
        let header = header::applied(self.node.header(), term, revision);
        Ok(Response::new(LeaseRevokeResponse { header: Some(header) }))
    }

    type LeaseKeepAliveStream = KeepAliveStream;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Result<Response<KeepAliveStream>, Status> {
        let leader_lost = header::leader_lost(&self.node, &request)?;
        let mut shutdown = self.shutdown.clone();
        let end = async move {
            tokio::select! {
                () = shutdown.wait() => NodeError::Stopped,
                () = leader_lost => NodeError::NoLeader,
            }
        };
        let node = self.node.clone();
        let responses = request.into_inner().map(move |request| {
            let node = node.clone();
            async move {
                let request = request.map_err(errors::translate_stream_status)?;
                keep_alive(&node, request.id).await
            }
        });
        Ok(Response::new(until(end, responses.buffered(INFLIGHT_RENEWALS_MAX))))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<LeaseTimeToLiveRequest>,
    ) -> Result<Response<LeaseTimeToLiveResponse>, Status> {
        header::require_leader(&self.node, &request)?;
        let LeaseTimeToLiveRequest { id, keys } = request.into_inner();

        let found = self.node.lease_time_to_live(LeaseId(id), keys).await?;
        // As in etcd, a lease that does not exist has a remaining TTL of -1.
        let not_found = TimeToLive { remaining: -1, ..TimeToLive::default() };
        let TimeToLive { granted, remaining, keys } = found.unwrap_or(not_found);
        Ok(Response::new(LeaseTimeToLiveResponse {
            header: Some(self.header()),
            id,
            ttl: remaining,
            granted_ttl: granted,
            keys,
        }))
    }

    async fn lease_leases(
        &self,
        request: Request<LeaseLeasesRequest>,
    ) -> Result<Response<LeaseLeasesResponse>, Status> {
        header::require_leader(&self.node, &request)?;
        session::of(&self.node, &request)?.wait_until_applied(&self.node).await?;
        let leases = self.node.leases().await?;
        Ok(Response::new(LeaseLeasesResponse {
            header: Some(self.header()),
            leases: leases.into_iter().map(|id| LeaseStatus { id: id.0 }).collect(),
        }))
    }
}

async fn keep_alive<N: NodePort>(node: &N, id: i64) -> Result<LeaseKeepAliveResponse, Status> {
    // Read before the renewal: afterwards, the revision could be past the lease's deletion.
    let now = node.header();
    // As in etcd, a lease that does not exist has a TTL of 0.
    let ttl = node.lease_renew(LeaseId(id)).await?.unwrap_or(0);
    Ok(LeaseKeepAliveResponse { header: Some(header::at(now, now.revision)), id, ttl })
}

/// The responses in order, up to the first error or until `end` resolves.
fn until(
    end: impl Future<Output = NodeError> + Send + 'static,
    responses: impl Stream<Item = Result<LeaseKeepAliveResponse, Status>> + Send + 'static,
) -> KeepAliveStream {
    let state = (Box::pin(end), Box::pin(responses));
    Box::pin(stream::try_unfold(state, async |(mut end, mut responses)| {
        tokio::select! {
            biased;
            error = &mut end => Err(error.into()),
            response = responses.next() => match response {
                Some(response) => Ok(Some((response?, (end, responses)))),
                None => Ok(None),
            },
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_idle_stream_ends_with_the_reason() {
        let mut idle = until(async { NodeError::NoLeader }, stream::pending());
        let end = idle.next().await.unwrap().unwrap_err();
        assert_eq!(end.message(), "etcdserver: no leader");
        assert!(idle.next().await.is_none());
    }

    #[tokio::test]
    async fn a_stream_ended_by_its_client_ends_without_an_error() {
        let response = |id| Ok(LeaseKeepAliveResponse { header: None, id, ttl: 5 });
        let responses = stream::iter([response(7), response(8)]);
        let ids: Vec<i64> = until(std::future::pending(), responses)
            .map(|response| response.unwrap().id)
            .collect()
            .await;
        assert_eq!(ids, [7, 8]);
    }
}

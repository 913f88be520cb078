//! Leases, and the streams that keep them alive.

use std::pin::Pin;

use futures_util::{Stream, StreamExt, stream};
use tonic::{Request, Response, Status, Streaming};

use super::{errors::mismatched, header};
use crate::{
    node::{Applied, NodeError, NodePort, TimeToLive},
    proto::etcdserverpb::{
        LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
        LeaseLeasesRequest, LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse,
        LeaseStatus, LeaseTimeToLiveRequest, LeaseTimeToLiveResponse, ResponseHeader,
        lease_server::Lease,
    },
    stop::Stopping,
    types::{Command, LeaseId, Reply},
};

/// Renewals of one stream that are under way at once; the next is read when one is answered.
const PIPELINED: usize = 16;

#[derive(Debug)]
pub(super) struct LeaseService<N> {
    node: N,
    stopping: Stopping,
}

impl<N: NodePort> LeaseService<N> {
    pub(super) fn new(node: N, stopping: Stopping) -> LeaseService<N> {
        LeaseService { node, stopping }
    }

    fn header(&self) -> ResponseHeader {
        let now = self.node.header();
        header::at(now, now.revision)
    }
}

type KeptAlive = Pin<Box<dyn Stream<Item = Result<LeaseKeepAliveResponse, Status>> + Send>>;

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
            return Err(mismatched("grant of a lease"));
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
            return Err(mismatched("revocation of a lease"));
        };
        let header = header::applied(self.node.header(), term, revision);
        Ok(Response::new(LeaseRevokeResponse { header: Some(header) }))
    }

    type LeaseKeepAliveStream = KeptAlive;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Result<Response<KeptAlive>, Status> {
        let leader_lost = header::leader_lost(&self.node, &request)?;
        let mut stopping = self.stopping.clone();
        let end = async move {
            tokio::select! {
                () = stopping.wait() => NodeError::Stopped,
                () = leader_lost => NodeError::NoLeader,
            }
        };
        let node = self.node.clone();
        let answers = request.into_inner().map(move |request| {
            let node = node.clone();
            async move { keep_alive(&node, request?.id).await }
        });
        Ok(Response::new(until(end, answers.buffered(PIPELINED))))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<LeaseTimeToLiveRequest>,
    ) -> Result<Response<LeaseTimeToLiveResponse>, Status> {
        header::require_leader(&self.node, &request)?;
        let LeaseTimeToLiveRequest { id, keys } = request.into_inner();

        let found = self.node.lease_time_to_live(LeaseId(id), keys).await?;
        // In etcd's words, a lease that is not there has less than no time.
        let gone = TimeToLive { remaining: -1, ..TimeToLive::default() };
        let TimeToLive { granted, remaining, keys } = found.unwrap_or(gone);
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
        let leases = self.node.leases().await?;
        Ok(Response::new(LeaseLeasesResponse {
            header: Some(self.header()),
            leases: leases.into_iter().map(|id| LeaseStatus { id: id.0 }).collect(),
        }))
    }
}

async fn keep_alive<N: NodePort>(node: &N, id: i64) -> Result<LeaseKeepAliveResponse, Status> {
    // From before the renewal: a lease that is gone at a revision was never kept alive after it.
    let now = node.header();
    // Zero, in etcd's words, is the life of a lease that is not there.
    let ttl = node.lease_renew(LeaseId(id)).await?.unwrap_or(0);
    Ok(LeaseKeepAliveResponse { header: Some(header::at(now, now.revision)), id, ttl })
}

/// The answers in their order, up to the first that is an error, or until the stream must end.
fn until(
    end: impl Future<Output = NodeError> + Send + 'static,
    answers: impl Stream<Item = Result<LeaseKeepAliveResponse, Status>> + Send + 'static,
) -> KeptAlive {
    let state = (Box::pin(end), Box::pin(answers));
    Box::pin(stream::try_unfold(state, async |(mut end, mut answers)| {
        tokio::select! {
            biased;
            why = &mut end => Err(why.into()),
            answer = answers.next() => match answer {
                Some(answer) => Ok(Some((answer?, (end, answers)))),
                None => Ok(None),
            },
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stream_on_which_nothing_is_asked_ends_when_it_must_and_says_why() {
        let mut idle = until(async { NodeError::NoLeader }, stream::pending());
        let end = idle.next().await.unwrap().unwrap_err();
        assert_eq!(end.message(), "etcdserver: no leader");
        assert!(idle.next().await.is_none());
    }

    #[tokio::test]
    async fn a_stream_that_its_client_ends_ends_without_an_error() {
        let answer = |id| Ok(LeaseKeepAliveResponse { header: None, id, ttl: 5 });
        let answers = stream::iter([answer(7), answer(8)]);
        let ids: Vec<i64> =
            until(std::future::pending(), answers).map(|answer| answer.unwrap().id).collect().await;
        assert_eq!(ids, [7, 8]);
    }
}

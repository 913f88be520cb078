//! Renewals of leases on a stream.

use std::time::Duration;

use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::super::{
    channel::{EndpointChannel, lease_service, require_leader},
    core::Client,
    error::{ClientError, RequestKind},
};
use crate::proto::etcdserverpb::{LeaseKeepAliveRequest, LeaseKeepAliveResponse};

/// etcd's text for a lease that does not exist.
const NOT_FOUND: &str = "etcdserver: requested lease not found";

/// A stream of renewals at one member. Each request gets one response.
#[derive(Debug)]
pub struct RenewalStream {
    endpoint: String,
    requests: mpsc::Sender<LeaseKeepAliveRequest>,
    responses: Streaming<LeaseKeepAliveResponse>,
}

impl Client {
    /// Renews a lease once, for its whole TTL.
    pub async fn lease_keep_alive_once(
        &self,
        id: i64,
    ) -> Result<LeaseKeepAliveResponse, ClientError> {
        let deadline = Instant::now() + self.timeouts().command;
        Ok(self.first_renewal(id, deadline).await?.1)
    }

    /// Renews a lease once, and leaves the stream open for further renewals.
    pub(crate) async fn renewal_stream(&self, id: i64) -> Result<RenewalStream, ClientError> {
        let deadline = Instant::now() + self.timeouts().command;
        Ok(self.first_renewal(id, deadline).await?.0)
    }

    /// Renews a lease at the first endpoint that can, trying each once.
    pub(super) async fn first_renewal(
        &self,
        id: i64,
        deadline: Instant,
    ) -> Result<(RenewalStream, LeaseKeepAliveResponse), ClientError> {
        let mut unreachable = Vec::new();
        let mut failure = None;
        for endpoint in self.endpoints_from(self.preferred()) {
            match self.renew_at(endpoint, id, deadline).await {
                Ok((_, response)) if response.ttl <= 0 => return Err(not_found()),
                Ok(renewed) => return Ok(renewed),
                Err(ClientError::Unreachable(more)) => unreachable.extend(more),
                Err(error) if !error.may_try_next_endpoint(RequestKind::Read) => return Err(error),
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.unwrap_or(ClientError::Unreachable(unreachable)))
    }

    /// Opens a stream to one member, and renews the lease on it.
    pub(super) async fn renew_at(
        &self,
        endpoint: &EndpointChannel,
        id: i64,
        deadline: Instant,
    ) -> Result<(RenewalStream, LeaseKeepAliveResponse), ClientError> {
        let channel = endpoint.connect(self.timeouts().dial).await;
        let channel = channel.map_err(|error| ClientError::Unreachable(vec![error]))?;
        let endpoint = endpoint.endpoint.to_string();
        let (requests, outgoing) = mpsc::channel(1);
        requests.try_send(LeaseKeepAliveRequest { id }).expect("a new queue has room");
        let request = require_leader(ReceiverStream::new(outgoing));
        let mut service = lease_service(channel);
        let kind = RequestKind::Read;
        let responses = match timeout_at(deadline, service.lease_keep_alive(request)).await {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => return Err(ClientError::of_status(&endpoint, kind, &status)),
            Err(_) => return Err(self.timed_out(endpoint, kind)),
        };
        let mut stream = RenewalStream { endpoint, requests, responses };
        let response = stream.response(self, deadline).await?;
        Ok((stream, response))
    }
}

impl RenewalStream {
    /// Renews a lease, within the client's timeout for commands.
    pub async fn renew(&mut self, client: &Client, id: i64) -> Result<(), ClientError> {
        let deadline = Instant::now() + client.timeouts().command;
        match self.renew_by(client, id, deadline).await? {
            response if response.ttl <= 0 => Err(not_found()),
            _ => Ok(()),
        }
    }

    pub async fn renew_by(
        &mut self,
        client: &Client,
        id: i64,
        deadline: Instant,
    ) -> Result<LeaseKeepAliveResponse, ClientError> {
        // The queue has room, because at most one request is outstanding. If the stream has ended, the
        // response below is the error.
        let _ = self.requests.try_send(LeaseKeepAliveRequest { id });
        self.response(client, deadline).await
    }

    async fn response(
        &mut self,
        client: &Client,
        deadline: Instant,
    ) -> Result<LeaseKeepAliveResponse, ClientError> {
        let status = match timeout_at(deadline, self.responses.message()).await {
            Ok(Ok(Some(response))) => return Ok(response),
            Ok(Ok(None)) => Status::unavailable("the member ended the stream"),
            Ok(Err(status)) => status,
            Err(_) => return Err(client.timed_out(self.endpoint.clone(), RequestKind::Read)),
        };
        Err(ClientError::of_status(&self.endpoint, RequestKind::Read, &status))
    }
}

fn not_found() -> ClientError {
    ClientError::Refused { code: Code::NotFound, message: NOT_FOUND.into() }
}

/// A TTL as a duration, bounded so that adding it to an instant cannot overflow.
pub fn seconds(ttl: i64) -> Duration {
    /// etcd's largest TTL.
    const TTL_MAX_SECONDS: u64 = 9_000_000_000;
    Duration::from_secs(u64::try_from(ttl).unwrap_or(0).min(TTL_MAX_SECONDS))
}

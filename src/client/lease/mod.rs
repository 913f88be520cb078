//! Leases: made, renewed and ended.

mod keeper;
#[cfg(test)]
mod tests;

use std::time::Duration;

use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

pub use self::keeper::{LeaseEnd, LeaseKeeper};
use super::{Client, ClientError, Kind, Link, lease_service, needs_leader};
use crate::proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    LeaseLeasesRequest, LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse,
    LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
};

/// What a member says of a lease that does not exist.
const NOT_FOUND: &str = "etcdserver: requested lease not found";

impl Client {
    /// Makes a lease: keys that are put with it are deleted when it ends. A [`Duration`] is enough
    /// of a request; the member may grant more than it asks.
    pub async fn lease_grant(
        &self,
        request: impl Into<LeaseGrantRequest>,
    ) -> Result<LeaseGrantResponse, ClientError> {
        self.call(Kind::Write, request.into(), async |channel, request| {
            lease_service(channel).lease_grant(request).await
        })
        .await
    }

    /// Ends a lease, and deletes its keys.
    pub async fn lease_revoke(&self, id: i64) -> Result<LeaseRevokeResponse, ClientError> {
        let request = LeaseRevokeRequest { id };
        self.call(Kind::Write, request, async |channel, request| {
            lease_service(channel).lease_revoke(request).await
        })
        .await
    }

    /// How long a lease has left, and if `keys`, which keys it has. A lease that does not exist has
    /// a TTL of -1.
    pub async fn lease_time_to_live(
        &self,
        id: i64,
        keys: bool,
    ) -> Result<LeaseTimeToLiveResponse, ClientError> {
        let request = LeaseTimeToLiveRequest { id, keys };
        self.call(Kind::Read, request, async |channel, request| {
            lease_service(channel).lease_time_to_live(request).await
        })
        .await
    }

    /// All leases there are.
    pub async fn leases(&self) -> Result<LeaseLeasesResponse, ClientError> {
        self.call(Kind::Read, LeaseLeasesRequest {}, async |channel, request| {
            lease_service(channel).lease_leases(request).await
        })
        .await
    }

    /// Renews a lease once: it has its whole TTL again.
    pub async fn lease_keep_alive_once(
        &self,
        id: i64,
    ) -> Result<LeaseKeepAliveResponse, ClientError> {
        let limit = Instant::now() + self.timeouts().command;
        Ok(self.first_renewal(id, limit).await?.1)
    }

    /// Renews a lease once, and leaves the stream open for more.
    pub(crate) async fn renewal_stream(&self, id: i64) -> Result<RenewalStream, ClientError> {
        let limit = Instant::now() + self.timeouts().command;
        Ok(self.first_renewal(id, limit).await?.0)
    }

    /// Asks each endpoint once, by `limit`.
    async fn first_renewal(
        &self,
        id: i64,
        limit: Instant,
    ) -> Result<(RenewalStream, LeaseKeepAliveResponse), ClientError> {
        let mut unreachable = Vec::new();
        let mut answered = None;
        for link in self.links_from(self.preferred()) {
            match self.renew_on(link, id, limit).await {
                Ok((_, answer)) if answer.ttl <= 0 => return Err(not_found()),
                Ok(renewed) => return Ok(renewed),
                Err(ClientError::Unreachable(more)) => unreachable.extend(more),
                Err(error) if !error.another_may_answer(Kind::Read) => return Err(error),
                Err(error) => answered = Some(error),
            }
        }
        Err(answered.unwrap_or(ClientError::Unreachable(unreachable)))
    }

    /// Opens a stream to one member, and renews the lease on it.
    async fn renew_on(
        &self,
        link: &Link,
        id: i64,
        limit: Instant,
    ) -> Result<(RenewalStream, LeaseKeepAliveResponse), ClientError> {
        let channel = link.connect(self.timeouts().dial).await;
        let channel = channel.map_err(|error| ClientError::Unreachable(vec![error]))?;
        let endpoint = link.endpoint.to_string();
        let (asks, requests) = mpsc::channel(1);
        asks.try_send(LeaseKeepAliveRequest { id }).expect("a new queue has room");
        let request = needs_leader(ReceiverStream::new(requests));
        let mut service = lease_service(channel);
        let answers = match timeout_at(limit, service.lease_keep_alive(request)).await {
            Ok(Ok(answer)) => answer.into_inner(),
            Ok(Err(status)) => return Err(ClientError::of_status(&endpoint, Kind::Read, &status)),
            Err(_) => return Err(self.too_late(endpoint)),
        };
        let mut stream = RenewalStream { endpoint, asks, answers };
        let answer = stream.answer(self, limit).await?;
        Ok((stream, answer))
    }

    fn too_late(&self, endpoint: String) -> ClientError {
        ClientError::TimedOut { endpoint, timeout: self.timeouts().command, kind: Kind::Read }
    }
}

/// Renewals at one member: each request gets one answer.
#[derive(Debug)]
pub(crate) struct RenewalStream {
    endpoint: String,
    asks: mpsc::Sender<LeaseKeepAliveRequest>,
    answers: Streaming<LeaseKeepAliveResponse>,
}

impl RenewalStream {
    /// Renews a lease, within the client's time for a command.
    pub(crate) async fn renew(&mut self, client: &Client, id: i64) -> Result<(), ClientError> {
        let limit = Instant::now() + client.timeouts().command;
        match self.renew_by(client, id, limit).await? {
            answer if answer.ttl <= 0 => Err(not_found()),
            _ => Ok(()),
        }
    }

    async fn renew_by(
        &mut self,
        client: &Client,
        id: i64,
        limit: Instant,
    ) -> Result<LeaseKeepAliveResponse, ClientError> {
        // One request at a time: there is room, or the stream has ended and says so below.
        let _ = self.asks.try_send(LeaseKeepAliveRequest { id });
        self.answer(client, limit).await
    }

    async fn answer(
        &mut self,
        client: &Client,
        limit: Instant,
    ) -> Result<LeaseKeepAliveResponse, ClientError> {
        let status = match timeout_at(limit, self.answers.message()).await {
            Ok(Ok(Some(answer))) => return Ok(answer),
            Ok(Ok(None)) => Status::unavailable("the member ended the stream"),
            Ok(Err(status)) => status,
            Err(_) => return Err(client.too_late(self.endpoint.clone())),
        };
        Err(ClientError::of_status(&self.endpoint, Kind::Read, &status))
    }
}

fn not_found() -> ClientError {
    ClientError::Refused { code: Code::NotFound, message: NOT_FOUND.into() }
}

/// Of a TTL, which is never so large that time ends before it.
fn seconds(ttl: i64) -> Duration {
    /// etcd's largest TTL.
    const MOST: u64 = 9_000_000_000;
    Duration::from_secs(u64::try_from(ttl).unwrap_or(0).min(MOST))
}

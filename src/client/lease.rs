//! Leases, and their renewal in the background.

use std::time::Duration;

use tokio::{
    select,
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, sleep_until, timeout_at},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::{Client, ClientError, Kind, Link, backoff::Backoff, lease_service, needs_leader};
use crate::proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    LeaseLeasesRequest, LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse,
    LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
};

/// A lease is renewed when this part of its time is over, as etcd's clients do.
const RENEWALS_IN_TTL: u32 = 3;
/// Between two rounds through all endpoints while none renews.
const ROUND_WAIT_MAX: Duration = Duration::from_millis(500);
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

    /// Renews a lease until the keeper is dropped, and answers after the first time.
    ///
    /// # Errors
    /// If nobody renews it now.
    pub async fn lease_keep_alive(&self, id: i64) -> Result<LeaseKeeper, ClientError> {
        let sent = Instant::now();
        let (stream, answer) = self.first_renewal(id, sent + self.timeouts().command).await?;
        let until = sent + seconds(answer.ttl);
        let (tx, state) = watch::channel(State { latest: answer, until, end: None });
        let renewal = Renewal { client: self.clone(), id, sent, state: tx };
        let task = tokio::spawn(renewal.run(stream));
        Ok(LeaseKeeper { id, state, task })
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

/// Keeps one lease alive from the background, whichever members come and go. Dropping it ends the
/// renewals: the lease then ends by itself after its TTL, or at once by
/// [`lease_revoke`](Client::lease_revoke).
#[derive(Debug)]
pub struct LeaseKeeper {
    id: i64,
    state: watch::Receiver<State>,
    task: JoinHandle<()>,
}

#[derive(Debug, Clone)]
struct State {
    latest: LeaseKeepAliveResponse,
    /// Not before this the lease ends, as far as is known here.
    until: Instant,
    end: Option<LeaseEnd>,
}

/// Why a lease is not renewed any more.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LeaseEnd {
    /// There is no such lease any more, and its keys are gone.
    #[error("lease {id:016x} expired or was revoked")]
    Gone { id: i64 },
    /// No member renewed it for as long as its TTL: it may have expired, and will soon.
    #[error("lease {id:016x} could not be renewed in time: {last}")]
    NotRenewed { id: i64, last: ClientError },
    /// A member refuses to renew it.
    #[error("lease {id:016x} may not be renewed: {error}")]
    Refused { id: i64, error: ClientError },
}

impl LeaseKeeper {
    pub fn id(&self) -> i64 {
        self.id
    }

    /// The latest renewal.
    pub fn latest(&self) -> LeaseKeepAliveResponse {
        self.state.borrow().latest
    }

    /// The lease does not end before this, unless somebody revokes it: counted from when the latest
    /// renewal that was answered was sent.
    pub fn alive_until(&self) -> Instant {
        self.state.borrow().until
    }

    /// Waits for the next renewal. One that comes while nobody waits counts; of several, only the
    /// latest does.
    ///
    /// # Errors
    /// When the lease has ended: always the same.
    pub async fn renewed(&mut self) -> Result<LeaseKeepAliveResponse, LeaseEnd> {
        if let Some(end) = &self.state.borrow().end {
            return Err(end.clone());
        }
        // The task is gone without a last word only if it panicked.
        let changed = self.state.changed().await;
        let state = self.state.borrow_and_update();
        match &state.end {
            Some(end) => Err(end.clone()),
            None if changed.is_ok() => Ok(state.latest),
            None => Err(LeaseEnd::Gone { id: self.id }),
        }
    }

    /// Waits until the lease has ended, or may have.
    pub async fn ended(&mut self) -> LeaseEnd {
        loop {
            if let Err(end) = self.renewed().await {
                return end;
            }
        }
    }
}

impl Drop for LeaseKeeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The task of a keeper.
struct Renewal {
    client: Client,
    id: i64,
    /// When the latest renewal that was answered was sent.
    sent: Instant,
    state: watch::Sender<State>,
}

impl Renewal {
    async fn run(mut self, stream: RenewalStream) {
        let mut stream = Some(stream);
        let mut at = self.client.preferred();
        let end = loop {
            let ttl = seconds(self.state.borrow().latest.ttl);
            let due = self.sent + ttl / RENEWALS_IN_TTL;
            select! {
                () = sleep_until(due) => {}
                () = self.state.closed() => return,
            }
            if let Err(end) = self.renew(&mut stream, &mut at, ttl).await {
                break end;
            }
        };
        self.state.send_modify(|state| state.end = Some(end));
    }

    /// Renews at the member that did so last, and if it does not, at the others, until the lease
    /// may have ended.
    async fn renew(
        &mut self,
        stream: &mut Option<RenewalStream>,
        at: &mut usize,
        ttl: Duration,
    ) -> Result<(), LeaseEnd> {
        let (id, until) = (self.id, self.state.borrow().until);
        let patience = self.client.timeouts().command.min(ttl / RENEWALS_IN_TTL);
        let mut backoff = Backoff::up_to(ROUND_WAIT_MAX);
        let mut tried = 0;
        loop {
            let sent = Instant::now();
            let limit = (sent + patience).min(until);
            let answer = match stream {
                Some(stream) => stream.renew_by(&self.client, id, limit).await,
                None => match self.renew_at(*at, limit).await {
                    Ok((opened, answer)) => {
                        *stream = Some(opened);
                        Ok(answer)
                    }
                    Err(error) => Err(error),
                },
            };
            let error = match answer {
                Ok(answer) if answer.ttl <= 0 => return Err(LeaseEnd::Gone { id }),
                Ok(answer) => {
                    self.note(answer, sent);
                    return Ok(());
                }
                Err(error) => error,
            };
            if is_final(&error) {
                return Err(LeaseEnd::Refused { id, error });
            }
            *stream = None;
            *at += 1;
            tried += 1;
            if tried % self.client.links().len() == 0
                && timeout_at(until, backoff.wait()).await.is_err()
                || Instant::now() >= until
            {
                return Err(LeaseEnd::NotRenewed { id, last: error });
            }
        }
    }

    async fn renew_at(
        &self,
        at: usize,
        limit: Instant,
    ) -> Result<(RenewalStream, LeaseKeepAliveResponse), ClientError> {
        let links = self.client.links();
        let link = &links[at % links.len()];
        match timeout_at(limit, self.client.renew_on(link, self.id, limit)).await {
            Ok(renewed) => renewed,
            Err(_) => Err(self.client.too_late(link.endpoint.to_string())),
        }
    }

    fn note(&mut self, answer: LeaseKeepAliveResponse, sent: Instant) {
        self.sent = sent;
        let until = sent + seconds(answer.ttl);
        self.state.send_replace(State { latest: answer, until, end: None });
    }
}

/// Whether every other member would say the same.
fn is_final(error: &ClientError) -> bool {
    let ClientError::Refused { code, .. } = error else { return false };
    matches!(code, Code::PermissionDenied | Code::Unauthenticated | Code::Unimplemented)
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

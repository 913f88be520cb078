//! A client of the etcd v3 API: of `kvd`, and of etcd.
//!
//! Each endpoint has a channel of its own, dialled when it is first needed. A request goes to the
//! endpoint that answered last, at first to the first; another one is tried only if the request
//! certainly was not sent, or is a read. A write whose outcome nobody can tell is reported so
//! ([`ClientError::Lost`], [`ClientError::TimedOut`]) and never repeated behind the caller's back.
//!
//! A service that is there as long as its lease, and whoever wants to know of it:
//!
//! ```no_run
//! use std::time::Duration;
//! use ordinal::client::{Client, Compare, Keys, Put, Txn, Watch};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let endpoints = vec!["127.0.0.1:2379".parse()?, "127.0.0.1:2381".parse()?];
//! let client = Client::new(endpoints, Default::default());
//!
//! let lease = client.lease_grant(Duration::from_secs(10)).await?.id;
//! let mut keeper = client.lease_keep_alive(lease).await?;
//! let name = Txn::new()
//!     .when(Compare::version("services/web/1").equals(0))
//!     .then(Put::new("services/web/1", "10.0.0.1:80").lease(lease));
//! assert!(client.txn(name).await?.succeeded, "somebody else has the name");
//!
//! let services = client.range(Keys::prefix("services/")).await?;
//! let next = services.header.unwrap_or_default().revision + 1;
//! let mut changes = client.watch(Watch::new(Keys::prefix("services/")).from_revision(next)).await?;
//! tokio::select! {
//!     batch = changes.next() => println!("{:?}", batch?.events),
//!     end = keeper.ended() => return Err(end.into()),
//! }
//! # Ok(())
//! # }
//! ```

mod backoff;
mod endpoint;
mod error;
#[cfg(test)]
pub(crate) mod fake;
mod keys;
mod lease;
mod members;
mod requests;
#[cfg(test)]
pub(crate) mod scripted;
mod session;
#[cfg(test)]
mod tests;
mod watch;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::OnceCell,
    time::{Instant, timeout, timeout_at},
};
use tonic::{Request, Response, Status, metadata::MetadataValue, transport::Channel};

pub use endpoint::{Endpoint, EndpointError};
pub use error::{ClientError, Kind, Unreachable};
pub use keys::Keys;
pub(crate) use lease::RenewalStream;
pub use lease::{LeaseEnd, LeaseKeeper};
pub use requests::{Compare, Compared, Delete, Get, Operation, Put, Txn};
pub use session::Session;
pub(crate) use watch::WatchStream;
pub use watch::{EventBatch, Notice, Watch, WatchError, Watcher};

use crate::proto::{
    etcdserverpb::{
        AlarmRequest, AlarmResponse, CompactionRequest, CompactionResponse, DeleteRangeRequest,
        DeleteRangeResponse, HashKvRequest, HashKvResponse, PutRequest, PutResponse, RangeRequest,
        RangeResponse, ResponseHeader, StatusRequest, StatusResponse, TxnRequest, TxnResponse,
        kv_client::KvClient, lease_client::LeaseClient, maintenance_client::MaintenanceClient,
        request_op::Request as Op,
    },
    mvccpb::KeyValue,
};

/// How long to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For each connection to be made.
    pub dial: Duration,
    /// For a request to be answered, by whichever endpoint, without the time to connect.
    pub command: Duration,
}

/// etcdctl's.
impl Default for Timeouts {
    fn default() -> Self {
        Timeouts { dial: Duration::from_secs(2), command: Duration::from_secs(5) }
    }
}

/// Asks a cluster through any of its members. Cheap to make: connects when first used. A clone is
/// the same client.
#[derive(Debug, Clone)]
pub struct Client {
    inner: Arc<Inner>,
    session: Option<Session>,
}

#[derive(Debug)]
struct Inner {
    links: Vec<Link>,
    timeouts: Timeouts,
    /// The place of the endpoint to ask first.
    preferred: AtomicUsize,
}

/// One endpoint, and the channel to it once there is one.
#[derive(Debug)]
struct Link {
    endpoint: Endpoint,
    channel: OnceCell<Channel>,
}

/// A member that vanished without a word is noticed by a stream that waits for it. Members of etcd
/// hang up on whom pings them more often than every 5 s.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(6);

/// Answers may be as large as a member makes them: a range has no bound but the request's.
const ANSWER_BYTES_MAX: usize = usize::MAX;

impl Client {
    /// Endpoints are tried in this order.
    ///
    /// # Panics
    /// If there are none.
    pub fn new(endpoints: Vec<Endpoint>, timeouts: Timeouts) -> Client {
        assert!(!endpoints.is_empty(), "a client needs an endpoint");
        let link = |endpoint| Link { endpoint, channel: OnceCell::new() };
        let links = endpoints.into_iter().map(link).collect();
        let inner = Inner { links, timeouts, preferred: AtomicUsize::new(0) };
        Client { inner: Arc::new(inner), session: None }
    }

    /// The same client; what it is told of keys belongs to this session, and whom it asks of them waits
    /// for what the session has seen.
    pub fn in_session(&self, session: Session) -> Client {
        Client { inner: self.inner.clone(), session: Some(session) }
    }

    /// One key, if it is there.
    pub async fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<KeyValue>, ClientError> {
        Ok(self.range(Get::new(key)).await?.kvs.pop())
    }

    /// Reads keys: a [`Get`], or just [`Keys`].
    pub async fn range(
        &self,
        request: impl Into<RangeRequest>,
    ) -> Result<RangeResponse, ClientError> {
        let call = async |channel, request| kv(channel).range(request).await;
        let answer = self.call(Kind::Read, request.into(), call).await?;
        self.saw(answer.header.as_ref());
        Ok(answer)
    }

    /// Writes a key: a [`Put`].
    pub async fn put(&self, request: impl Into<PutRequest>) -> Result<PutResponse, ClientError> {
        let call = async |channel, request| kv(channel).put(request).await;
        let answer = self.call(Kind::Write, request.into(), call).await?;
        self.saw(answer.header.as_ref());
        Ok(answer)
    }

    /// Deletes keys: a [`Delete`], or just [`Keys`].
    pub async fn delete_range(
        &self,
        request: impl Into<DeleteRangeRequest>,
    ) -> Result<DeleteRangeResponse, ClientError> {
        let call = async |channel, request| kv(channel).delete_range(request).await;
        let answer = self.call(Kind::Write, request.into(), call).await?;
        self.saw(answer.header.as_ref());
        Ok(answer)
    }

    /// Does several requests as one: a [`Txn`]. One that only reads counts as a read.
    pub async fn txn(&self, request: impl Into<TxnRequest>) -> Result<TxnResponse, ClientError> {
        let request = request.into();
        let kind = if only_reads(&request) { Kind::Read } else { Kind::Write };
        let call = async |channel, request| kv(channel).txn(request).await;
        let answer = self.call(kind, request, call).await?;
        self.saw(answer.header.as_ref());
        Ok(answer)
    }

    pub async fn compact(
        &self,
        request: CompactionRequest,
    ) -> Result<CompactionResponse, ClientError> {
        self.call(Kind::Write, request, async |channel, request| kv(channel).compact(request).await)
            .await
    }

    /// How the member that answers is doing: ask a client of one endpoint.
    pub async fn status(&self) -> Result<StatusResponse, ClientError> {
        self.call(Kind::Read, StatusRequest {}, async |channel, request| {
            maintenance(channel).status(request).await
        })
        .await
    }

    /// A hash of what the member that answers holds at `revision`; zero: at its latest.
    pub async fn hash_kv(&self, revision: i64) -> Result<HashKvResponse, ClientError> {
        let request = HashKvRequest { revision };
        self.call(Kind::Read, request, async |channel, request| {
            maintenance(channel).hash_kv(request).await
        })
        .await
    }

    /// The alarms that are raised, on any member.
    pub async fn alarms(&self) -> Result<AlarmResponse, ClientError> {
        self.call(Kind::Read, AlarmRequest::default(), async |channel, request| {
            maintenance(channel).alarm(request).await
        })
        .await
    }

    /// Asks one endpoint after the other, as far as the module's rule allows.
    async fn call<Q: Clone, A>(
        &self,
        kind: Kind,
        request: Q,
        rpc: impl AsyncFn(Channel, Request<Q>) -> Result<Response<A>, Status>,
    ) -> Result<A, ClientError> {
        let mut unreachable = Vec::new();
        let mut answered = None;
        let mut budget = self.timeouts().command;
        let first = self.preferred();
        for (after, link) in self.links_from(first).enumerate() {
            let error = match link.connect(self.timeouts().dial).await {
                Err(error) => ClientError::Unreachable(vec![error]),
                Ok(channel) => {
                    let started = Instant::now();
                    let message = self.marked(Request::new(request.clone()));
                    match timeout_at(started + budget, rpc(channel, message)).await {
                        Ok(Ok(answer)) => {
                            self.prefer(first + after);
                            return Ok(answer.into_inner());
                        }
                        Ok(Err(status)) => {
                            budget = budget.saturating_sub(started.elapsed());
                            ClientError::of_status(&link.endpoint.to_string(), kind, &status)
                        }
                        Err(_) => ClientError::TimedOut {
                            endpoint: link.endpoint.to_string(),
                            timeout: self.timeouts().command,
                            kind,
                        },
                    }
                }
            };
            if error.is_of_endpoint() {
                self.prefer(first + after + 1);
            }
            if !error.another_may_answer(kind) {
                return Err(error);
            }
            match error {
                ClientError::Unreachable(more) => unreachable.extend(more),
                error => answered = Some(error),
            }
        }
        // Somebody who answered knows more than those who are not there.
        Err(answered.unwrap_or(ClientError::Unreachable(unreachable)))
    }

    /// With what the session has seen.
    fn marked<M>(&self, mut request: Request<M>) -> Request<M> {
        if let Some(session) = &self.session {
            session.mark(&mut request);
        }
        request
    }

    fn saw(&self, header: Option<&ResponseHeader>) {
        if let Some(session) = &self.session {
            session.saw(header);
        }
    }

    fn timeouts(&self) -> Timeouts {
        self.inner.timeouts
    }

    fn links(&self) -> &[Link] {
        &self.inner.links
    }

    /// All endpoints once, this one first.
    fn links_from(&self, first: usize) -> impl Iterator<Item = &Link> {
        let links = self.links();
        links.iter().cycle().skip(first % links.len()).take(links.len())
    }

    fn preferred(&self) -> usize {
        self.inner.preferred.load(Ordering::Relaxed)
    }

    fn prefer(&self, at: usize) {
        self.inner.preferred.store(at % self.links().len(), Ordering::Relaxed);
    }
}

impl Link {
    /// The channel to this endpoint. It connects anew by itself when the connection breaks.
    async fn connect(&self, dial: Duration) -> Result<Channel, Unreachable> {
        let connect = async || {
            Channel::builder(self.endpoint.uri())
                .connect_timeout(dial)
                .tcp_nodelay(true)
                .http2_keep_alive_interval(PING_INTERVAL)
                .keep_alive_timeout(PING_TIMEOUT)
                .connect()
                .await
        };
        let name = self.endpoint.to_string();
        // The channel's own limit covers neither the name's resolution nor the HTTP/2 greeting.
        match timeout(dial, self.channel.get_or_try_init(connect)).await {
            Ok(channel) => channel.cloned().map_err(|error| Unreachable::new(&name, &error)),
            Err(_) => Err(Unreachable::new(&name, &io::Error::from(io::ErrorKind::TimedOut))),
        }
    }
}

fn kv(channel: Channel) -> KvClient<Channel> {
    KvClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX)
}

fn maintenance(channel: Channel) -> MaintenanceClient<Channel> {
    MaintenanceClient::new(channel)
}

fn lease_service(channel: Channel) -> LeaseClient<Channel> {
    LeaseClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX)
}

/// A stream that shall end when its member has no leader: another one may have.
fn needs_leader<M>(message: M) -> Request<M> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
    request
}

fn only_reads(txn: &TxnRequest) -> bool {
    txn.success.iter().chain(&txn.failure).all(|op| match &op.request {
        Some(Op::RequestRange(_)) | None => true,
        Some(Op::RequestTxn(txn)) => only_reads(txn),
        Some(Op::RequestPut(_) | Op::RequestDeleteRange(_)) => false,
    })
}

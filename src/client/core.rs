//! The client: chooses endpoints, and sends unary requests.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, timeout_at};
use tonic::{Request, Response, Status, transport::Channel};

use super::{
    channel::{EndpointChannel, kv_service, maintenance_service},
    endpoint::Endpoint,
    error::{ClientError, RequestKind},
    requests::Get,
    session::Session,
};
use crate::proto::{
    etcdserverpb::{
        AlarmRequest, AlarmResponse, CompactionRequest, CompactionResponse, DeleteRangeRequest,
        DeleteRangeResponse, HashKvRequest, HashKvResponse, PutRequest, PutResponse, RangeRequest,
        RangeResponse, ResponseHeader, StatusRequest, StatusResponse, TxnRequest, TxnResponse,
        request_op::Request as Op,
    },
    mvccpb::KeyValue,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For one connection attempt.
    pub dial: Duration,
    /// For a response, from whichever endpoint, without the time to connect.
    pub command: Duration,
}

/// etcdctl's.
impl Default for Timeouts {
    fn default() -> Self {
        Timeouts { dial: Duration::from_secs(2), command: Duration::from_secs(5) }
    }
}

/// A client of a cluster, through any of its members. Cheap to create: it connects on first use. Clones
/// share their connections.
#[derive(Debug, Clone)]
pub struct Client {
    inner: Arc<Inner>,
    session: Option<Session>,
}

#[derive(Debug)]
struct Inner {
    endpoints: Vec<EndpointChannel>,
    timeouts: Timeouts,
    /// The position of the endpoint to try first.
    preferred: AtomicUsize,
}

impl Client {
    /// The client tries the endpoints in this order.
    ///
    /// # Panics
    /// If there are none.
    pub fn new(endpoints: Vec<Endpoint>, timeouts: Timeouts) -> Client {
        assert!(!endpoints.is_empty(), "a client needs an endpoint");
        let endpoints = endpoints.into_iter().map(EndpointChannel::new).collect();
        let inner = Inner { endpoints, timeouts, preferred: AtomicUsize::new(0) };
        Client { inner: Arc::new(inner), session: None }
    }

    /// The same client in a session. Its responses advance the session; members wait until they have
    /// applied the session's revision before they serve its requests on keys.
    pub fn in_session(&self, session: Session) -> Client {
        Client { inner: self.inner.clone(), session: Some(session) }
    }

    /// The value of a key, if the key exists.
    pub async fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<KeyValue>, ClientError> {
        Ok(self.range(Get::new(key)).await?.kvs.pop())
    }

    /// Reads keys: a [`Get`], or just [`Keys`](super::Keys).
    pub async fn range(
        &self,
        request: impl Into<RangeRequest>,
    ) -> Result<RangeResponse, ClientError> {
        let rpc = async |channel, request| kv_service(channel).range(request).await;
        let response = self.call(RequestKind::Read, request.into(), rpc).await?;
        self.observe(response.header.as_ref());
        Ok(response)
    }

    /// Writes a key: a [`Put`](super::Put).
    pub async fn put(&self, request: impl Into<PutRequest>) -> Result<PutResponse, ClientError> {
        let rpc = async |channel, request| kv_service(channel).put(request).await;
        let response = self.call(RequestKind::Write, request.into(), rpc).await?;
        self.observe(response.header.as_ref());
        Ok(response)
    }

    /// Deletes keys: a [`Delete`](super::Delete), or just [`Keys`](super::Keys).
    pub async fn delete_range(
        &self,
        request: impl Into<DeleteRangeRequest>,
    ) -> Result<DeleteRangeResponse, ClientError> {
        let rpc = async |channel, request| kv_service(channel).delete_range(request).await;
        let response = self.call(RequestKind::Write, request.into(), rpc).await?;
        self.observe(response.header.as_ref());
        Ok(response)
    }

    /// Runs a transaction: a [`Txn`](super::Txn). A transaction that only reads counts as a read.
    pub async fn txn(&self, request: impl Into<TxnRequest>) -> Result<TxnResponse, ClientError> {
        let request = request.into();
        let kind = if is_read_only(&request) { RequestKind::Read } else { RequestKind::Write };
        let rpc = async |channel, request| kv_service(channel).txn(request).await;
        let response = self.call(kind, request, rpc).await?;
        self.observe(response.header.as_ref());
        Ok(response)
    }

    pub async fn compact(
        &self,
        request: CompactionRequest,
    ) -> Result<CompactionResponse, ClientError> {
        let rpc = async |channel, request| kv_service(channel).compact(request).await;
        self.call(RequestKind::Write, request, rpc).await
    }

    /// The status of the answering member. For a certain member, use a client with its endpoint only.
    pub async fn status(&self) -> Result<StatusResponse, ClientError> {
        let rpc = async |channel, request| maintenance_service(channel).status(request).await;
        self.call(RequestKind::Read, StatusRequest {}, rpc).await
    }

    /// A hash of the answering member's keys at `revision`. Zero: at its latest revision.
    pub async fn hash_kv(&self, revision: i64) -> Result<HashKvResponse, ClientError> {
        let rpc = async |channel, request| maintenance_service(channel).hash_kv(request).await;
        self.call(RequestKind::Read, HashKvRequest { revision }, rpc).await
    }

    /// The raised alarms of all members.
    pub async fn alarms(&self) -> Result<AlarmResponse, ClientError> {
        let rpc = async |channel, request| maintenance_service(channel).alarm(request).await;
        self.call(RequestKind::Read, AlarmRequest::default(), rpc).await
    }

    /// Sends a request to one endpoint after the other, as far as the module's rule allows.
    pub(super) async fn call<Q: Clone, A>(
        &self,
        kind: RequestKind,
        request: Q,
        rpc: impl AsyncFn(Channel, Request<Q>) -> Result<Response<A>, Status>,
    ) -> Result<A, ClientError> {
        let mut unreachable = Vec::new();
        let mut failure = None;
        let mut budget = self.timeouts().command;
        let first = self.preferred();
        for (offset, endpoint) in self.endpoints_from(first).enumerate() {
            let error = match endpoint.connect(self.timeouts().dial).await {
                Err(error) => ClientError::Unreachable(vec![error]),
                Ok(channel) => {
                    let started = Instant::now();
                    let message = self.with_token(Request::new(request.clone()));
                    match timeout_at(started + budget, rpc(channel, message)).await {
                        Ok(Ok(response)) => {
                            self.prefer(first + offset);
                            return Ok(response.into_inner());
                        }
                        Ok(Err(status)) => {
                            budget = budget.saturating_sub(started.elapsed());
                            ClientError::of_status(&endpoint.endpoint.to_string(), kind, &status)
                        }
                        Err(_) => self.timed_out(endpoint.endpoint.to_string(), kind),
                    }
                }
            };
            if error.is_of_endpoint() {
                self.prefer(first + offset + 1);
            }
            if !error.may_try_next_endpoint(kind) {
                return Err(error);
            }
            match error {
                ClientError::Unreachable(more) => unreachable.extend(more),
                error => failure = Some(error),
            }
        }
        // The error of a reachable member says more than those of unreachable ones.
        Err(failure.unwrap_or(ClientError::Unreachable(unreachable)))
    }

    pub(super) fn timed_out(&self, endpoint: String, kind: RequestKind) -> ClientError {
        ClientError::TimedOut { endpoint, timeout: self.timeouts().command, kind }
    }

    /// Adds the session token, if there is a session.
    pub(super) fn with_token<M>(&self, mut request: Request<M>) -> Request<M> {
        if let Some(session) = &self.session {
            session.add_token(&mut request);
        }
        request
    }

    /// Advances the session, if there is one.
    pub(super) fn observe(&self, header: Option<&ResponseHeader>) {
        if let Some(session) = &self.session {
            session.observe(header);
        }
    }

    pub(super) fn timeouts(&self) -> Timeouts {
        self.inner.timeouts
    }

    pub(super) fn endpoints(&self) -> &[EndpointChannel] {
        &self.inner.endpoints
    }

    /// All endpoints once, starting with this position.
    pub(super) fn endpoints_from(&self, first: usize) -> impl Iterator<Item = &EndpointChannel> {
        let endpoints = self.endpoints();
        endpoints.iter().cycle().skip(first % endpoints.len()).take(endpoints.len())
    }

    pub(super) fn preferred(&self) -> usize {
        self.inner.preferred.load(Ordering::Relaxed)
    }

    fn prefer(&self, at: usize) {
        self.inner.preferred.store(at % self.endpoints().len(), Ordering::Relaxed);
    }
}

fn is_read_only(txn: &TxnRequest) -> bool {
    txn.success.iter().chain(&txn.failure).all(|op| match &op.request {
        Some(Op::RequestRange(_)) | None => true,
        Some(Op::RequestTxn(txn)) => is_read_only(txn),
        Some(Op::RequestPut(_) | Op::RequestDeleteRange(_)) => false,
    })
}

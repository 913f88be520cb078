//! A client of the etcd v3 API: of `kvd`, and of etcd.
//!
//! Each endpoint has a channel of its own, dialled when it is first needed. A request goes to the
//! first endpoint; another one is tried only if the request certainly was not sent, or is a read.
//! A write whose outcome nobody can tell is reported so ([`ClientError::Lost`],
//! [`ClientError::TimedOut`]) and never repeated behind the caller's back.
//!
//! ```no_run
//! use ordinal::{client::Client, proto::etcdserverpb::PutRequest};
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::new(vec!["127.0.0.1:2379".parse()?], Default::default());
//! client.put(PutRequest { key: "greeting".into(), value: "hello".into(), ..Default::default() }).await?;
//! # Ok(())
//! # }
//! ```

mod endpoint;
mod error;
#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;

use std::{io, time::Duration};

use tokio::{
    sync::OnceCell,
    time::{Instant, timeout, timeout_at},
};
use tonic::{Response, Status, transport::Channel};

pub use endpoint::{Endpoint, EndpointError};
pub use error::{ClientError, Kind, Unreachable};

use crate::proto::etcdserverpb::{
    AlarmRequest, AlarmResponse, CompactionRequest, CompactionResponse, DeleteRangeRequest,
    DeleteRangeResponse, HashKvRequest, HashKvResponse, MemberListRequest, MemberListResponse,
    PutRequest, PutResponse, RangeRequest, RangeResponse, StatusRequest, StatusResponse,
    TxnRequest, TxnResponse, cluster_client::ClusterClient, kv_client::KvClient,
    maintenance_client::MaintenanceClient, request_op::Request as Op,
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

/// Asks a cluster through any of its members. Cheap to make: connects when first used.
#[derive(Debug)]
pub struct Client {
    links: Vec<Link>,
    timeouts: Timeouts,
}

/// One endpoint, and the channel to it once there is one.
#[derive(Debug)]
struct Link {
    endpoint: Endpoint,
    channel: OnceCell<Channel>,
}

/// Answers may be as large as a member makes them: a range has no bound but the request's.
const ANSWER_BYTES_MAX: usize = usize::MAX;

impl Client {
    /// Endpoints are tried in this order.
    pub fn new(endpoints: Vec<Endpoint>, timeouts: Timeouts) -> Client {
        let link = |endpoint| Link { endpoint, channel: OnceCell::new() };
        Client { links: endpoints.into_iter().map(link).collect(), timeouts }
    }

    pub async fn range(&self, request: RangeRequest) -> Result<RangeResponse, ClientError> {
        self.call(Kind::Read, request, async |channel, request| kv(channel).range(request).await)
            .await
    }

    pub async fn put(&self, request: PutRequest) -> Result<PutResponse, ClientError> {
        self.call(Kind::Write, request, async |channel, request| kv(channel).put(request).await)
            .await
    }

    pub async fn delete_range(
        &self,
        request: DeleteRangeRequest,
    ) -> Result<DeleteRangeResponse, ClientError> {
        self.call(Kind::Write, request, async |channel, request| {
            kv(channel).delete_range(request).await
        })
        .await
    }

    /// A transaction that only reads counts as a read.
    pub async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, ClientError> {
        let kind = if only_reads(&request) { Kind::Read } else { Kind::Write };
        self.call(kind, request, async |channel, request| kv(channel).txn(request).await).await
    }

    pub async fn compact(
        &self,
        request: CompactionRequest,
    ) -> Result<CompactionResponse, ClientError> {
        self.call(Kind::Write, request, async |channel, request| kv(channel).compact(request).await)
            .await
    }

    /// Who is a member, as the majority knows it.
    pub async fn member_list(&self) -> Result<MemberListResponse, ClientError> {
        let request = MemberListRequest { linearizable: true };
        self.call(Kind::Read, request, async |channel, request| {
            ClusterClient::new(channel).member_list(request).await
        })
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
        rpc: impl AsyncFn(Channel, Q) -> Result<Response<A>, Status>,
    ) -> Result<A, ClientError> {
        let mut unreachable = Vec::new();
        let mut answered = None;
        let mut budget = self.timeouts.command;
        for link in &self.links {
            let error = match link.connect(self.timeouts.dial).await {
                Err(error) => ClientError::Unreachable(vec![error]),
                Ok(channel) => {
                    let started = Instant::now();
                    match timeout_at(started + budget, rpc(channel, request.clone())).await {
                        Ok(Ok(answer)) => return Ok(answer.into_inner()),
                        Ok(Err(status)) => {
                            budget = budget.saturating_sub(started.elapsed());
                            ClientError::of_status(&link.endpoint.to_string(), kind, &status)
                        }
                        Err(_) => ClientError::TimedOut {
                            endpoint: link.endpoint.to_string(),
                            timeout: self.timeouts.command,
                            kind,
                        },
                    }
                }
            };
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
}

impl Link {
    /// The channel to this endpoint. It connects anew by itself when the connection breaks.
    async fn connect(&self, dial: Duration) -> Result<Channel, Unreachable> {
        let connect = async || {
            Channel::builder(self.endpoint.uri())
                .connect_timeout(dial)
                .tcp_nodelay(true)
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

fn only_reads(txn: &TxnRequest) -> bool {
    txn.success.iter().chain(&txn.failure).all(|op| match &op.request {
        Some(Op::RequestRange(_)) | None => true,
        Some(Op::RequestTxn(txn)) => only_reads(txn),
        Some(Op::RequestPut(_) | Op::RequestDeleteRange(_)) => false,
    })
}

//! A member for tests that says on its streams exactly what the test has written down, stream by
//! stream, and tells what it was asked.

use std::{collections::VecDeque, net::SocketAddr, pin::Pin, sync::Arc};

use futures_util::{Stream, StreamExt as _, stream};
use tokio::{
    net::TcpListener,
    sync::{Mutex, mpsc},
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, Streaming, transport::Server};

use super::Endpoint;
use crate::proto::{
    etcdserverpb::{
        LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
        LeaseLeasesRequest, LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse,
        LeaseStatus, LeaseTimeToLiveRequest, LeaseTimeToLiveResponse, ResponseHeader, WatchRequest,
        WatchResponse,
        lease_server::{Lease, LeaseServer},
        watch_request::RequestUnion,
        watch_server::{Watch, WatchServer},
    },
    mvccpb::{Event, KeyValue, event::EventType},
};

/// What a stream says: renewals one for each request, all of a watch after the first. Then it ends
/// so.
#[derive(Debug, Clone)]
pub(crate) struct Script<A> {
    pub(crate) says: Vec<A>,
    pub(crate) then: Then,
}

/// How a stream goes on once all is said.
#[derive(Debug, Clone)]
pub(crate) enum Then {
    Fail(Status),
    /// Open, and silent.
    Wait,
}

#[derive(Debug, Default)]
struct Scripts {
    watch: VecDeque<Script<WatchResponse>>,
    keep_alive: VecDeque<Script<LeaseKeepAliveResponse>>,
}

/// A running member. A stream that nobody has written down is refused as by a member without a
/// leader.
#[derive(Debug)]
pub(crate) struct ScriptedServer {
    scripts: Arc<Mutex<Scripts>>,
    pub(crate) address: SocketAddr,
    /// All that was asked on streams, in order.
    pub(crate) asked: mpsc::UnboundedReceiver<Asked>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Asked {
    Watch(RequestUnion),
    KeepAlive(i64),
}

#[derive(Debug, Clone)]
struct Service {
    scripts: Arc<Mutex<Scripts>>,
    asked: mpsc::UnboundedSender<Asked>,
}

impl ScriptedServer {
    pub(crate) async fn watches(watch: Vec<Script<WatchResponse>>) -> ScriptedServer {
        Self::start(Scripts { watch: watch.into(), ..Scripts::default() }).await
    }

    pub(crate) async fn renews(keep_alive: Vec<Script<LeaseKeepAliveResponse>>) -> ScriptedServer {
        Self::start(Scripts { keep_alive: keep_alive.into(), ..Scripts::default() }).await
    }

    async fn start(scripts: Scripts) -> ScriptedServer {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        // As many as a test asks.
        let (asks, asked) = mpsc::unbounded_channel();
        let scripts = Arc::new(Mutex::new(scripts));
        let service = Service { scripts: scripts.clone(), asked: asks };
        let server = Server::builder()
            .add_service(WatchServer::new(service.clone()))
            .add_service(LeaseServer::new(service));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        ScriptedServer { scripts, address, asked }
    }

    pub(crate) async fn watch(&self, script: Script<WatchResponse>) {
        self.scripts.lock().await.watch.push_back(script);
    }

    pub(crate) async fn renew(&self, script: Script<LeaseKeepAliveResponse>) {
        self.scripts.lock().await.keep_alive.push_back(script);
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        self.address.to_string().parse().unwrap()
    }

    /// From which revision the next watch was asked for.
    pub(crate) async fn asked_from(&mut self) -> i64 {
        match self.asked.recv().await {
            Some(Asked::Watch(RequestUnion::CreateRequest(create))) => create.start_revision,
            other => panic!("no watch but {other:?}"),
        }
    }
}

type Answers<A> = Pin<Box<dyn Stream<Item = Result<A, Status>> + Send>>;

impl Service {
    /// With `each`, every answer waits for a request; without, only the first.
    fn play<Q: Send + 'static, A: Send + 'static>(
        &self,
        script: Option<Script<A>>,
        requests: Streaming<Q>,
        each: bool,
        note: impl Fn(Q) -> Asked + Send + Sync + 'static,
    ) -> Result<Response<Answers<A>>, Status> {
        let Some(script) = script else { return Err(Status::unavailable("etcdserver: no leader")) };
        let asked = self.asked.clone();
        let count = script.says.len();
        let (heard, hears) = mpsc::unbounded_channel();
        tokio::spawn(requests.for_each(move |request| {
            if let Ok(request) = request {
                // A test that has seen enough does not listen any more.
                let _ = asked.send(note(request));
                let _ = heard.send(());
            }
            std::future::ready(())
        }));
        let says =
            stream::unfold((script.says.into_iter(), hears), move |(mut says, mut hears)| {
                let wait = if each { says.len() } else { usize::from(says.len() == count) };
                async move {
                    if wait > 0 {
                        hears.recv().await;
                    }
                    says.next().map(|answer| (Ok(answer), (says, hears)))
                }
            });
        let end = stream::once(async {
            match script.then {
                Then::Fail(status) => Err(status),
                Then::Wait => std::future::pending().await,
            }
        });
        Ok(Response::new(Box::pin(says.chain(end))))
    }
}

#[tonic::async_trait]
impl Watch for Service {
    type WatchStream = Answers<WatchResponse>;

    async fn watch(
        &self,
        request: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        assert_eq!(request.metadata().get("hasleader").unwrap(), "true");
        let script = self.scripts.lock().await.watch.pop_front();
        self.play(script, request.into_inner(), false, |request| {
            Asked::Watch(request.request_union.unwrap())
        })
    }
}

#[tonic::async_trait]
impl Lease for Service {
    type LeaseKeepAliveStream = Answers<LeaseKeepAliveResponse>;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let script = self.scripts.lock().await.keep_alive.pop_front();
        self.play(script, request.into_inner(), true, |request| Asked::KeepAlive(request.id))
    }

    async fn lease_grant(
        &self,
        request: Request<LeaseGrantRequest>,
    ) -> Result<Response<LeaseGrantResponse>, Status> {
        let LeaseGrantRequest { id, ttl } = request.into_inner();
        let id = if id == 0 { LEASE } else { id };
        match ttl {
            ..=0 => Err(Status::invalid_argument("etcdserver: lease TTL out of range")),
            ttl => Ok(Response::new(LeaseGrantResponse {
                header: header(7),
                id,
                ttl,
                error: String::new(),
            })),
        }
    }

    async fn lease_revoke(
        &self,
        request: Request<LeaseRevokeRequest>,
    ) -> Result<Response<LeaseRevokeResponse>, Status> {
        match request.into_inner().id {
            LEASE => Ok(Response::new(LeaseRevokeResponse { header: header(8) })),
            _ => Err(Status::not_found("etcdserver: requested lease not found")),
        }
    }

    async fn lease_time_to_live(
        &self,
        request: Request<LeaseTimeToLiveRequest>,
    ) -> Result<Response<LeaseTimeToLiveResponse>, Status> {
        let LeaseTimeToLiveRequest { id, keys } = request.into_inner();
        let header = header(7);
        Ok(Response::new(if id == LEASE {
            let keys = if keys { vec!["a".into(), "b".into()] } else { vec![] };
            LeaseTimeToLiveResponse { header, id, ttl: 42, granted_ttl: 60, keys }
        } else {
            LeaseTimeToLiveResponse { header, id, ttl: -1, ..Default::default() }
        }))
    }

    async fn lease_leases(
        &self,
        _: Request<LeaseLeasesRequest>,
    ) -> Result<Response<LeaseLeasesResponse>, Status> {
        let leases = vec![LeaseStatus { id: LEASE }, LeaseStatus { id: 0xb }];
        Ok(Response::new(LeaseLeasesResponse { header: header(7), leases }))
    }
}

/// The lease that there is.
pub(crate) const LEASE: i64 = 0x694d_77aa_9e38_260f;

pub(crate) fn header(revision: i64) -> Option<ResponseHeader> {
    Some(ResponseHeader { cluster_id: 0xc1, member_id: 0xa1, revision, raft_term: 2 })
}

pub(crate) fn created(revision: i64) -> WatchResponse {
    WatchResponse { header: header(revision), created: true, ..WatchResponse::default() }
}

/// A put at each of these revisions.
pub(crate) fn events(revisions: &[i64]) -> WatchResponse {
    let event = |&mod_revision| Event {
        r#type: EventType::Put.into(),
        kv: Some(KeyValue {
            key: "k".into(),
            value: format!("v{mod_revision}").into(),
            create_revision: 2,
            mod_revision,
            version: mod_revision - 1,
            lease: 0,
        }),
        prev_kv: None,
    };
    WatchResponse {
        header: header(revisions.last().copied().unwrap_or_default()),
        events: revisions.iter().map(event).collect(),
        ..WatchResponse::default()
    }
}

pub(crate) fn progress(revision: i64) -> WatchResponse {
    WatchResponse { header: header(revision), ..WatchResponse::default() }
}

pub(crate) fn compacted(compact_revision: i64) -> WatchResponse {
    WatchResponse {
        header: header(compact_revision),
        canceled: true,
        compact_revision,
        ..WatchResponse::default()
    }
}

pub(crate) fn says<A>(says: impl Into<Vec<A>>, then: Then) -> Script<A> {
    Script { says: says.into(), then }
}

pub(crate) fn no_leader() -> Then {
    Then::Fail(Status::unavailable("etcdserver: no leader"))
}

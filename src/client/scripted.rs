//! A member for tests: plays a script on each stream, and records the requests.

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

/// The responses of a stream, and its ending. A renewal stream sends one response for each request, a watch
/// stream all of them after the first request.
#[derive(Debug, Clone)]
pub(crate) struct Script<A> {
    pub(crate) responses: Vec<A>,
    pub(crate) ending: Ending,
}

/// What happens on a stream after its last response.
#[derive(Debug, Clone)]
pub(crate) enum Ending {
    Fail(Status),
    /// The stream stays open, without further responses.
    StayOpen,
}

#[derive(Debug, Default)]
struct Scripts {
    watch: VecDeque<Script<WatchResponse>>,
    keep_alive: VecDeque<Script<LeaseKeepAliveResponse>>,
}

/// A running member. A stream without a script fails as on a member without a leader.
#[derive(Debug)]
pub(crate) struct ScriptedServer {
    scripts: Arc<Mutex<Scripts>>,
    pub(crate) address: SocketAddr,
    /// The requests on all streams, in order.
    pub(crate) received: mpsc::UnboundedReceiver<Received>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Received {
    Watch(RequestUnion),
    KeepAlive(i64),
}

#[derive(Debug, Clone)]
struct Service {
    scripts: Arc<Mutex<Scripts>>,
    received: mpsc::UnboundedSender<Received>,
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
        // Bounded by the requests of a test.
        let (sender, received) = mpsc::unbounded_channel();
        let scripts = Arc::new(Mutex::new(scripts));
        let service = Service { scripts: scripts.clone(), received: sender };
        let server = Server::builder()
            .add_service(WatchServer::new(service.clone()))
            .add_service(LeaseServer::new(service));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        ScriptedServer { scripts, address, received }
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

    /// The start revision of the next requested watch.
    pub(crate) async fn received_start_revision(&mut self) -> i64 {
        match self.received.recv().await {
            Some(Received::Watch(RequestUnion::CreateRequest(create))) => create.start_revision,
            other => panic!("no watch but {other:?}"),
        }
    }
}

type Responses<A> = Pin<Box<dyn Stream<Item = Result<A, Status>> + Send>>;

impl Service {
    /// With `each`, every response waits for a request; otherwise only the first.
    fn play<Q: Send + 'static, A: Send + 'static>(
        &self,
        script: Option<Script<A>>,
        requests: Streaming<Q>,
        each: bool,
        record: impl Fn(Q) -> Received + Send + Sync + 'static,
    ) -> Result<Response<Responses<A>>, Status> {
        let Some(script) = script else { return Err(Status::unavailable("etcdserver: no leader")) };
        let received = self.received.clone();
        let count = script.responses.len();
        let (notify, notified) = mpsc::unbounded_channel();
        tokio::spawn(requests.for_each(move |request| {
            if let Ok(request) = request {
                // Fails only if the test has dropped the server.
                let _ = received.send(record(request));
                let _ = notify.send(());
            }
            std::future::ready(())
        }));
        let state = (script.responses.into_iter(), notified);
        let responses = stream::unfold(state, move |(mut responses, mut notified)| {
            let wait = if each { responses.len() } else { usize::from(responses.len() == count) };
            async move {
                if wait > 0 {
                    notified.recv().await;
                }
                responses.next().map(|response| (Ok(response), (responses, notified)))
            }
        });
        let end = stream::once(async {
            match script.ending {
                Ending::Fail(status) => Err(status),
                Ending::StayOpen => std::future::pending().await,
            }
        });
        Ok(Response::new(Box::pin(responses.chain(end))))
    }
}

#[tonic::async_trait]
impl Watch for Service {
    type WatchStream = Responses<WatchResponse>;

    async fn watch(
        &self,
        request: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        assert_eq!(request.metadata().get("hasleader").unwrap(), "true");
        let script = self.scripts.lock().await.watch.pop_front();
        self.play(script, request.into_inner(), false, |request| {
            Received::Watch(request.request_union.unwrap())
        })
    }
}

#[tonic::async_trait]
impl Lease for Service {
    type LeaseKeepAliveStream = Responses<LeaseKeepAliveResponse>;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let script = self.scripts.lock().await.keep_alive.pop_front();
        self.play(script, request.into_inner(), true, |request| Received::KeepAlive(request.id))
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

/// The only lease that exists.
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

pub(crate) fn script<A>(responses: impl Into<Vec<A>>, ending: Ending) -> Script<A> {
    Script { responses: responses.into(), ending }
}

pub(crate) fn no_leader() -> Ending {
    Ending::Fail(Status::unavailable("etcdserver: no leader"))
}

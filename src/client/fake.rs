//! A small server for tests: etcd's KV service over a map, with no history, on a free port.
//! It can also refuse all requests, or never respond.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

use super::Endpoint;
use crate::proto::{
    etcdserverpb::{
        CompactionRequest, CompactionResponse, Compare, DeleteRangeRequest, DeleteRangeResponse,
        PutRequest, PutResponse, RangeRequest, RangeResponse, RangeStreamResponse, RequestOp,
        ResponseHeader, ResponseOp, TxnRequest, TxnResponse,
        compare::{CompareResult, TargetUnion},
        kv_server::{Kv, KvServer},
        range_request::SortOrder,
        request_op::Request as Ask,
        response_op::Response as Answer,
    },
    mvccpb::KeyValue,
};

/// A running fake. It ends with the runtime it was started on.
#[derive(Debug)]
pub(crate) struct FakeServer {
    pub(crate) address: SocketAddr,
    calls: Arc<AtomicUsize>,
}

/// The reaction to every request.
#[derive(Debug, Clone)]
pub(crate) enum Behavior {
    Serve,
    Refuse(Status),
    /// Never responds.
    Hang,
}

impl FakeServer {
    pub(crate) async fn start(behavior: Behavior) -> FakeServer {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let calls = Arc::new(AtomicUsize::new(0));
        let service = FakeKv { behavior, calls: calls.clone(), store: Mutex::default() };
        let server = Server::builder().add_service(KvServer::new(service));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        FakeServer { address, calls }
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        self.address.to_string().parse().unwrap()
    }

    /// The number of requests.
    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

struct FakeKv {
    behavior: Behavior,
    calls: Arc<AtomicUsize>,
    store: Mutex<Store>,
}

#[derive(Default)]
struct Store {
    keys: BTreeMap<Vec<u8>, KeyValue>,
    /// The revision minus one: an empty store is at revision 1.
    writes: i64,
}

impl FakeKv {
    async fn serve<T>(
        &self,
        operation: impl FnOnce(&mut Store) -> T,
    ) -> Result<Response<T>, Status> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        match &self.behavior {
            Behavior::Serve => {}
            Behavior::Refuse(status) => return Err(status.clone()),
            Behavior::Hang => std::future::pending().await,
        }
        let mut store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Response::new(operation(&mut store)))
    }
}

#[tonic::async_trait]
impl Kv for FakeKv {
    async fn range(&self, r: Request<RangeRequest>) -> Result<Response<RangeResponse>, Status> {
        self.serve(|store| store.range(r.into_inner())).await
    }

    type RangeStreamStream = tokio_stream::Empty<Result<RangeStreamResponse, Status>>;

    async fn range_stream(
        &self,
        _: Request<RangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        Err(Status::unimplemented("no streams in the fake"))
    }

    async fn put(&self, r: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        self.serve(|store| {
            store.writes += 1;
            store.put(r.into_inner())
        })
        .await
    }

    async fn delete_range(
        &self,
        r: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        self.serve(|store| {
            store.writes += 1;
            store.delete_range(r.into_inner())
        })
        .await
    }

    async fn txn(&self, r: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        self.serve(|store| store.txn(r.into_inner())).await
    }

    async fn compact(
        &self,
        _: Request<CompactionRequest>,
    ) -> Result<Response<CompactionResponse>, Status> {
        self.serve(|store| CompactionResponse { header: store.header() }).await
    }
}

impl Store {
    fn header(&self) -> Option<ResponseHeader> {
        let revision = self.writes + 1;
        Some(ResponseHeader { cluster_id: 0xc1, member_id: 0xa1, revision, raft_term: 2 })
    }

    fn matching(&self, key: &[u8], end: &[u8]) -> Vec<KeyValue> {
        let within = |k: &[u8]| match end {
            b"" => k == key,
            b"\0" => k >= key,
            end => k >= key && k < end,
        };
        self.keys.values().filter(|kv| within(&kv.key)).cloned().collect()
    }

    fn range(&self, r: RangeRequest) -> RangeResponse {
        let mut kvs = self.matching(&r.key, &r.range_end);
        if r.sort_order() == SortOrder::Descend {
            kvs.reverse();
        }
        let count = kvs.len();
        let limit = if r.limit > 0 { r.limit as usize } else { usize::MAX };
        kvs.truncate(if r.count_only { 0 } else { limit });
        if r.keys_only {
            kvs.iter_mut().for_each(|kv| kv.value.clear());
        }
        let more = count > limit;
        RangeResponse { header: self.header(), kvs, more, count: count as i64 }
    }

    fn put(&mut self, r: PutRequest) -> PutResponse {
        let prev = self.keys.get(&r.key[..]).cloned();
        let mod_revision = self.writes + 1;
        let kv = KeyValue {
            key: r.key.clone(),
            value: r.value,
            create_revision: prev.as_ref().map_or(mod_revision, |kv| kv.create_revision),
            mod_revision,
            version: prev.as_ref().map_or(0, |kv| kv.version) + 1,
            lease: r.lease,
        };
        self.keys.insert(r.key.to_vec(), kv);
        PutResponse { header: self.header(), prev_kv: prev.filter(|_| r.prev_kv) }
    }

    fn delete_range(&mut self, r: DeleteRangeRequest) -> DeleteRangeResponse {
        let mut prev_kvs = self.matching(&r.key, &r.range_end);
        for kv in &prev_kvs {
            self.keys.remove(&kv.key[..]);
        }
        let deleted = prev_kvs.len() as i64;
        if !r.prev_kv {
            prev_kvs.clear();
        }
        DeleteRangeResponse { header: self.header(), deleted, prev_kvs }
    }

    fn txn(&mut self, r: TxnRequest) -> TxnResponse {
        let succeeded = r.compare.iter().all(|compare| self.holds(compare));
        self.writes += 1;
        let ops = if succeeded { r.success } else { r.failure };
        let responses = ops.into_iter().map(|op| self.operation(op)).collect();
        TxnResponse { header: self.header(), succeeded, responses }
    }

    fn operation(&mut self, op: RequestOp) -> ResponseOp {
        let of = Some(ResponseHeader { revision: self.writes + 1, ..Default::default() });
        let response = op.request.map(|request| match request {
            Ask::RequestRange(r) => {
                Answer::ResponseRange(RangeResponse { header: of, ..self.range(r) })
            }
            Ask::RequestPut(r) => Answer::ResponsePut(PutResponse { header: of, ..self.put(r) }),
            Ask::RequestDeleteRange(r) => Answer::ResponseDeleteRange(DeleteRangeResponse {
                header: of,
                ..self.delete_range(r)
            }),
            Ask::RequestTxn(r) => Answer::ResponseTxn(self.txn(r)),
        });
        ResponseOp { response }
    }

    fn holds(&self, compare: &Compare) -> bool {
        let kv = self.keys.get(&compare.key[..]);
        let zero = KeyValue::default();
        let is = kv.unwrap_or(&zero);
        let order = match compare.target_union.as_ref().expect("kvctl always sets the target") {
            TargetUnion::Version(n) => is.version.cmp(n),
            TargetUnion::CreateRevision(n) => is.create_revision.cmp(n),
            TargetUnion::ModRevision(n) => is.mod_revision.cmp(n),
            TargetUnion::Lease(n) => is.lease.cmp(n),
            TargetUnion::Value(_) if kv.is_none() => return false,
            TargetUnion::Value(value) => is.value.cmp(value),
        };
        match compare.result() {
            CompareResult::Equal => order.is_eq(),
            CompareResult::NotEqual => order.is_ne(),
            CompareResult::Greater => order.is_gt(),
            CompareResult::Less => order.is_lt(),
        }
    }
}

//! etcd's KV service.

use tonic::{Request, Response, Status};

use super::{
    errors::mismatched_reply,
    header,
    options::Options,
    overlap,
    range_stream::{self, Chunks},
    session, validate,
};
use crate::{
    node::{Applied, NodePort, RangeResult},
    proto::{
        convert::response,
        etcdserverpb::{
            CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse,
            PutRequest, PutResponse, RangeRequest, RangeResponse, RequestOp, TxnRequest,
            TxnResponse, kv_server::Kv, request_op,
        },
    },
    types::{Command, Range, Reply, Revision, Txn},
};

#[derive(Debug)]
pub struct KvService<N> {
    node: N,
    options: Options,
}

impl<N: NodePort> KvService<N> {
    pub fn new(node: N, options: Options) -> KvService<N> {
        KvService { node, options }
    }

    async fn read_txn(
        &self,
        txn: Txn,
        serializable: bool,
    ) -> Result<Response<TxnResponse>, Status> {
        let (revision, reply) = self.node.read_txn(txn, serializable).await?;
        let header = header::at(self.node.header(), revision);
        Ok(Response::new(response::txn(header, reply)))
    }
}

#[tonic::async_trait]
impl<N: NodePort> Kv for KvService<N> {
    async fn range(
        &self,
        request: Request<RangeRequest>,
    ) -> Result<Response<RangeResponse>, Status> {
        header::require_leader(&self.node, &request)?;
        let session = session::of(&self.node, &request)?;
        let request = request.into_inner();
        validate::range(&request)?;

        let serializable = request.serializable;
        if serializable {
            session.wait_until_applied(&self.node).await?;
        }
        let RangeResult { revision, reply } =
            self.node.range(Range::try_from(request)?, serializable).await?;
        let header = header::at(self.node.header(), revision);
        Ok(Response::new(response::range(header, reply)))
    }

    type RangeStreamStream = Chunks;

    async fn range_stream(
        &self,
        request: Request<RangeRequest>,
    ) -> Result<Response<Chunks>, Status> {
        header::require_leader(&self.node, &request)?;
        let session = session::of(&self.node, &request)?;
        let request = request.into_inner();
        validate::range_stream(&request)?;

        let serializable = request.serializable;
        if serializable {
            session.wait_until_applied(&self.node).await?;
        }
        let range = Range::try_from(request)?;
        let chunk_bytes = self.options.max_request_bytes;
        let node = self.node.clone();
        Ok(Response::new(range_stream::open(node, range, serializable, chunk_bytes).await?))
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        header::require_leader(&self.node, &request)?;
        session::of(&self.node, &request)?;
        let request = request.into_inner();
        validate::put(&request)?;
        validate::size(&request, self.options.max_request_bytes)?;

        let Applied { term, reply } = self.node.propose(Command::Put(request.into())).await?;
        let Reply::Put { revision, reply } = reply else {
            return Err(mismatched_reply("put"));
        };
        let header = header::applied(self.node.header(), term, revision);
        Ok(Response::new(response::put(header, reply)))
    }

    async fn delete_range(
        &self,
        request: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        header::require_leader(&self.node, &request)?;
        session::of(&self.node, &request)?;
        let request = request.into_inner();
        validate::delete_range(&request)?;
        validate::size(&request, self.options.max_request_bytes)?;

        let Applied { term, reply } =
            self.node.propose(Command::DeleteRange(request.into())).await?;
        let Reply::DeleteRange { revision, reply } = reply else {
            return Err(mismatched_reply("range deletion"));
        };
        let header = header::applied(self.node.header(), term, revision);
        Ok(Response::new(response::delete_range(header, reply)))
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        header::require_leader(&self.node, &request)?;
        let session = session::of(&self.node, &request)?;
        let request = request.into_inner();
        validate::txn(&request, self.options.max_txn_ops)?;
        overlap::check(&request)?;
        if is_read_only(&request) {
            let serializable = is_serializable(&request);
            if serializable {
                session.wait_until_applied(&self.node).await?;
            }
            return self.read_txn(Txn::try_from(request)?, serializable).await;
        }
        validate::size(&request, self.options.max_request_bytes)?;

        let Applied { term, reply } =
            self.node.propose(Command::Txn(Txn::try_from(request)?)).await?;
        let Reply::Txn { revision, reply } = reply else {
            return Err(mismatched_reply("transaction"));
        };
        let header = header::applied(self.node.header(), term, revision);
        Ok(Response::new(response::txn(header, reply)))
    }

    async fn compact(
        &self,
        request: Request<CompactionRequest>,
    ) -> Result<Response<CompactionResponse>, Status> {
        header::require_leader(&self.node, &request)?;
        let CompactionRequest { revision: up_to, physical } = request.into_inner();
        let up_to = Revision(up_to);

        let Applied { term, reply } = self.node.propose(Command::Compact(up_to)).await?;
        let Reply::Compact { revision } = reply else {
            return Err(mismatched_reply("compaction"));
        };
        if physical {
            self.node.compaction_done(up_to).await?;
        }
        let header = header::applied(self.node.header(), term, revision);
        Ok(Response::new(CompactionResponse { header: Some(header) }))
    }
}

/// The operations of both branches.
fn operations(txn: &TxnRequest) -> impl Iterator<Item = &RequestOp> {
    txn.success.iter().chain(&txn.failure)
}

/// Whether no branch writes, including nested transactions.
fn is_read_only(txn: &TxnRequest) -> bool {
    operations(txn).all(|op| match &op.request {
        Some(request_op::Request::RequestRange(_)) => true,
        Some(request_op::Request::RequestTxn(nested)) => is_read_only(nested),
        _ => false,
    })
}

/// Whether every range is serializable. A transaction with comparisons only is linearizable.
fn is_serializable(txn: &TxnRequest) -> bool {
    let mut ops = operations(txn).peekable();
    ops.peek().is_some()
        && ops.all(|op| match &op.request {
            Some(request_op::Request::RequestRange(range)) => range.serializable,
            Some(request_op::Request::RequestTxn(nested)) => is_serializable(nested),
            _ => false,
        })
}

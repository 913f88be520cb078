//! Keys and values.

use tonic::{Request, Response, Status};

use super::{
    Options,
    errors::mismatched,
    header, overlap,
    range_stream::{self, Chunks},
    session, validate,
};
use crate::{
    node::{Applied, NodePort, RangeAt},
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
pub(super) struct KvService<N> {
    node: N,
    options: Options,
}

impl<N: NodePort> KvService<N> {
    pub(super) fn new(node: N, options: Options) -> KvService<N> {
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
            session.caught_up(&self.node).await?;
        }
        let RangeAt { revision, reply } =
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
            session.caught_up(&self.node).await?;
        }
        let range = Range::try_from(request)?;
        let chunk_bytes = self.options.max_request_bytes;
        Ok(Response::new(range_stream::open(self.node.clone(), range, serializable, chunk_bytes)))
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        header::require_leader(&self.node, &request)?;
        session::of(&self.node, &request)?;
        let request = request.into_inner();
        validate::put(&request)?;
        validate::size(&request, self.options.max_request_bytes)?;

        let Applied { term, reply } = self.node.propose(Command::Put(request.into())).await?;
        let Reply::Put { revision, reply } = reply else {
            return Err(mismatched("put"));
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
            return Err(mismatched("range deletion"));
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
                session.caught_up(&self.node).await?;
            }
            return self.read_txn(Txn::try_from(request)?, serializable).await;
        }
        validate::size(&request, self.options.max_request_bytes)?;

        let Applied { term, reply } =
            self.node.propose(Command::Txn(Txn::try_from(request)?)).await?;
        let Reply::Txn { revision, reply } = reply else {
            return Err(mismatched("transaction"));
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
            return Err(mismatched("compaction"));
        };
        if physical {
            self.node.compaction_done(up_to).await?;
        }
        let header = header::applied(self.node.header(), term, revision);
        Ok(Response::new(CompactionResponse { header: Some(header) }))
    }
}

/// All operations, those of nested transactions too.
fn operations(txn: &TxnRequest) -> impl Iterator<Item = &RequestOp> {
    txn.success.iter().chain(&txn.failure)
}

/// Whether no branch writes.
fn is_read_only(txn: &TxnRequest) -> bool {
    operations(txn).all(|op| match &op.request {
        Some(request_op::Request::RequestRange(_)) => true,
        Some(request_op::Request::RequestTxn(nested)) => is_read_only(nested),
        _ => false,
    })
}

/// Whether every range asks for no more than what this member has. A transaction that only compares
/// asks for nothing, and gets the truth.
fn is_serializable(txn: &TxnRequest) -> bool {
    let mut ops = operations(txn).peekable();
    ops.peek().is_some()
        && ops.all(|op| match &op.request {
            Some(request_op::Request::RequestRange(range)) => range.serializable,
            Some(request_op::Request::RequestTxn(nested)) => is_serializable(nested),
            _ => false,
        })
}

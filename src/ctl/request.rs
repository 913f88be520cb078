//! One call of the cluster with one answer, ready to be sent.

use super::{
    cluster::ClusterArgs,
    compaction::Compacted,
    context::ClientConfig,
    del,
    doctor::DoctorArgs,
    endpoint::EndpointArgs,
    error::CtlError,
    member::{MemberVerb, MoveLeaderArgs},
    print::Outcome,
};
use crate::proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, PutRequest, RangeRequest, TxnRequest,
};

/// A verb, with its arguments and standard input read.
#[derive(Debug, Clone)]
pub enum Request {
    Get(RangeRequest),
    Put(PutRequest),
    Del { request: DeleteRangeRequest, pause: bool },
    Txn(TxnRequest),
    Compaction(CompactionRequest),
    Member(MemberVerb),
    MoveLeader(MoveLeaderArgs),
    Cluster(ClusterArgs),
    Doctor(DoctorArgs),
    Endpoint(EndpointArgs),
}

impl Request {
    pub async fn call(self, config: &ClientConfig) -> Result<Outcome, CtlError> {
        let client = config.client();
        Ok(match self {
            Request::Get(request) => Outcome::success(client.range(request).await?),
            Request::Put(request) => Outcome::success(client.put(request).await?),
            Request::Del { request, pause } => {
                if pause {
                    tokio::time::sleep(del::WARNING_PAUSE).await;
                }
                Outcome::success(client.delete_range(request).await?)
            }
            Request::Txn(request) => Outcome::success(client.txn(request).await?),
            Request::Compaction(request) => {
                client.compact(request).await?;
                Outcome::success(Compacted { revision: request.revision })
            }
            Request::Member(verb) => verb.call(config).await?,
            Request::MoveLeader(args) => args.call(config).await?,
            Request::Cluster(args) => args.call(config).await?,
            Request::Doctor(args) => args.call(config).await,
            Request::Endpoint(args) => args.call(config).await?,
        })
    }
}

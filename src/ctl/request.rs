//! What a verb asks of the cluster, and the asking.

use super::{
    CtlError,
    cluster::ClusterArgs,
    del,
    doctor::DoctorArgs,
    endpoint::EndpointArgs,
    member::{MemberVerb, MoveLeaderArgs},
    print::Answer,
};
use crate::{
    client::{Client, Endpoint, Timeouts},
    proto::etcdserverpb::{
        CompactionRequest, DeleteRangeRequest, PutRequest, RangeRequest, TxnRequest,
    },
};

/// Whom to ask, and for how long.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) timeouts: Timeouts,
}

/// All that a verb needs to know, read from arguments and standard input.
#[derive(Debug, Clone)]
pub(crate) enum Request {
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

/// What to print. Complaints go to standard error, and make the command fail.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    pub(crate) answer: Answer,
    pub(crate) complaints: Vec<String>,
}

impl Connection {
    pub(crate) fn client(&self) -> Client {
        Client::new(self.endpoints.clone(), self.timeouts)
    }
}

impl Request {
    pub(crate) async fn call(self, connection: &Connection) -> Result<Outcome, CtlError> {
        let client = connection.client();
        let answer = match self {
            Request::Get(request) => Answer::Get(client.range(request).await?),
            Request::Put(request) => Answer::Put(client.put(request).await?),
            Request::Del { request, pause } => {
                if pause {
                    tokio::time::sleep(del::SECOND_THOUGHT).await;
                }
                Answer::Del(client.delete_range(request).await?)
            }
            Request::Txn(request) => Answer::Txn(client.txn(request).await?),
            Request::Compaction(request) => {
                client.compact(request).await?;
                Answer::Compacted(request.revision)
            }
            Request::Member(verb) => return verb.call(connection).await,
            Request::MoveLeader(args) => return args.call(connection).await,
            Request::Cluster(args) => return args.call(connection).await,
            Request::Doctor(args) => return args.call(connection).await,
            Request::Endpoint(args) => return args.call(connection).await,
        };
        Ok(Outcome { answer, complaints: vec![] })
    }
}

//! The member's side: lease queries of its clients go to the leader, all that wait in one round.

use tokio::{
    sync::{OwnedSemaphorePermit, mpsc, oneshot},
    time::{Instant, sleep, timeout, timeout_at},
};

use super::server::LeaseServer;
use crate::{
    node::{
        forward::{ForwardCall, ForwardOutcome, LEADER_RETRY_INTERVAL},
        port::NodeError,
        reads::LeaderQueryFailure,
    },
    proto::{convert, peer},
    shutdown::ShutdownSignal,
    types::LeaseId,
};

/// Queries that travel in one round, at most.
const ROUND_QUERIES_MAX: usize = 4096;

/// Whether a query renews its lease, or asks how long the lease still lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseQueryKind {
    Renew,
    TimeToLive,
}

/// One query, and the channel for its answer.
#[derive(Debug)]
pub struct LeaseQuery {
    pub lease: LeaseId,
    pub kind: LeaseQueryKind,
    pub deadline: Instant,
    pub reply: oneshot::Sender<Result<LeaseQueryAnswer, NodeError>>,
    /// The query's place among those that may wait; released when it is answered.
    pub permit: OwnedSemaphorePermit,
}

/// The leader's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseQueryAnswer {
    /// `None`: the lease does not exist.
    pub seconds: Option<i64>,
    /// An index that the leader had applied when it answered.
    pub index: u64,
}

/// Sends waiting queries to the leader in rounds, one after the other, until shutdown.
pub async fn run_query_batcher(
    server: LeaseServer,
    forward: mpsc::UnboundedSender<ForwardCall>,
    mut inbox: mpsc::UnboundedReceiver<LeaseQuery>,
    mut shutdown: ShutdownSignal,
) {
    let mut waiting: Vec<LeaseQuery> = Vec::new();
    loop {
        let retries = !waiting.is_empty();
        tokio::select! {
            () = shutdown.wait() => break,
            () = sleep(LEADER_RETRY_INTERVAL), if retries => {}
            came = inbox.recv_many(&mut waiting, ROUND_QUERIES_MAX) => if came == 0 { break },
        }
        // A caller that gave up needs no answer; its lease is not renewed.
        waiting.retain(|query| !query.reply.is_closed());
        if waiting.is_empty() {
            continue;
        }
        let result = tokio::select! {
            () = shutdown.wait() => break,
            result = round(&server, &forward, &waiting) => result,
        };
        waiting = deliver(waiting, result);
    }
    waiting.into_iter().for_each(|query| query.finish(Err(NodeError::Stopped)));
    inbox.close();
    while let Some(query) = inbox.recv().await {
        query.finish(Err(NodeError::Stopped));
    }
}

impl LeaseQuery {
    fn finish(self, answer: Result<LeaseQueryAnswer, NodeError>) {
        // The caller may have given up.
        let _ = self.reply.send(answer);
        drop(self.permit);
    }
}

/// Answers the queries of a round, and returns those that need another round.
fn deliver(
    waiting: Vec<LeaseQuery>,
    result: Result<peer::LeaseAnswers, NodeError>,
) -> Vec<LeaseQuery> {
    let answers = match result {
        Ok(answers) => answers,
        Err(error) => {
            waiting.into_iter().for_each(|query| query.finish(Err(error.clone())));
            return Vec::new();
        }
    };
    let index = answers.index;
    let (mut renewed, mut remaining) = (answers.renewed.into_iter(), answers.remaining.into_iter());
    let (now, mut again) = (Instant::now(), Vec::new());
    for query in waiting {
        let (seconds, absent) = match query.kind {
            LeaseQueryKind::Renew => (renewed.next(), 0),
            LeaseQueryKind::TimeToLive => (remaining.next(), -1),
        };
        match seconds {
            Some(seconds) if seconds == absent => {
                query.finish(Ok(LeaseQueryAnswer { seconds: None, index }));
            }
            Some(seconds) if seconds >= 0 => {
                query.finish(Ok(LeaseQueryAnswer { seconds: Some(seconds), index }));
            }
            // The lease is expiring; or the answer is too short, from another version.
            _ if now >= query.deadline => query.finish(Err(NodeError::Timeout)),
            _ => again.push(query),
        }
    }
    again
}

/// One round. A retry is harmless: a lease that is renewed twice is renewed.
async fn round(
    server: &LeaseServer,
    forward: &mpsc::UnboundedSender<ForwardCall>,
    waiting: &[LeaseQuery],
) -> Result<peer::LeaseAnswers, NodeError> {
    let queries = to_wire(waiting);
    let raft = &server.raft;
    let mut leadership = raft.watch_leadership();
    let start = Instant::now();
    let deadline = start + raft.timing().request_timeout();
    let no_leader_after = start + raft.timing().leader_wait();
    loop {
        let now = leadership.now();
        let answers = match now.leader {
            None => Err(LeaderQueryFailure::NoLeader),
            Some(_) if now.is_mine() => server.answer(&queries, deadline).await.map_err(Into::into),
            Some(_) => ask_remotely(forward, &queries, deadline).await,
        };
        let failure = match answers {
            Ok(answers) => return Ok(answers),
            Err(failure) => failure,
        };
        let now = Instant::now();
        match failure {
            LeaderQueryFailure::Stopped => return Err(NodeError::Stopped),
            LeaderQueryFailure::NoLeader if now >= no_leader_after => {
                return Err(NodeError::NoLeader);
            }
            _ if now >= deadline => return Err(NodeError::Timeout),
            _ => {}
        }
        if let Ok(None) = timeout(LEADER_RETRY_INTERVAL, leadership.changed()).await {
            return Err(NodeError::Stopped);
        }
    }
}

fn to_wire(waiting: &[LeaseQuery]) -> peer::LeaseQueries {
    let leases = |kind| {
        let queries = waiting.iter().filter(move |query| query.kind == kind);
        queries.map(|query| convert::lease_id_to_wire(query.lease)).collect()
    };
    peer::LeaseQueries {
        renew: leases(LeaseQueryKind::Renew),
        remaining: leases(LeaseQueryKind::TimeToLive),
    }
}

async fn ask_remotely(
    forward: &mpsc::UnboundedSender<ForwardCall>,
    queries: &peer::LeaseQueries,
    deadline: Instant,
) -> Result<peer::LeaseAnswers, LeaderQueryFailure> {
    let (call, outcome) = ForwardCall::leases(queries.clone());
    forward.send(call).map_err(|_| LeaderQueryFailure::Stopped)?;
    match timeout_at(deadline, outcome).await {
        Ok(Ok(ForwardOutcome::Leases(answers))) => Ok(answers),
        Ok(Ok(ForwardOutcome::NotAppended)) => Err(LeaderQueryFailure::NoLeader),
        _ => Err(LeaderQueryFailure::Unconfirmed),
    }
}

//! This member's side: what its clients ask of leases goes to the leader, as much as waits at once.

use std::time::Duration;

use tokio::{
    sync::{OwnedSemaphorePermit, mpsc, oneshot},
    time::{Instant, sleep, timeout, timeout_at},
};

use super::answers::LeaderSide;
use crate::{
    node::{
        forward::{Forward, Outcome},
        port::NodeError,
    },
    proto::{convert, peer},
    raft::ReadError,
    stop::Stopping,
    types::LeaseId,
};

/// So many queries travel together, at most.
const ROUND_QUERIES: usize = 4096;
/// Before asking again: there was no leader, or the lease is just ending.
const PAUSE: Duration = Duration::from_millis(20);

/// What is asked of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::node) enum Want {
    Renewal,
    Remaining,
}

/// One question, and where its answer goes.
#[derive(Debug)]
pub(in crate::node) struct Query {
    pub(in crate::node) lease: LeaseId,
    pub(in crate::node) want: Want,
    pub(in crate::node) deadline: Instant,
    pub(in crate::node) reply: oneshot::Sender<Result<Answer, NodeError>>,
    /// Its share of what may wait; given back when it is answered.
    pub(in crate::node) share: OwnedSemaphorePermit,
}

/// The leader's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::node) struct Answer {
    /// `None`: there is no such lease.
    pub(in crate::node) seconds: Option<i64>,
    /// What the leader had applied then, at least.
    pub(in crate::node) index: u64,
}

/// Asks in rounds, one after the other, until told to stop.
pub(in crate::node) async fn run(
    leader: LeaderSide,
    forward: mpsc::UnboundedSender<Forward>,
    mut inbox: mpsc::UnboundedReceiver<Query>,
    mut stopping: Stopping,
) {
    let mut waiting: Vec<Query> = Vec::new();
    loop {
        let asked_again = !waiting.is_empty();
        tokio::select! {
            () = stopping.wait() => break,
            () = sleep(PAUSE), if asked_again => {}
            came = inbox.recv_many(&mut waiting, ROUND_QUERIES) => if came == 0 { break },
        }
        // Who has given up needs no answer; a lease is not renewed for him.
        waiting.retain(|query| !query.reply.is_closed());
        if waiting.is_empty() {
            continue;
        }
        let result = tokio::select! {
            () = stopping.wait() => break,
            result = round(&leader, &forward, &waiting) => result,
        };
        waiting = deliver(waiting, result);
    }
    waiting.into_iter().for_each(|query| query.ends(Err(NodeError::Stopped)));
    inbox.close();
    while let Some(query) = inbox.recv().await {
        query.ends(Err(NodeError::Stopped));
    }
}

impl Query {
    fn ends(self, answer: Result<Answer, NodeError>) {
        // Whoever asked may have given up.
        let _ = self.reply.send(answer);
        drop(self.share);
    }
}

/// Gives everybody his answer. What has none yet is asked again.
fn deliver(waiting: Vec<Query>, result: Result<peer::LeaseAnswers, NodeError>) -> Vec<Query> {
    let answers = match result {
        Ok(answers) => answers,
        Err(error) => {
            waiting.into_iter().for_each(|query| query.ends(Err(error.clone())));
            return Vec::new();
        }
    };
    let index = answers.index;
    let (mut renewed, mut remaining) = (answers.renewed.into_iter(), answers.remaining.into_iter());
    let (now, mut again) = (Instant::now(), Vec::new());
    for query in waiting {
        let (seconds, absent) = match query.want {
            Want::Renewal => (renewed.next(), 0),
            Want::Remaining => (remaining.next(), -1),
        };
        match seconds {
            Some(seconds) if seconds == absent => {
                query.ends(Ok(Answer { seconds: None, index }));
            }
            Some(seconds) if seconds >= 0 => {
                query.ends(Ok(Answer { seconds: Some(seconds), index }));
            }
            // Ending; or an answer too short, from another version.
            _ if now >= query.deadline => query.ends(Err(NodeError::Timeout)),
            _ => again.push(query),
        }
    }
    again
}

/// One round. Asking again is harmless: to renew twice is to renew.
async fn round(
    leader: &LeaderSide,
    forward: &mpsc::UnboundedSender<Forward>,
    waiting: &[Query],
) -> Result<peer::LeaseAnswers, NodeError> {
    let queries = queries(waiting);
    let raft = &leader.raft;
    let mut leadership = raft.watch_leadership();
    let start = Instant::now();
    let deadline = start + raft.timing().request_timeout();
    let no_leader_after = start + raft.timing().leader_wait();
    loop {
        let now = leadership.now();
        let asked = match now.leader {
            None => Err(Retry::NoLeader),
            Some(_) if now.is_mine() => ask_here(leader, &queries, deadline).await,
            Some(_) => ask_there(forward, &queries, deadline).await,
        };
        let why = match asked {
            Ok(answers) => return Ok(answers),
            Err(why) => why,
        };
        let now = Instant::now();
        match why {
            Retry::Stopped => return Err(NodeError::Stopped),
            Retry::NoLeader if now >= no_leader_after => return Err(NodeError::NoLeader),
            _ if now >= deadline => return Err(NodeError::Timeout),
            _ => {}
        }
        if let Ok(None) = timeout(PAUSE, leadership.changed()).await {
            return Err(NodeError::Stopped);
        }
    }
}

fn queries(waiting: &[Query]) -> peer::LeaseQueries {
    let wanting = |want| {
        let leases = waiting.iter().filter(move |query| query.want == want);
        leases.map(|query| convert::lease_id_to_wire(query.lease)).collect()
    };
    peer::LeaseQueries { renew: wanting(Want::Renewal), remaining: wanting(Want::Remaining) }
}

enum Retry {
    NoLeader,
    /// The leader is there, but could not confirm that it leads, or has just begun to.
    Unconfirmed,
    Stopped,
}

async fn ask_here(
    leader: &LeaderSide,
    queries: &peer::LeaseQueries,
    deadline: Instant,
) -> Result<peer::LeaseAnswers, Retry> {
    leader.answer(queries, deadline).await.map_err(|error| match error {
        ReadError::NotLeader(_) => Retry::NoLeader,
        ReadError::NoQuorum => Retry::Unconfirmed,
        ReadError::Stopped => Retry::Stopped,
    })
}

async fn ask_there(
    forward: &mpsc::UnboundedSender<Forward>,
    queries: &peer::LeaseQueries,
    deadline: Instant,
) -> Result<peer::LeaseAnswers, Retry> {
    let (request, outcome) = Forward::leases(queries.clone());
    forward.send(request).map_err(|_| Retry::Stopped)?;
    match timeout_at(deadline, outcome).await {
        Ok(Ok(Outcome::Leases(answers))) => Ok(answers),
        Ok(Ok(Outcome::NotAppended)) => Err(Retry::NoLeader),
        _ => Err(Retry::Unconfirmed),
    }
}

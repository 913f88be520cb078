//! Proposals: what waits is coalesced into one Raft entry, and sent to whoever leads.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::join_all;
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc, oneshot},
    time::Instant,
};

use tracing::{Instrument, Span};

use super::{
    forward::{Forward, Outcome},
    port::{Applied, NodeError},
};
use crate::{
    proto::convert::WireError,
    raft::{ProposeError, Raft, SLOW},
    stop::Stopping,
    types::{CommandError, LogPosition, Reply, Term},
};

/// Commands in one entry, at most.
const BATCH_COMMANDS: usize = 256;
/// Bytes of commands in one entry, at most; a larger command is an entry of its own.
const BATCH_BYTES: usize = 256 << 10;
/// At the end, what is under way may take so long. Without a quorum it would take longer.
const LAST_ANSWERS: Duration = Duration::from_secs(2);
/// Before asking again who leads, when the one who did cannot be reached.
const PAUSE: Duration = Duration::from_millis(20);

/// One encoded command, waiting for its turn.
pub(super) struct Proposal {
    pub(super) command: Bytes,
    pub(super) deadline: Instant,
    pub(super) reply: oneshot::Sender<Result<Applied, NodeError>>,
    /// Its share of what may be in flight; given back when it is answered.
    pub(super) share: Share,
    /// Told where in the log it is, once it is there.
    pub(super) span: Span,
}

/// A command, and its bytes.
type Share = (OwnedSemaphorePermit, OwnedSemaphorePermit);

/// Proposals that travel together.
struct Batch {
    commands: Bytes,
    deadline: Instant,
    waiting: Vec<Waiting>,
}

/// Who waits for one command's answer.
struct Waiting {
    reply: oneshot::Sender<Result<Applied, NodeError>>,
    span: Span,
    _share: Share,
}

impl Batch {
    fn fail(self, error: &NodeError) {
        for Waiting { reply, .. } in self.waiting {
            let _ = reply.send(Err(error.clone()));
        }
    }

    /// A span of its own, since it is the work of many: it follows from each of theirs.
    fn span(&self) -> Span {
        let (commands, bytes) = (self.waiting.len(), self.commands.len());
        let span = tracing::debug_span!(parent: None, "batch", commands, bytes);
        if !span.is_disabled() {
            for waiting in &self.waiting {
                span.follows_from(&waiting.span);
            }
        }
        span
    }

    fn answer(self, at: LogPosition, replies: Vec<Result<Reply, CommandError>>) {
        if replies.len() != self.waiting.len() {
            tracing::error!(
                commands = self.waiting.len(),
                replies = replies.len(),
                "an entry was answered with another number of replies"
            );
            return self.fail(&NodeError::LeaderChanged);
        }
        let term = at.term;
        for (Waiting { reply: waiting, span, .. }, reply) in self.waiting.into_iter().zip(replies) {
            span.record("term", term.0).record("index", at.index);
            // Before the answer: the span ends where it began.
            drop(span);
            let answer = reply.map(|reply| Applied { term, reply }).map_err(NodeError::Command);
            // Whoever asked may have given up: the write stands all the same.
            let _ = waiting.send(answer);
        }
    }
}

/// What a batch needs to find the leader.
#[derive(Clone)]
pub(super) struct Ways {
    pub(super) raft: Raft,
    pub(super) forward: mpsc::UnboundedSender<Forward>,
}

/// Runs until told to stop, or all senders are gone.
///
/// One pick-up at a time: what comes while it is under way makes the next one larger, and costs one
/// round of Raft instead of many. (With four under way a put cost a quarter more.)
pub(super) async fn run(
    ways: Ways,
    mut inbox: mpsc::UnboundedReceiver<Proposal>,
    mut stopping: Stopping,
) {
    let mut waiting = Vec::new();
    loop {
        tokio::select! {
            () = stopping.wait() => break,
            n = inbox.recv_many(&mut waiting, BATCH_COMMANDS) => if n == 0 { return },
        }
        // Who has given up is told "unknown" already; that nothing was sent is certain still.
        waiting.retain(|proposal| !proposal.reply.is_closed());
        let batches = into_batches(&mut waiting).into_iter().map(|batch| {
            let span = batch.span();
            submit(&ways, batch).instrument(span)
        });
        let mut under_way = join_all(batches);
        tokio::select! {
            _ = &mut under_way => continue,
            () = stopping.wait() => {}
        }
        if tokio::time::timeout(LAST_ANSWERS, under_way).await.is_err() {
            tracing::warn!("proposals were still under way: their outcome is unknown");
        }
        break;
    }
    inbox.close();
    while let Some(proposal) = inbox.recv().await {
        let _ = proposal.reply.send(Err(NodeError::Stopped));
    }
}

fn into_batches(waiting: &mut Vec<Proposal>) -> Vec<Batch> {
    let mut batches = Vec::new();
    let mut open: Vec<Proposal> = Vec::new();
    let mut bytes = 0;
    for proposal in waiting.drain(..) {
        if !open.is_empty() && bytes + proposal.command.len() > BATCH_BYTES {
            batches.push(close_batch(std::mem::take(&mut open), bytes));
            bytes = 0;
        }
        bytes += proposal.command.len();
        open.push(proposal);
    }
    if !open.is_empty() {
        batches.push(close_batch(open, bytes));
    }
    batches
}

/// Encoded batches concatenated are the batch of all their commands (protobuf: a repeated field).
fn close_batch(proposals: Vec<Proposal>, bytes: usize) -> Batch {
    let now = Instant::now();
    let deadline = proposals.iter().map(|p| p.deadline).max().unwrap_or(now);
    let one = proposals.len() == 1;
    let mut buffer = BytesMut::with_capacity(if one { 0 } else { bytes });
    let mut commands = Bytes::new();
    let mut waiting = Vec::with_capacity(proposals.len());
    for proposal in proposals {
        if one {
            commands = proposal.command;
        } else {
            buffer.extend_from_slice(&proposal.command);
        }
        let Proposal { reply, span, share: _share, .. } = proposal;
        waiting.push(Waiting { reply, span, _share });
    }
    if !one {
        commands = buffer.freeze();
    }
    Batch { commands, deadline, waiting }
}

/// Brings a batch to the leader, again and again as long as it certainly was not appended.
async fn submit(ways: &Ways, batch: Batch) {
    let mut leadership = ways.raft.watch_leadership();
    let begun = Instant::now();
    let no_leader_after = begun + ways.raft.timing().leader_wait();
    loop {
        let now = leadership.now();
        let tried = match now.leader {
            Some(_) if now.is_mine() => propose_here(ways, &batch).await,
            Some(_) => propose_there(ways, &batch).await,
            None => Err(Miss::NotAppended),
        };
        match tried {
            Ok((at, replies)) => {
                note_slow(ways, &batch, at, begun.elapsed());
                return batch.answer(at, replies);
            }
            Err(Miss::Busy) => return batch.fail(&NodeError::TooManyRequests),
            Err(Miss::Unknown) => return batch.fail(&NodeError::LeaderChanged),
            Err(Miss::Late) => return batch.fail(&NodeError::Timeout),
            Err(Miss::NotAppended) => {}
        }
        if Instant::now() >= batch.deadline.min(no_leader_after) {
            return batch.fail(&NodeError::NoLeader);
        }
        // A new leader, or a moment: the one we know may only have been unreachable.
        if let Ok(None) = tokio::time::timeout(PAUSE, leadership.changed()).await {
            return batch.fail(&NodeError::Stopped);
        }
    }
}

/// A line for a batch, not for each of its commands: there is a bound on how many there can be.
fn note_slow(ways: &Ways, batch: &Batch, at: LogPosition, took: Duration) {
    if took > SLOW {
        let revision = ways.raft.view().revision().0;
        let commands = batch.waiting.len();
        tracing::warn!(
            term = at.term.0,
            index = at.index,
            revision,
            commands,
            ?took,
            "proposals took too long"
        );
    }
}

enum Miss {
    NotAppended,
    Busy,
    Unknown,
    /// Unknown, because the time is up.
    Late,
}

type Tried = Result<(LogPosition, Vec<Result<Reply, CommandError>>), Miss>;

async fn propose_here(ways: &Ways, batch: &Batch) -> Tried {
    let proposed = ways.raft.propose(batch.commands.clone());
    // Without a quorum there may never be an answer.
    let Ok(proposed) = tokio::time::timeout_at(batch.deadline, proposed).await else {
        return Err(Miss::Late);
    };
    match proposed {
        Ok(done) => Ok((done.position, done.replies)),
        Err(ProposeError::NotLeader(_)) => Err(Miss::NotAppended),
        Err(ProposeError::Unknown(why)) => {
            tracing::debug!(why, "a proposal's outcome is unknown");
            Err(Miss::Unknown)
        }
    }
}

async fn propose_there(ways: &Ways, batch: &Batch) -> Tried {
    let (forward, outcome) = Forward::propose(batch.commands.clone());
    if ways.forward.send(forward).is_err() {
        return Err(Miss::NotAppended);
    }
    let outcome = tokio::time::timeout_at(batch.deadline, outcome).await;
    match outcome {
        Ok(Ok(Outcome::Proposed(proposed))) => {
            let position = proposed.position.unwrap_or_default();
            let at = LogPosition { term: Term(position.term), index: position.index };
            // Who wrote through this member reads it here next, perhaps without asking the leader.
            // Done it is in any case, so a late apply is no failure.
            let applied = ways.raft.applied_at_least(at.index);
            let _ = tokio::time::timeout_at(batch.deadline, applied).await;
            let replies: Result<Vec<_>, WireError> =
                proposed.replies.into_iter().map(TryInto::try_into).collect();
            match replies {
                Ok(replies) => Ok((at, replies)),
                Err(e) => {
                    tracing::warn!(error = %e, "the leader's answer is unreadable");
                    Err(Miss::Unknown)
                }
            }
        }
        Ok(Ok(Outcome::NotAppended)) => Err(Miss::NotAppended),
        Ok(Ok(Outcome::Busy)) => Err(Miss::Busy),
        Ok(Ok(Outcome::ReadIndex(_) | Outcome::Leases(_) | Outcome::Unknown) | Err(_)) => {
            Err(Miss::Unknown)
        }
        Err(_) => Err(Miss::Late),
    }
}

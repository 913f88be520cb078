//! Proposals: all waiting commands become one Raft entry, which goes to the leader.

use std::{sync::OnceLock, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_util::future::join_all;
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use tracing::{Instrument, Span};

use super::{
    admission::InflightPermits,
    forward::{ForwardCall, ForwardOutcome, LEADER_RETRY_INTERVAL},
    port::{Applied, NodeError},
};
use crate::{
    proto::{convert::WireError, peer},
    raft::{ProposeError, Proposed, Raft, WARNING_APPLY_DURATION},
    shutdown::ShutdownSignal,
    types::{CommandError, LogPosition, Reply, Term},
};

/// Commands in one entry, at most.
const BATCH_COMMANDS_MAX: usize = 256;
/// Bytes of commands in one entry, at most; a larger command is an entry of its own.
const BATCH_BYTES_MAX: usize = 256 << 10;
/// At shutdown, batches in flight have this time to finish. Without a quorum they would take longer.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// One encoded command, waiting to be batched.
pub struct Proposal {
    pub command: Bytes,
    pub deadline: Instant,
    pub reply: oneshot::Sender<Result<Applied, NodeError>>,
    /// Released when the command is answered.
    pub permits: InflightPermits,
    /// Records the command's position in the log, once that is known.
    pub span: Span,
}

/// Commands that are proposed as one entry.
struct Batch {
    commands: Bytes,
    deadline: Instant,
    callers: Vec<Caller>,
}

/// The caller that waits for the reply to one command.
struct Caller {
    reply: oneshot::Sender<Result<Applied, NodeError>>,
    span: Span,
    _permits: InflightPermits,
}

impl Batch {
    fn fail(self, error: &NodeError) {
        for Caller { reply, .. } in self.callers {
            let _ = reply.send(Err(error.clone()));
        }
    }

    /// A span of its own, because it belongs to many commands: it follows from each of theirs.
    fn span(&self) -> Span {
        let (commands, bytes) = (self.callers.len(), self.commands.len());
        let span = tracing::debug_span!(parent: None, "batch", commands, bytes);
        if !span.is_disabled() {
            for caller in &self.callers {
                span.follows_from(&caller.span);
            }
        }
        span
    }

    fn answer(self, at: LogPosition, replies: Vec<Result<Reply, CommandError>>) {
        if replies.len() != self.callers.len() {
            tracing::error!(
                commands = self.callers.len(),
                replies = replies.len(),
                "batch and replies differ in length"
            );
            return self.fail(&NodeError::LeaderChanged);
        }
        let term = at.term;
        for (Caller { reply: caller, span, .. }, reply) in self.callers.into_iter().zip(replies) {
            span.record("term", term.0).record("index", at.index);
            // Before the answer: the span ends in the request that opened it.
            drop(span);
            let answer = reply.map(|reply| Applied { term, reply }).map_err(NodeError::Command);
            // The caller may have given up; the write stands all the same.
            let _ = caller.send(answer);
        }
    }
}

/// Takes a batch to the leader: to Raft if this member leads, else through the forwarding client.
pub struct LeaderRouter {
    raft: Raft,
    forward: mpsc::UnboundedSender<ForwardCall>,
    /// The start of the first attempt that a leader accepted.
    first_accepted: OnceLock<Instant>,
}

impl LeaderRouter {
    pub fn new(raft: Raft, forward: mpsc::UnboundedSender<ForwardCall>) -> LeaderRouter {
        LeaderRouter { raft, forward, first_accepted: OnceLock::new() }
    }

    /// The time for which a proposal has waited. The wait after a start until a leader first accepts a
    /// proposal does not count: the member is not slow, the cluster is electing its first leader. (Raft
    /// names a leader some time before it accepts proposals.)
    fn waited(&self, begun: Instant) -> Duration {
        self.first_accepted.get().map_or(begun, |first| begun.max(*first)).elapsed()
    }
}

/// Proposes until shutdown, or until all senders are gone.
///
/// One round at a time: commands that arrive during a round make the next batch larger, which costs
/// one round of Raft instead of many. (With four rounds in flight a put cost a quarter more.)
pub async fn run(
    router: LeaderRouter,
    mut inbox: mpsc::UnboundedReceiver<Proposal>,
    mut shutdown: ShutdownSignal,
) {
    let mut waiting = Vec::new();
    loop {
        tokio::select! {
            () = shutdown.wait() => break,
            n = inbox.recv_many(&mut waiting, BATCH_COMMANDS_MAX) => if n == 0 { return },
        }
        // A caller that gave up has reported "unknown" already. Nothing was sent, so nothing is lost.
        waiting.retain(|proposal| !proposal.reply.is_closed());
        let batches = into_batches(&mut waiting).into_iter().map(|batch| {
            let span = batch.span();
            submit(&router, batch).instrument(span)
        });
        let mut in_flight = join_all(batches);
        tokio::select! {
            _ = &mut in_flight => continue,
            () = shutdown.wait() => {}
        }
        if tokio::time::timeout(SHUTDOWN_TIMEOUT, in_flight).await.is_err() {
            tracing::warn!("proposals in flight at shutdown: outcome unknown");
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
        if !open.is_empty() && bytes + proposal.command.len() > BATCH_BYTES_MAX {
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
    let mut callers = Vec::with_capacity(proposals.len());
    for proposal in proposals {
        if one {
            commands = proposal.command;
        } else {
            buffer.extend_from_slice(&proposal.command);
        }
        let Proposal { reply, span, permits: _permits, .. } = proposal;
        callers.push(Caller { reply, span, _permits });
    }
    if !one {
        commands = buffer.freeze();
    }
    Batch { commands, deadline, callers }
}

/// Takes a batch to the leader, and retries as long as the batch certainly was not appended.
async fn submit(router: &LeaderRouter, batch: Batch) {
    let mut leadership = router.raft.watch_leadership();
    let begun = Instant::now();
    let no_leader_after = begun + router.raft.timing().leader_wait();
    loop {
        let now = leadership.now();
        let attempt = Instant::now();
        let proposed = match now.leader {
            Some(_) if now.is_mine() => propose_locally(router, &batch).await,
            Some(_) => propose_remotely(router, &batch).await,
            None => Err(ProposeFailure::NotAppended),
        };
        match proposed {
            Ok(Proposed { position, replies }) => {
                router.first_accepted.get_or_init(|| attempt);
                log_if_slow(router, &batch, position, router.waited(begun));
                return batch.answer(position, replies);
            }
            Err(ProposeFailure::Busy) => return batch.fail(&NodeError::TooManyRequests),
            Err(ProposeFailure::Unknown) => return batch.fail(&NodeError::LeaderChanged),
            Err(ProposeFailure::TimedOut) => return batch.fail(&NodeError::Timeout),
            Err(ProposeFailure::NotAppended) => {}
        }
        if Instant::now() >= batch.deadline.min(no_leader_after) {
            return batch.fail(&NodeError::NoLeader);
        }
        // The known leader may only have been unreachable, so a timeout retries it, too.
        if let Ok(None) = tokio::time::timeout(LEADER_RETRY_INTERVAL, leadership.changed()).await {
            return batch.fail(&NodeError::Stopped);
        }
    }
}

/// One line for a batch, not for each of its commands: the rate of batches is bounded.
fn log_if_slow(router: &LeaderRouter, batch: &Batch, at: LogPosition, took: Duration) {
    if took > WARNING_APPLY_DURATION {
        let revision = router.raft.view().revision().0;
        let commands = batch.callers.len();
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

/// Why one attempt to propose a batch brought no replies.
enum ProposeFailure {
    /// Certainly not appended: another attempt is safe.
    NotAppended,
    /// Not appended: the leader has too much in flight.
    Busy,
    /// It may have been appended.
    Unknown,
    /// No answer by the deadline: it may have been appended.
    TimedOut,
}

async fn propose_locally(router: &LeaderRouter, batch: &Batch) -> Result<Proposed, ProposeFailure> {
    let proposed = router.raft.propose(batch.commands.clone());
    // Without a quorum there may never be an answer.
    let Ok(proposed) = tokio::time::timeout_at(batch.deadline, proposed).await else {
        return Err(ProposeFailure::TimedOut);
    };
    proposed.map_err(|error| match error {
        ProposeError::NotLeader(_) => ProposeFailure::NotAppended,
        ProposeError::Unknown(why) => {
            tracing::debug!(why, "proposal outcome unknown");
            ProposeFailure::Unknown
        }
    })
}

async fn propose_remotely(
    router: &LeaderRouter,
    batch: &Batch,
) -> Result<Proposed, ProposeFailure> {
    let (call, outcome) = ForwardCall::propose(batch.commands.clone());
    if router.forward.send(call).is_err() {
        return Err(ProposeFailure::NotAppended);
    }
    match tokio::time::timeout_at(batch.deadline, outcome).await {
        Ok(Ok(ForwardOutcome::Proposed(proposed))) => {
            let position = proposed.position.unwrap_or_default();
            let at = LogPosition { term: Term(position.term), index: position.index };
            // A client that wrote through this member may next make a serializable read on it. The
            // write is committed in any case, so a late apply here is no failure.
            let applied = router.raft.wait_applied(at.index);
            let _ = tokio::time::timeout_at(batch.deadline, applied).await;
            let replies = decode_replies(proposed.replies)?;
            Ok(Proposed { position: at, replies })
        }
        Ok(Ok(ForwardOutcome::NotAppended)) => Err(ProposeFailure::NotAppended),
        Ok(Ok(ForwardOutcome::Busy)) => Err(ProposeFailure::Busy),
        Ok(
            Ok(ForwardOutcome::ReadIndex(_) | ForwardOutcome::Leases(_) | ForwardOutcome::Unknown)
            | Err(_),
        ) => Err(ProposeFailure::Unknown),
        Err(_) => Err(ProposeFailure::TimedOut),
    }
}

fn decode_replies(
    replies: Vec<peer::CommandReply>,
) -> Result<Vec<Result<Reply, CommandError>>, ProposeFailure> {
    let replies: Result<Vec<_>, WireError> = replies.into_iter().map(TryInto::try_into).collect();
    replies.map_err(|error| {
        tracing::warn!(%error, "leader's replies malformed");
        ProposeFailure::Unknown
    })
}

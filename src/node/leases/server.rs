//! The leader's side: renews leases, and answers how long they still live.

use std::sync::Arc;

use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout_at},
};

use super::{lessor::Lessor, timers::Renewal};
use crate::{
    node::reads::ReadIndexRequest,
    proto::{convert, peer},
    raft::{Raft, ReadIndexError},
    types::{Command, LeaseId, Term},
};

/// Answers lease queries on the leader.
#[derive(Debug, Clone)]
pub struct LeaseServer {
    pub raft: Raft,
    pub leader_batcher: mpsc::UnboundedSender<ReadIndexRequest>,
    pub lessor: Arc<Lessor>,
}

impl LeaseServer {
    /// Answers queries that arrived together. An error answers none of them; a retry is harmless.
    pub async fn answer(
        &self,
        queries: &peer::LeaseQueries,
        deadline: Instant,
    ) -> Result<peer::LeaseAnswers, ReadIndexError> {
        match timeout_at(deadline, self.try_answer(queries)).await {
            Ok(answers) => answers,
            Err(_) => Err(ReadIndexError::NoQuorum),
        }
    }

    async fn try_answer(
        &self,
        queries: &peer::LeaseQueries,
    ) -> Result<peer::LeaseAnswers, ReadIndexError> {
        // Only the leader may answer: its successor may have ended the lease. And it must have applied
        // every grant and revocation that precedes the query.
        let asked = Instant::now();
        let index = self.read_index().await?;
        self.raft.wait_applied(index).await?;
        let ids = |bits: &[u64]| -> Vec<LeaseId> {
            bits.iter().copied().map(convert::lease_id_from_wire).collect()
        };
        let remaining = self
            .lessor
            .remaining(&ids(&queries.remaining), Instant::now())
            .ok_or(ReadIndexError::NoQuorum)?;
        let renewed = self.renew(&ids(&queries.renew), asked).await?;
        let remaining = remaining.into_iter().map(|left| left.unwrap_or(-1)).collect();
        Ok(peer::LeaseAnswers { index, renewed, remaining })
    }

    async fn read_index(&self) -> Result<u64, ReadIndexError> {
        let (tx, rx) = oneshot::channel();
        self.leader_batcher.send(tx).map_err(|_| ReadIndexError::Stopped)?;
        rx.await.unwrap_or(Err(ReadIndexError::Stopped))
    }

    /// `asked` precedes this member's confirmation that it leads.
    async fn renew(&self, leases: &[LeaseId], asked: Instant) -> Result<Vec<i64>, ReadIndexError> {
        // `None`: this member has only just begun to lead and does not know the leases yet.
        let (term, mut renewals) =
            self.lessor.renew(leases, Instant::now()).ok_or(ReadIndexError::NoQuorum)?;
        let checkpointed: Vec<LeaseId> = leases
            .iter()
            .zip(&renewals)
            .filter(|(_, renewal)| matches!(renewal, Renewal::RenewedCheckpointed(_)))
            .map(|(id, _)| *id)
            .collect();
        if !checkpointed.is_empty() {
            self.void_checkpoints(term, checkpointed).await?;
            // Some leases may have ended meanwhile.
            let known = self.lessor.remaining(leases, Instant::now());
            for (renewal, left) in renewals.iter_mut().zip(known.ok_or(ReadIndexError::NoQuorum)?) {
                if left.is_none() {
                    *renewal = Renewal::NotFound;
                }
            }
        }
        // If another member leads by now, it gave each lease a whole TTL after that confirmation. Once
        // that TTL is over (this process stood still), the lease may have ended.
        let confirmed = asked.elapsed();
        let still_live = |ttl: i64| confirmed.as_secs() < ttl.unsigned_abs();
        let answer = |renewal| match renewal {
            Renewal::Renewed(ttl) | Renewal::RenewedCheckpointed(ttl) if still_live(ttl) => ttl,
            Renewal::Renewed(_) | Renewal::RenewedCheckpointed(_) | Renewal::Expiring => -1,
            Renewal::NotFound => 0,
        };
        Ok(renewals.into_iter().map(answer).collect())
    }

    async fn void_checkpoints(
        &self,
        term: Term,
        leases: Vec<LeaseId>,
    ) -> Result<(), ReadIndexError> {
        let command = Command::LeaseRenew { term, leases };
        let done = self.raft.propose(convert::encode_commands([command])).await;
        let accepted = done.is_ok_and(|done| done.replies.iter().all(Result::is_ok));
        if accepted { Ok(()) } else { Err(ReadIndexError::NoQuorum) }
    }
}

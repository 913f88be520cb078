//! The leader's side: renews leases, and tells how long they have.

use std::sync::Arc;

use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout_at},
};

use super::{lessor::Lessor, timers::Renewal};
use crate::{
    node::reads::Confirm,
    proto::{convert, peer},
    raft::{Raft, ReadError},
    types::{Command, LeaseId, Term},
};

/// What answers queries where this member leads.
#[derive(Debug, Clone)]
pub(in crate::node) struct LeaderSide {
    pub(in crate::node) raft: Raft,
    pub(in crate::node) confirm: mpsc::UnboundedSender<Confirm>,
    pub(in crate::node) lessor: Arc<Lessor>,
}

impl LeaderSide {
    /// Answers what was asked together. An error is no answer to any of it; asking again is
    /// harmless.
    pub(in crate::node) async fn answer(
        &self,
        queries: &peer::LeaseQueries,
        deadline: Instant,
    ) -> Result<peer::LeaseAnswers, ReadError> {
        match timeout_at(deadline, self.try_answer(queries)).await {
            Ok(answers) => answers,
            Err(_) => Err(ReadError::NoQuorum),
        }
    }

    async fn try_answer(
        &self,
        queries: &peer::LeaseQueries,
    ) -> Result<peer::LeaseAnswers, ReadError> {
        // Only who leads may answer: his successor may have ended the lease. And he must know of
        // every lease that was granted, and of none that was revoked, before he was asked.
        let asked = Instant::now();
        let index = self.confirmed().await?;
        self.raft.applied_at_least(index).await?;
        let ids = |bits: &[u64]| -> Vec<LeaseId> {
            bits.iter().copied().map(convert::lease_id_from_wire).collect()
        };
        let remaining = self
            .lessor
            .remaining(&ids(&queries.remaining), Instant::now())
            .ok_or(ReadError::NoQuorum)?;
        let renewed = self.renew(&ids(&queries.renew), asked).await?;
        let remaining = remaining.into_iter().map(|left| left.unwrap_or(-1)).collect();
        Ok(peer::LeaseAnswers { index, renewed, remaining })
    }

    async fn confirmed(&self) -> Result<u64, ReadError> {
        let (tx, rx) = oneshot::channel();
        self.confirm.send(tx).map_err(|_| ReadError::Stopped)?;
        rx.await.unwrap_or(Err(ReadError::Stopped))
    }

    /// `asked` is from before this member proved that it leads.
    async fn renew(&self, leases: &[LeaseId], asked: Instant) -> Result<Vec<i64>, ReadError> {
        // It has begun to lead, and does not know the leases yet.
        let (term, mut renewals) =
            self.lessor.renew(leases, Instant::now()).ok_or(ReadError::NoQuorum)?;
        let checkpointed: Vec<LeaseId> = leases
            .iter()
            .zip(&renewals)
            .filter(|(_, renewal)| matches!(renewal, Renewal::Void(_)))
            .map(|(id, _)| *id)
            .collect();
        if !checkpointed.is_empty() {
            self.make_checkpoints_void(term, checkpointed).await?;
            // Some may be gone meanwhile.
            let known = self.lessor.remaining(leases, Instant::now());
            for (renewal, left) in renewals.iter_mut().zip(known.ok_or(ReadError::NoQuorum)?) {
                if left.is_none() {
                    *renewal = Renewal::Unknown;
                }
            }
        }
        // Whoever leads by now gave each lease a whole TTL after that proof. If it is over (this
        // process stood still), the lease may be.
        let proved = asked.elapsed();
        let still_mine = |ttl: i64| proved.as_secs() < ttl.unsigned_abs();
        let answer = |renewal| match renewal {
            Renewal::Done(ttl) | Renewal::Void(ttl) if still_mine(ttl) => ttl,
            Renewal::Done(_) | Renewal::Void(_) | Renewal::Ending => -1,
            Renewal::Unknown => 0,
        };
        Ok(renewals.into_iter().map(answer).collect())
    }

    async fn make_checkpoints_void(
        &self,
        term: Term,
        leases: Vec<LeaseId>,
    ) -> Result<(), ReadError> {
        let command = Command::LeaseRenew { term, leases };
        let done = self.raft.propose(convert::encode_commands([command])).await;
        let accepted = done.is_ok_and(|done| done.replies.iter().all(Result::is_ok));
        if accepted { Ok(()) } else { Err(ReadError::NoQuorum) }
    }
}

//! Leases that are renewed in the background.

use std::time::Duration;

use tokio::{
    select,
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep_until, timeout_at},
};
use tonic::Code;

use super::{Client, ClientError, RenewalStream, seconds};
use crate::{client::backoff::Backoff, proto::etcdserverpb::LeaseKeepAliveResponse};

/// A lease is renewed when this part of its time is over, as etcd's clients do.
const RENEWALS_IN_TTL: u32 = 3;
/// Between two rounds through all endpoints while none renews.
const ROUND_WAIT_MAX: Duration = Duration::from_millis(500);
impl Client {
    /// Renews a lease until the keeper is dropped, and answers after the first time.
    ///
    /// # Errors
    /// If nobody renews it now.
    pub async fn lease_keep_alive(&self, id: i64) -> Result<LeaseKeeper, ClientError> {
        let sent = Instant::now();
        let (stream, answer) = self.first_renewal(id, sent + self.timeouts().command).await?;
        let until = sent + seconds(answer.ttl);
        let (tx, state) = watch::channel(State { latest: answer, until, end: None });
        let renewal = Renewal { client: self.clone(), id, sent, state: tx };
        let task = tokio::spawn(renewal.run(stream));
        Ok(LeaseKeeper { id, state, task })
    }
}

/// Keeps one lease alive from the background, whichever members come and go. Dropping it ends the
/// renewals: the lease then ends by itself after its TTL, or at once by
/// [`lease_revoke`](Client::lease_revoke).
#[derive(Debug)]
pub struct LeaseKeeper {
    id: i64,
    state: watch::Receiver<State>,
    task: JoinHandle<()>,
}

#[derive(Debug, Clone)]
struct State {
    latest: LeaseKeepAliveResponse,
    /// Not before this the lease ends, as far as is known here.
    until: Instant,
    end: Option<LeaseEnd>,
}

/// Why a lease is not renewed any more.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LeaseEnd {
    /// There is no such lease any more, and its keys are gone.
    #[error("lease {id:016x} expired or was revoked")]
    Gone { id: i64 },
    /// No member renewed it for as long as its TTL: it may have expired, and will soon.
    #[error("lease {id:016x} could not be renewed in time: {last}")]
    NotRenewed { id: i64, last: ClientError },
    /// A member refuses to renew it.
    #[error("lease {id:016x} may not be renewed: {error}")]
    Refused { id: i64, error: ClientError },
}

impl LeaseKeeper {
    pub fn id(&self) -> i64 {
        self.id
    }

    /// The latest renewal.
    pub fn latest(&self) -> LeaseKeepAliveResponse {
        self.state.borrow().latest
    }

    /// The lease does not end before this, unless somebody revokes it: counted from when the latest
    /// renewal that was answered was sent.
    pub fn alive_until(&self) -> Instant {
        self.state.borrow().until
    }

    /// Waits for the next renewal. One that comes while nobody waits counts; of several, only the
    /// latest does.
    ///
    /// # Errors
    /// When the lease has ended: always the same.
    pub async fn renewed(&mut self) -> Result<LeaseKeepAliveResponse, LeaseEnd> {
        if let Some(end) = &self.state.borrow().end {
            return Err(end.clone());
        }
        // The task is gone without a last word only if it panicked.
        let changed = self.state.changed().await;
        let state = self.state.borrow_and_update();
        match &state.end {
            Some(end) => Err(end.clone()),
            None if changed.is_ok() => Ok(state.latest),
            None => Err(LeaseEnd::Gone { id: self.id }),
        }
    }

    /// Waits until the lease has ended, or may have.
    pub async fn ended(&mut self) -> LeaseEnd {
        loop {
            if let Err(end) = self.renewed().await {
                return end;
            }
        }
    }
}

impl Drop for LeaseKeeper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The task of a keeper.
struct Renewal {
    client: Client,
    id: i64,
    /// When the latest renewal that was answered was sent.
    sent: Instant,
    state: watch::Sender<State>,
}

impl Renewal {
    async fn run(mut self, stream: RenewalStream) {
        let mut stream = Some(stream);
        let mut at = self.client.preferred();
        let end = loop {
            let ttl = seconds(self.state.borrow().latest.ttl);
            let due = self.sent + ttl / RENEWALS_IN_TTL;
            select! {
                () = sleep_until(due) => {}
                () = self.state.closed() => return,
            }
            if let Err(end) = self.renew(&mut stream, &mut at, ttl).await {
                break end;
            }
        };
        self.state.send_modify(|state| state.end = Some(end));
    }

    /// Renews at the member that did so last, and if it does not, at the others, until the lease
    /// may have ended.
    async fn renew(
        &mut self,
        stream: &mut Option<RenewalStream>,
        at: &mut usize,
        ttl: Duration,
    ) -> Result<(), LeaseEnd> {
        let (id, until) = (self.id, self.state.borrow().until);
        let patience = self.client.timeouts().command.min(ttl / RENEWALS_IN_TTL);
        let mut backoff = Backoff::up_to(ROUND_WAIT_MAX);
        let mut tried = 0;
        loop {
            let sent = Instant::now();
            let limit = (sent + patience).min(until);
            let answer = match stream {
                Some(stream) => stream.renew_by(&self.client, id, limit).await,
                None => match self.renew_at(*at, limit).await {
                    Ok((opened, answer)) => {
                        *stream = Some(opened);
                        Ok(answer)
                    }
                    Err(error) => Err(error),
                },
            };
            let error = match answer {
                Ok(answer) if answer.ttl <= 0 => return Err(LeaseEnd::Gone { id }),
                Ok(answer) => {
                    self.note(answer, sent);
                    return Ok(());
                }
                Err(error) => error,
            };
            if is_final(&error) {
                return Err(LeaseEnd::Refused { id, error });
            }
            *stream = None;
            *at += 1;
            tried += 1;
            if tried % self.client.links().len() == 0
                && timeout_at(until, backoff.wait()).await.is_err()
                || Instant::now() >= until
            {
                return Err(LeaseEnd::NotRenewed { id, last: error });
            }
        }
    }

    async fn renew_at(
        &self,
        at: usize,
        limit: Instant,
    ) -> Result<(RenewalStream, LeaseKeepAliveResponse), ClientError> {
        let links = self.client.links();
        let link = &links[at % links.len()];
        match timeout_at(limit, self.client.renew_on(link, self.id, limit)).await {
            Ok(renewed) => renewed,
            Err(_) => Err(self.client.too_late(link.endpoint.to_string())),
        }
    }

    fn note(&mut self, answer: LeaseKeepAliveResponse, sent: Instant) {
        self.sent = sent;
        let until = sent + seconds(answer.ttl);
        self.state.send_replace(State { latest: answer, until, end: None });
    }
}

/// Whether every other member would say the same.
fn is_final(error: &ClientError) -> bool {
    let ClientError::Refused { code, .. } = error else { return false };
    matches!(code, Code::PermissionDenied | Code::Unauthenticated | Code::Unimplemented)
}

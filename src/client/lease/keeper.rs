//! Renews leases in the background.

use std::time::Duration;

use tokio::{
    select,
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep_until, timeout_at},
};
use tonic::Code;

use super::{
    super::{
        backoff::Backoff,
        core::Client,
        error::{ClientError, RequestKind},
    },
    renewal::{RenewalStream, seconds},
};
use crate::proto::etcdserverpb::LeaseKeepAliveResponse;

/// A lease is renewed after a third of its TTL, as in etcd's clients.
const RENEWALS_PER_TTL: u32 = 3;
/// Between two rounds through all endpoints while none renews the lease.
const ROUND_WAIT_MAX: Duration = Duration::from_millis(500);

impl Client {
    /// Renews a lease until the keeper is dropped. Returns after the first renewal.
    ///
    /// # Errors
    /// If no member renews the lease now.
    pub async fn lease_keep_alive(&self, id: i64) -> Result<LeaseKeeper, ClientError> {
        let sent = Instant::now();
        let (stream, response) = self.first_renewal(id, sent + self.timeouts().command).await?;
        let alive_until = sent + seconds(response.ttl);
        let state = LeaseState { latest: response, alive_until, end: None };
        let (sender, state) = watch::channel(state);
        let task = RenewalTask { client: self.clone(), id, sent, state: sender };
        let task = tokio::spawn(task.run(stream));
        Ok(LeaseKeeper { id, state, task })
    }
}

/// Keeps one lease alive in the background while members come and go. Dropping the keeper stops the
/// renewals: the lease then expires after its TTL, unless [`lease_revoke`](Client::lease_revoke) ends it
/// at once.
#[derive(Debug)]
pub struct LeaseKeeper {
    id: i64,
    state: watch::Receiver<LeaseState>,
    task: JoinHandle<()>,
}

#[derive(Debug, Clone)]
struct LeaseState {
    latest: LeaseKeepAliveResponse,
    /// The lease does not expire before this.
    alive_until: Instant,
    end: Option<LeaseEnd>,
}

/// Why a lease is no longer renewed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LeaseEnd {
    /// The lease and its keys no longer exist.
    #[error("lease {id:016x} expired or was revoked")]
    Gone { id: i64 },
    /// No member renewed the lease for its whole TTL. It may have expired, or will soon.
    #[error("lease {id:016x} could not be renewed in time: {last}")]
    NotRenewed { id: i64, last: ClientError },
    /// A member refuses to renew the lease.
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

    /// The lease does not expire before this instant, unless a client revokes it. Counted from the moment
    /// when the latest successful renewal was sent.
    pub fn alive_until(&self) -> Instant {
        self.state.borrow().alive_until
    }

    /// Waits for the next renewal. A renewal since the last call counts; of several, only the latest.
    ///
    /// # Errors
    /// When the lease has ended: the same error from then on.
    pub async fn renewed(&mut self) -> Result<LeaseKeepAliveResponse, LeaseEnd> {
        if let Some(end) = &self.state.borrow().end {
            return Err(end.clone());
        }
        // Without an end, the task drops its sender only if it panicked.
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
struct RenewalTask {
    client: Client,
    id: i64,
    /// When the latest successful renewal was sent.
    sent: Instant,
    state: watch::Sender<LeaseState>,
}

impl RenewalTask {
    async fn run(mut self, stream: RenewalStream) {
        let mut stream = Some(stream);
        let mut at = self.client.preferred();
        let end = loop {
            let ttl = seconds(self.state.borrow().latest.ttl);
            let due = self.sent + ttl / RENEWALS_PER_TTL;
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

    /// Renews at the member of the last renewal, and if that fails at the others, until the lease may
    /// have expired.
    async fn renew(
        &mut self,
        stream: &mut Option<RenewalStream>,
        at: &mut usize,
        ttl: Duration,
    ) -> Result<(), LeaseEnd> {
        let (id, alive_until) = (self.id, self.state.borrow().alive_until);
        let attempt_timeout = self.client.timeouts().command.min(ttl / RENEWALS_PER_TTL);
        let mut backoff = Backoff::up_to(ROUND_WAIT_MAX);
        let mut attempts = 0;
        loop {
            let sent = Instant::now();
            let deadline = (sent + attempt_timeout).min(alive_until);
            let response = match stream {
                Some(stream) => stream.renew_by(&self.client, id, deadline).await,
                None => match self.renew_at(*at, deadline).await {
                    Ok((opened, response)) => {
                        *stream = Some(opened);
                        Ok(response)
                    }
                    Err(error) => Err(error),
                },
            };
            let error = match response {
                Ok(response) if response.ttl <= 0 => return Err(LeaseEnd::Gone { id }),
                Ok(response) => {
                    self.record(response, sent);
                    return Ok(());
                }
                Err(error) => error,
            };
            if is_final(&error) {
                return Err(LeaseEnd::Refused { id, error });
            }
            *stream = None;
            *at += 1;
            attempts += 1;
            if attempts % self.client.endpoints().len() == 0
                && timeout_at(alive_until, backoff.wait()).await.is_err()
                || Instant::now() >= alive_until
            {
                return Err(LeaseEnd::NotRenewed { id, last: error });
            }
        }
    }

    async fn renew_at(
        &self,
        at: usize,
        deadline: Instant,
    ) -> Result<(RenewalStream, LeaseKeepAliveResponse), ClientError> {
        let endpoints = self.client.endpoints();
        let endpoint = &endpoints[at % endpoints.len()];
        match timeout_at(deadline, self.client.renew_at(endpoint, self.id, deadline)).await {
            Ok(renewed) => renewed,
            Err(_) => Err(self.client.timed_out(endpoint.endpoint.to_string(), RequestKind::Read)),
        }
    }

    fn record(&mut self, response: LeaseKeepAliveResponse, sent: Instant) {
        self.sent = sent;
        let alive_until = sent + seconds(response.ttl);
        self.state.send_replace(LeaseState { latest: response, alive_until, end: None });
    }
}

/// Whether every member would refuse as well.
fn is_final(error: &ClientError) -> bool {
    let ClientError::Refused { code, .. } = error else { return false };
    matches!(code, Code::PermissionDenied | Code::Unauthenticated | Code::Unimplemented)
}

//! The withdrawal of a terminating pod's endpoints: a lame duck serves until clients are sent elsewhere.
//!
//! A member that closes its port at once refuses the clients that are still sent to it: kube-proxy and load
//! balancers learn of a terminating pod after the pod itself. So the member serves on
//! until its endpoints are withdrawn. The wait is bounded, because the API server may be away.

use std::time::Duration;

use tokio::time::Instant;

use super::grace::GracePeriod;
use crate::membership::orchestrator::Orchestrator;

/// Limit of the wait. The slowest way to a withdrawal is the readiness probe's.
const WITHDRAWAL_TIMEOUT: Duration = Duration::from_secs(10);
/// The wait takes this part of a shorter grace period.
const GRACE_DIVISOR: u32 = 4;
/// The whole wait if the endpoints cannot be read: a controller withdraws them in less, if one runs.
const UNKNOWN_TIMEOUT: Duration = Duration::from_secs(3);
/// The time from a withdrawal in Kubernetes to the last new connection: kube-proxy and load balancers read
/// the withdrawal, too. Members that leave together do not send their clients to each other either.
const SETTLE_TIME: Duration = Duration::from_secs(1);
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// Resolves once no clients are sent to this pod any more, or the wait has taken its time. While the
/// endpoints cannot be read, the time counts from SIGTERM: during an outage the pod has waited already.
pub async fn withdrawn(pods: &dyn Orchestrator, grace: &GracePeriod) {
    let began = Instant::now();
    let (mut is_unknown, mut was_logged) = (false, false);
    loop {
        let (since, limit) = match is_unknown {
            true => (grace.signal(), UNKNOWN_TIMEOUT),
            false => (began, WITHDRAWAL_TIMEOUT),
        };
        // The grace period may have become shorter.
        let ends = since + grace.deadline().share_of_period(GRACE_DIVISOR, limit);
        let is_published = tokio::select! {
            biased;
            () = tokio::time::sleep_until(ends) => break,
            answer = pods.endpoint_published() => answer,
        };
        is_unknown = is_published.is_err();
        match is_published {
            Ok(false) => {
                tokio::time::sleep_until(ends.min(Instant::now() + SETTLE_TIME)).await;
                return;
            }
            Err(error) if !was_logged => {
                was_logged = true;
                tracing::warn!(%error, "endpoints of this pod unknown: waiting for a fixed time");
            }
            Ok(true) | Err(_) => {}
        }
        tokio::time::sleep_until(ends.min(Instant::now() + POLL_INTERVAL)).await;
    }
    if !is_unknown {
        tracing::info!("endpoints of this pod not withdrawn in time: stopping all the same");
    }
}

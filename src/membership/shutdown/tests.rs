//! The waits of a shutdown, in real time, against a scripted orchestrator.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use super::{GracePeriod, OwnSet, decision::StopReason, withdrawal::withdrawn};
use crate::{
    membership::orchestrator::{
        BootstrapRecord, ClusterEvent, FormerClaim, FoundingOrder, Intent, Orchestrator,
        OrchestratorError, StoredRecord, Termination,
    },
    types::{DesiredReplicas, Ordinal},
};

/// No test waits so long for its result.
const LIMIT: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

/// Answers with whatever was set last.
#[derive(Debug)]
struct Scripted {
    intent: Mutex<Result<Intent, OrchestratorError>>,
    published: Mutex<Result<bool, OrchestratorError>>,
    grace: Mutex<Result<Option<Duration>, OrchestratorError>>,
    grace_reads: AtomicU32,
}

impl Scripted {
    fn new() -> Arc<Scripted> {
        Arc::new(Scripted {
            intent: Mutex::new(included()),
            published: Mutex::new(Ok(false)),
            grace: Mutex::new(Ok(None)),
            grace_reads: AtomicU32::new(0),
        })
    }
}

impl Orchestrator for Scripted {
    fn intent(&self) -> BoxFuture<'_, Result<Intent, OrchestratorError>> {
        Box::pin(async { self.intent.lock().unwrap().clone() })
    }

    fn bootstrap_record(&self) -> BoxFuture<'_, Result<Option<StoredRecord>, OrchestratorError>> {
        unreachable!("no part of a shutdown")
    }

    fn write_bootstrap_record<'a>(
        &'a self,
        _: BootstrapRecord,
        _: &'a str,
    ) -> BoxFuture<'a, Result<bool, OrchestratorError>> {
        unreachable!("no part of a shutdown")
    }

    fn create_bootstrap_record(
        &self,
        _: BootstrapRecord,
    ) -> BoxFuture<'_, Result<(), OrchestratorError>> {
        unreachable!("no part of a shutdown")
    }

    fn former_claims(&self) -> BoxFuture<'_, Result<Vec<FormerClaim>, OrchestratorError>> {
        unreachable!("no part of a shutdown")
    }

    fn order_founding<'a>(
        &'a self,
        _: &'a FoundingOrder,
        _: &'a str,
    ) -> BoxFuture<'a, Result<bool, OrchestratorError>> {
        unreachable!("no part of a shutdown")
    }

    fn last_leader(&self) -> BoxFuture<'_, Result<Option<Ordinal>, OrchestratorError>> {
        unreachable!("no part of a shutdown")
    }

    fn endpoint_published(&self) -> BoxFuture<'_, Result<bool, OrchestratorError>> {
        Box::pin(async { self.published.lock().unwrap().clone() })
    }

    fn termination(&self) -> BoxFuture<'_, Result<Option<Termination>, OrchestratorError>> {
        self.grace_reads.fetch_add(1, Relaxed);
        let deleted = |grace| Termination { grace, is_deleted: true };
        Box::pin(async move { Ok(self.grace.lock().unwrap().clone()?.map(deleted)) })
    }

    fn emit(&self, _: ClusterEvent) {}
}

fn included() -> Result<Intent, OrchestratorError> {
    let desired = DesiredReplicas { set: "a".into(), generation: 1, start: 0, replicas: 3 };
    Ok(Intent::Scale(desired))
}

fn forbidden<T>() -> Result<T, OrchestratorError> {
    Err(OrchestratorError::Forbidden("403".into()))
}

fn grace_of(period: Duration) -> (GracePeriod, watch::Sender<u32>) {
    let (repeat, repeated) = watch::channel(0);
    (GracePeriod::start(period, repeated), repeat)
}

/// The time that the wait takes.
async fn withdrawal_time(pods: &Scripted, period: Duration) -> Duration {
    let (grace, _repeat) = grace_of(period);
    let started = Instant::now();
    timeout(LIMIT, withdrawn(pods, &grace)).await.unwrap();
    started.elapsed()
}

#[tokio::test]
async fn a_restart_is_ended_by_the_deletion_of_the_manifests() {
    let pods = Scripted::new();
    let set = OwnSet::new(pods.clone(), Ordinal(0));
    set.learn_permission().await;
    *pods.intent.lock().unwrap() = forbidden();
    let began = Instant::now();
    let reason = timeout(LIMIT, set.hibernation()).await.unwrap();
    assert_eq!(reason, StopReason::Revoked);
    assert!(began.elapsed() >= 2 * SECOND, "after {:?}", began.elapsed());

    let set = OwnSet::new(pods.clone(), Ordinal(0));
    *pods.intent.lock().unwrap() = Ok(Intent::Hibernate);
    assert_eq!(timeout(LIMIT, set.hibernation()).await.unwrap(), StopReason::Hibernating);
}

#[tokio::test]
async fn a_restart_outlasts_an_api_server_that_starts() {
    let pods = Scripted::new();
    let set = OwnSet::new(pods.clone(), Ordinal(0));
    set.learn_permission().await;
    let api_server = async {
        *pods.intent.lock().unwrap() = Err(OrchestratorError::Unreachable("away".into()));
        sleep(SECOND).await;
        *pods.intent.lock().unwrap() = forbidden();
        sleep(SECOND).await;
        *pods.intent.lock().unwrap() = included();
        sleep(3 * SECOND).await;
    };
    tokio::select! {
        reason = set.hibernation() => panic!("{reason:?}"),
        () = api_server => {}
    }
}

#[tokio::test]
async fn a_lame_duck_serves_until_its_endpoints_are_withdrawn() {
    let pods = Scripted::new();
    *pods.published.lock().unwrap() = Ok(true);
    let withdraw = async {
        sleep(2 * SECOND).await;
        *pods.published.lock().unwrap() = Ok(false);
    };
    let (waited, ()) = tokio::join!(withdrawal_time(&pods, 120 * SECOND), withdraw);
    // One second more, for kube-proxy.
    assert!(waited >= 3 * SECOND, "{waited:?}");
}

#[tokio::test]
async fn a_lame_duck_waits_for_a_fixed_time_without_an_answer() {
    let pods = Scripted::new();
    *pods.published.lock().unwrap() = forbidden();
    let waited = withdrawal_time(&pods, 120 * SECOND).await;
    assert!(waited >= 3 * SECOND && waited < 10 * SECOND, "{waited:?}");
}

#[tokio::test]
async fn the_wait_for_a_withdrawal_takes_a_quarter_of_a_short_grace_period() {
    let pods = Scripted::new();
    let periods = [(4, Ok(true)), (4, Ok(false)), (4, forbidden()), (0, Ok(true))];
    for (seconds, published) in periods {
        *pods.published.lock().unwrap() = published;
        let waited = withdrawal_time(&pods, seconds * SECOND).await;
        let limit = seconds * SECOND / 4;
        assert!(waited >= limit && waited < limit + 2 * SECOND, "{seconds}: {waited:?}");
    }
}

/// Some container runtimes deliver a second SIGTERM, others do not.
#[tokio::test]
async fn a_grace_period_that_is_shortened_ends_the_waiting() {
    for is_signaled in [true, false] {
        let pods = Scripted::new();
        let (grace, repeat) = grace_of(120 * SECOND);
        let began = Instant::now();
        let shorten = async {
            sleep(SECOND / 2).await;
            *pods.grace.lock().unwrap() = Ok(Some(4 * SECOND));
            if is_signaled {
                repeat.send_modify(|count| *count += 1);
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = grace.waiting_ended() => {}
            never = grace.follow(&*pods) => match never {},
            () = shorten => {}
            () = sleep(LIMIT) => panic!("the deadline stays"),
        }
        let ended = began.elapsed();
        assert!(ended >= 2 * SECOND && ended < 10 * SECOND, "{ended:?}");
    }
}

#[tokio::test]
async fn a_pod_that_cannot_be_read_has_its_configured_grace_period() {
    let pods = Scripted::new();
    let (grace, repeat) = grace_of(120 * SECOND);
    let deadline = grace.deadline();
    for answer in [forbidden(), Ok(None), Ok(Some(300 * SECOND))] {
        *pods.grace.lock().unwrap() = answer;
        let reads = pods.grace_reads.load(Relaxed);
        let read_again = async {
            repeat.send_modify(|count| *count += 1);
            while pods.grace_reads.load(Relaxed) < reads + 2 {
                sleep(SECOND / 20).await;
            }
        };
        tokio::select! {
            never = grace.follow(&*pods) => match never {},
            () = read_again => {}
        }
    }
    assert_eq!(grace.deadline().waiting_ends(), deadline.waiting_ends());
}

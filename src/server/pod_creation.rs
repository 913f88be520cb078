//! Follows an ordered creation of pods, for the readiness of a pod without a quorum ([readiness]), and
//! keeps clients away from a pod that is ready before it is a member.
//!
//! [readiness]: super::readiness

use std::{convert::Infallible, sync::Arc, time::Duration};

use tokio::{
    net::TcpListener,
    time::{Instant, sleep, timeout},
};

use super::{admin::MemberHealth, readiness::Ready};
use crate::{
    membership::{ClusterEvent, Orchestrator, Reminder},
    shutdown::ShutdownSignal,
};

/// Interval of the checks. The StatefulSet is read only while this member has no quorum.
const POLL_INTERVAL: Duration = Duration::from_secs(2);
/// Interval of checks whether clients must be refused.
const REFUSAL_CHECK_INTERVAL: Duration = Duration::from_millis(200);

/// Polls until `stopping` resolves.
pub async fn follow_pod_creation(
    health: MemberHealth,
    orchestrator: Arc<dyn Orchestrator>,
    mut stopping: ShutdownSignal,
) {
    let mut reminder = Reminder::default();
    loop {
        tokio::select! {
            () = stopping.wait() => return,
            () = poll(&health, &*orchestrator, &mut reminder, Instant::now()) => {}
        }
        tokio::select! {
            () = stopping.wait() => return,
            () = sleep(POLL_INTERVAL) => {}
        }
    }
}

/// Tells `health` which pods exist while this member is not ready by itself, and reports when it is ready
/// without a quorum.
async fn poll(
    health: &MemberHealth,
    orchestrator: &dyn Orchestrator,
    reminder: &mut Reminder,
    now: Instant,
) {
    if health.ready() == Ok(Ready::Serving) {
        health.set_pod_creation(None);
        return reminder.clear();
    }
    match orchestrator.pod_creation().await {
        Ok(creation) => health.set_pod_creation(creation),
        // Without an API server nothing creates pods: the last answer is the newest.
        Err(e) => tracing::debug!(error = %e, "pod creation not read"),
    }
    if let Ok(Ready::AwaitingPods(reason)) = health.ready()
        && reminder.is_due(&reason, now)
    {
        tracing::warn!(reason, "readiness without a quorum");
        orchestrator.emit(ClusterEvent::of_pod("Waiting", reason));
    }
}

/// While this pod counts as ready and is not a member yet, closes the connections of clients at once. In
/// the listener's queue they would wait for this pod, instead of trying another one.
pub async fn refuse_clients(clients: &TcpListener, health: &MemberHealth) -> Infallible {
    loop {
        if matches!(health.ready(), Ok(Ready::AwaitingPods(_))) {
            let _ = timeout(REFUSAL_CHECK_INTERVAL, clients.accept()).await;
        } else {
            sleep(REFUSAL_CHECK_INTERVAL).await;
        }
    }
}

#[cfg(test)]
#[cfg(feature = "k8s")]
mod tests {
    use std::sync::Mutex;

    use futures_util::future::BoxFuture;
    use tokio::{io::AsyncReadExt as _, net::TcpStream};

    use super::*;
    use crate::{
        fault::Fault,
        lane::Lanes,
        membership::{
            BootstrapRecord, FormerClaim, FoundingOrder, Intent, OrchestratorError, PodCreation,
            StoredRecord, Termination,
        },
        types::Ordinal,
    };

    /// A StatefulSet with the policy `OrderedReady`.
    #[derive(Debug, Default)]
    struct OrderedPods {
        creation: Mutex<Option<PodCreation>>,
        events: Mutex<Vec<ClusterEvent>>,
    }

    impl OrderedPods {
        fn set_created(&self, created: u32) {
            let creation = PodCreation { first: Ordinal(0), created, replicas: 3 };
            let complete = created == 3;
            *self.creation.lock().unwrap() = (!complete).then_some(creation);
        }

        fn events(&self) -> usize {
            self.events.lock().unwrap().len()
        }
    }

    impl Orchestrator for OrderedPods {
        fn intent(&self) -> BoxFuture<'_, Result<Intent, OrchestratorError>> {
            Box::pin(async { Err(OrchestratorError::Unreachable("unused".into())) })
        }

        fn bootstrap_record(
            &self,
        ) -> BoxFuture<'_, Result<Option<StoredRecord>, OrchestratorError>> {
            Box::pin(async { Ok(None) })
        }

        fn write_bootstrap_record<'a>(
            &'a self,
            _: BootstrapRecord,
            _: &'a str,
        ) -> BoxFuture<'a, Result<bool, OrchestratorError>> {
            Box::pin(async { Ok(false) })
        }

        fn former_claims(&self) -> BoxFuture<'_, Result<Vec<FormerClaim>, OrchestratorError>> {
            Box::pin(async { Ok(Vec::new()) })
        }

        fn order_founding<'a>(
            &'a self,
            _: &'a FoundingOrder,
            _: &'a str,
        ) -> BoxFuture<'a, Result<bool, OrchestratorError>> {
            Box::pin(async { Ok(false) })
        }

        fn last_leader(&self) -> BoxFuture<'_, Result<Option<Ordinal>, OrchestratorError>> {
            Box::pin(async { Ok(None) })
        }

        fn create_bootstrap_record(
            &self,
            _: BootstrapRecord,
        ) -> BoxFuture<'_, Result<(), OrchestratorError>> {
            Box::pin(async { Ok(()) })
        }

        fn endpoint_published(&self) -> BoxFuture<'_, Result<bool, OrchestratorError>> {
            Box::pin(async { Ok(true) })
        }

        fn termination(&self) -> BoxFuture<'_, Result<Option<Termination>, OrchestratorError>> {
            Box::pin(async { Ok(None) })
        }

        fn pod_creation(&self) -> BoxFuture<'_, Result<Option<PodCreation>, OrchestratorError>> {
            let creation = *self.creation.lock().unwrap();
            Box::pin(async move { Ok(creation) })
        }

        fn emit(&self, event: ClusterEvent) {
            self.events.lock().unwrap().push(event);
        }
    }

    /// The health of a process that started a minute ago.
    fn health() -> MemberHealth {
        let started = Instant::now() - Duration::from_secs(60);
        MemberHealth::since(started, Lanes::Tasks, Fault::default())
    }

    #[tokio::test]
    async fn a_pod_without_a_cluster_lets_the_statefulset_create_the_others_and_says_so() {
        let (health, pods, mut reminder) = (health(), OrderedPods::default(), Reminder::default());
        let begun = Instant::now();
        let mut poll_at = async |created, minute: u64| {
            pods.set_created(created);
            let now = begun + Duration::from_secs(60 * minute);
            poll(&health, &pods, &mut reminder, now).await;
            (health.ready(), pods.events())
        };
        let (ready, events) = poll_at(1, 0).await;
        assert!(matches!(ready, Ok(Ready::AwaitingPods(_))), "{ready:?}");
        assert_eq!(events, 1);
        assert_eq!(poll_at(1, 9).await.1, 1);
        assert_eq!(poll_at(1, 10).await.1, 2, "an Event expires");
        let (ready, _) = poll_at(3, 11).await;
        assert!(ready.is_err(), "no pod is missing any more: {ready:?}");
        health.set_formed();
        assert_eq!(poll_at(1, 12).await.0, Err("recovering".into()));
    }

    #[tokio::test]
    async fn clients_of_a_pod_that_is_no_member_are_refused_at_once() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let (health, address) = (health(), listener.local_addr().unwrap());
        let mut client = TcpStream::connect(address).await.unwrap();
        let refusing = async {
            let never = refuse_clients(&listener, &health).await;
            match never {}
        };
        let mut refusing = std::pin::pin!(refusing);
        let mut byte = [0];
        // Not ready: the client waits, since this pod may become a member at any moment.
        tokio::select! {
            () = &mut refusing => {}
            read = client.read(&mut byte) => panic!("refused: {read:?}"),
            () = sleep(REFUSAL_CHECK_INTERVAL * 3) => {}
        }
        health.set_pod_creation(Some(PodCreation { first: Ordinal(0), created: 1, replicas: 3 }));
        let limit = Duration::from_secs(10);
        tokio::select! {
            () = &mut refusing => {}
            read = timeout(limit, client.read(&mut byte)) => {
                assert!(matches!(read, Ok(Ok(0) | Err(_))), "{read:?}");
            }
        }
    }
}

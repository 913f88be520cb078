//! Follows an ordered creation of pods, for the readiness of a pod without a quorum ([readiness]), and
//! keeps clients away from a pod that is ready before it is a member.
//!
//! [readiness]: super::readiness

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout};

use super::{admin::MemberHealth, readiness::Ready};
use crate::{
    membership::{ClusterEvent, Orchestrator, PodCreation, Reminder},
    shutdown::ShutdownSignal,
};

/// Interval of the checks, in which a member that is not ready reads the StatefulSet.
const POLL_INTERVAL: Duration = Duration::from_secs(2);
/// Interval in which a serving member reads the StatefulSet: once it has no quorum, it must know which
/// pods existed while it had one.
const SERVING_READ_INTERVAL: Duration = Duration::from_secs(30);
/// Interval of checks whether clients must be refused.
const REFUSAL_CHECK_INTERVAL: Duration = Duration::from_millis(200);

/// Polls until `stopping` resolves.
pub async fn follow_pod_creation(
    health: MemberHealth,
    orchestrator: Arc<dyn Orchestrator>,
    mut stopping: ShutdownSignal,
) {
    let mut observer = CreationObserver::default();
    loop {
        tokio::select! {
            () = stopping.wait() => return,
            () = observer.poll(&health, &*orchestrator, Instant::now()) => {}
        }
        tokio::select! {
            () = stopping.wait() => return,
            () = sleep(POLL_INTERVAL) => {}
        }
    }
}

/// What this process has read about the creation of pods.
#[derive(Debug, Default)]
struct CreationObserver {
    creation: Option<PodCreation>,
    /// The time since which `creation` has not changed.
    since: Option<Instant>,
    read_at: Option<Instant>,
    reminder: Reminder,
}

impl CreationObserver {
    /// Tells `health` which pods exist while this member is not ready by itself, and reports when it is
    /// ready without a quorum.
    async fn poll(&mut self, health: &MemberHealth, pods: &dyn Orchestrator, now: Instant) {
        if health.ready() == Ok(Ready::Serving) {
            self.reminder.clear();
            health.set_pod_creation(None);
            let is_fresh = |at: Instant| now.duration_since(at) < SERVING_READ_INTERVAL;
            if !self.read_at.is_some_and(is_fresh) {
                self.read(pods, now).await;
            }
            return;
        }
        // Without an API server nothing creates pods: the last answer is the newest.
        self.read(pods, now).await;
        health.set_pod_creation(self.creation.zip(self.since));
        if let Ok(Ready::AwaitingPods(reason)) = health.ready()
            && self.reminder.is_due(&reason, now)
        {
            tracing::warn!(reason, "readiness without a quorum");
            pods.emit(ClusterEvent::of_pod("Waiting", reason));
        }
    }

    async fn read(&mut self, pods: &dyn Orchestrator, now: Instant) {
        self.read_at = Some(now);
        match pods.pod_creation().await {
            Ok(creation) if self.since.is_none() || creation != self.creation => {
                (self.creation, self.since) = (creation, Some(now));
            }
            Ok(_) => {}
            Err(e) => tracing::debug!(error = %e, "pod creation not read"),
        }
    }
}

/// While this pod counts as ready and is not a member yet, closes the connections of clients at once. In
/// the listener's queue they would wait for this pod, instead of trying another one.
pub async fn refuse_clients<C, A: Future<Output = io::Result<C>>>(
    accept: impl Fn() -> A,
    health: &MemberHealth,
) -> Infallible {
    loop {
        let mut failed = false;
        let refuses = matches!(health.ready(), Ok(Ready::AwaitingPods(_)));
        if refuses {
            failed = matches!(timeout(REFUSAL_CHECK_INTERVAL, accept()).await, Ok(Err(_)));
        }
        // After a failure the process is out of file descriptors, and may remain so for a while.
        if failed || !refuses {
            sleep(REFUSAL_CHECK_INTERVAL).await;
        }
    }
}

#[cfg(test)]
#[cfg(feature = "k8s")]
mod tests {
    use std::{path::Path, sync::Mutex};

    use futures_util::future::BoxFuture;
    use tokio::{
        io::AsyncReadExt as _,
        net::{TcpListener, TcpStream},
    };

    use super::*;
    use crate::{
        disk::sim::SimDisk,
        fault::Fault,
        lane::Lanes,
        membership::{
            Bootstrap, BootstrapConfig, BootstrapRecord, DataDir, FormerClaim, FoundingOrder,
            Intent, OrchestratorError, StoredRecord, Termination,
        },
        rng::SystemRng,
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

    const FIRST_OF_THREE: PodCreation = PodCreation { first: Ordinal(0), created: 1, replicas: 3 };

    /// The health of a process that started a minute ago.
    fn health() -> MemberHealth {
        let started = Instant::now() - Duration::from_secs(60);
        MemberHealth::since(started, Lanes::Tasks, Fault::default())
    }

    #[tokio::test]
    async fn a_pod_without_a_cluster_lets_the_statefulset_create_the_others_and_says_so() {
        let (health, pods) = (health(), OrderedPods::default());
        let mut observer = CreationObserver::default();
        let begun = Instant::now();
        let mut poll_at = async |created, minute: u64| {
            pods.set_created(created);
            let now = begun + Duration::from_secs(60 * minute);
            observer.poll(&health, &pods, now).await;
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
    async fn a_pod_that_a_cluster_answers_is_not_ready_while_pods_are_created() {
        let health = health();
        let config = BootstrapConfig {
            ordinal: Ordinal(3),
            home: "default/kv".into(),
            founders: 1,
            known: [Ordinal(0)].into(),
            orchestrator: None,
            takeover_timeout: Duration::ZERO,
        };
        let dir = DataDir::open(Arc::new(SimDisk::new(1)), Path::new("/data")).unwrap();
        let rng = Arc::new(SystemRng);
        let bootstrap = Arc::new(Bootstrap::open(config, Arc::new(dir), rng).unwrap());
        health.follow_bootstrap(bootstrap.clone());
        health.set_pod_creation(Some((FIRST_OF_THREE, Instant::now())));
        assert!(matches!(health.ready(), Ok(Ready::AwaitingPods(_))));
        bootstrap.note_quorum_answer();
        let waits = "waiting to join a cluster that has a quorum";
        assert_eq!(health.ready(), Err(waits.into()));
    }

    #[tokio::test]
    async fn clients_of_a_pod_that_is_no_member_are_refused_at_once() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let (health, address) = (health(), listener.local_addr().unwrap());
        let mut client = TcpStream::connect(address).await.unwrap();
        let refusing = async {
            let never = refuse_clients(|| listener.accept(), &health).await;
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
        health.set_pod_creation(Some((FIRST_OF_THREE, Instant::now())));
        let limit = Duration::from_secs(10);
        tokio::select! {
            () = &mut refusing => {}
            read = timeout(limit, client.read(&mut byte)) => {
                assert!(matches!(read, Ok(Ok(0) | Err(_))), "{read:?}");
            }
        }
    }

    #[tokio::test]
    async fn the_age_of_a_creation_counts_from_its_last_change() {
        let (pods, mut observer) = (OrderedPods::default(), CreationObserver::default());
        let begun = Instant::now();
        let mut since = async |created, second| {
            pods.set_created(created);
            observer.read(&pods, begun + Duration::from_secs(second)).await;
            observer.since.map(|at| at.duration_since(begun).as_secs())
        };
        assert_eq!(since(3, 0).await, Some(0));
        assert_eq!(since(2, 30).await, Some(30));
        assert_eq!(since(2, 60).await, Some(30));
        assert_eq!(since(1, 90).await, Some(90));
    }

    #[tokio::test]
    async fn a_failed_accept_is_not_repeated_at_once() {
        let (health, accepts) = (health(), Mutex::new(0));
        health.set_pod_creation(Some((FIRST_OF_THREE, Instant::now())));
        let accept = || {
            *accepts.lock().unwrap() += 1;
            assert!(*accepts.lock().unwrap() < 100, "a busy loop");
            std::future::ready(io::Result::<()>::Err(io::ErrorKind::Other.into()))
        };
        let refusing = refuse_clients(accept, &health);
        assert!(timeout(REFUSAL_CHECK_INTERVAL * 5, refusing).await.is_err());
        let accepts = *accepts.lock().unwrap();
        assert!((1..=6).contains(&accepts), "{accepts}");
    }
}

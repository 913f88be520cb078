//! The bootstrap record under running members: it is deleted, replaced with a stale one, or written by a
//! member that recovers alone.

use std::sync::Mutex;

use futures_util::future::BoxFuture;
use tokio::time::{Duration, Instant};

use super::{
    super::{
        orchestrator::{
            BootstrapRecord, ClusterEvent, FormerClaim, Intent, Orchestrator, OrchestratorError,
            StoredRecord, Termination,
        },
        record_guard::{Fenced, RecordGuard},
    },
    pods::{PODS, STALE, Step, World, run},
};
use crate::{
    disk::sim::Crash,
    types::{ClusterId, Ordinal},
};

#[test]
fn a_deleted_record_is_written_again_by_the_running_cluster() {
    run(async || {
        let world = World::new();
        world.all_up().await;
        let [ours] = world.clusters().into_iter().collect::<Vec<_>>()[..] else { panic!("one") };
        world.play(&[Step::DeleteRecord]).await;
        assert_eq!((world.formed(), world.members()), (Some(ours), PODS));
    });
}

#[test]
fn without_a_running_member_a_deleted_record_stays_away() {
    run(async || {
        let world = World::new();
        world.play(&[Step::DeleteRecord]).await;
        world.all_up().await;
        assert_eq!((world.members(), world.formed()), (0, None));
    });
}

/// The stale record is not overwritten; once it is corrected, the members return.
#[test]
fn a_stale_record_stops_all_members_until_it_is_corrected() {
    run(async || {
        let world = World::new();
        world.all_up().await;
        let before = world.clusters();
        world.play(&[Step::StaleRecord]).await;
        assert_eq!((world.members(), world.formed()), (0, Some(STALE)));
        world.all_up().await;
        assert_eq!((world.members(), world.formed()), (0, Some(STALE)), "the start is refused");
        let ours = *before.first().expect("a cluster");
        let corrected = BootstrapRecord::Formed { cluster: ours };
        world.api.0.lock().unwrap().record = Some((corrected, 1000, 1000));
        world.all_up().await;
        assert_eq!((world.members(), world.clusters()), (PODS, before));
    });
}

/// An operator recovers from one member while the others live beyond a partition.
#[test]
fn a_recovery_during_a_partition_leaves_one_cluster_serving() {
    for (kept, is_deleted) in (0..PODS).flat_map(|kept| [(kept, false), (kept, true)]) {
        run(async || {
            let world = World::new();
            world.all_up().await;
            let before = world.clusters();
            let up = world.pods[kept].lock().unwrap().up.clone().expect("a running pod");
            let recovered = up.order_recovery().unwrap().expect("a member");
            drop(up);
            world.crash(kept, Crash::KeepAll);
            assert_eq!(world.clusters(), before);
            if is_deleted {
                world.api.0.lock().unwrap().record = None;
            }
            for _ in 0..4 {
                world.start(kept);
                world.round(kept, true).await;
                let both = world.clusters().len() > 1;
                world.lead().await;
                assert!(!both || world.clusters().len() == 1, "two clusters serve");
            }
            assert_eq!(world.clusters(), [recovered].into());
            // The others keep their volumes, and are refused until an operator deletes those.
            world.all_up().await;
            assert_eq!((world.members(), world.clusters()), (1, [recovered].into()));
            (0..PODS).filter(|i| *i != kept).for_each(|i| world.wipe(i));
            world.all_up().await;
            assert_eq!((world.members(), world.clusters()), (PODS, [recovered].into()));
        });
    }
}

/// Answers each read with the next record, and refuses or accepts writes.
#[derive(Debug, Default)]
struct Script {
    reads: Mutex<Vec<Result<Option<BootstrapRecord>, OrchestratorError>>>,
    reads_answered: Mutex<usize>,
    refuses: bool,
    events: Mutex<Vec<ClusterEvent>>,
    writes: Mutex<Vec<&'static str>>,
}

impl Orchestrator for Script {
    fn intent(&self) -> BoxFuture<'_, Result<Intent, OrchestratorError>> {
        unreachable!("the guard does not read the replicas")
    }

    fn bootstrap_record(&self) -> BoxFuture<'_, Result<Option<StoredRecord>, OrchestratorError>> {
        *self.reads_answered.lock().unwrap() += 1;
        let mut reads = self.reads.lock().unwrap();
        let read = if reads.len() > 1 { reads.remove(0) } else { reads[0].clone() };
        let (version, younger_by) = ("7".into(), Duration::ZERO);
        let stored =
            move |record| StoredRecord { record, version, younger_by, despite_volumes: false };
        Box::pin(async move { read.map(|record| record.map(stored)) })
    }

    fn write_bootstrap_record<'a>(
        &'a self,
        _: BootstrapRecord,
        version: &'a str,
    ) -> BoxFuture<'a, Result<bool, OrchestratorError>> {
        assert_eq!(version, "7");
        self.writes.lock().unwrap().push("write");
        let done = if self.refuses { Err(refused()) } else { Ok(true) };
        Box::pin(async { done })
    }

    fn create_bootstrap_record(
        &self,
        _: BootstrapRecord,
    ) -> BoxFuture<'_, Result<(), OrchestratorError>> {
        self.writes.lock().unwrap().push("create");
        let done = if self.refuses { Err(refused()) } else { Ok(()) };
        Box::pin(async { done })
    }

    fn former_claims(&self) -> BoxFuture<'_, Result<Vec<FormerClaim>, OrchestratorError>> {
        unreachable!("the guard founds nothing")
    }

    fn order_founding<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<bool, OrchestratorError>> {
        unreachable!("the guard founds nothing")
    }

    fn last_leader(&self) -> BoxFuture<'_, Result<Option<Ordinal>, OrchestratorError>> {
        unreachable!("the guard asks for no leader")
    }

    fn endpoint_published(&self) -> BoxFuture<'_, Result<bool, OrchestratorError>> {
        unreachable!("the guard ends no pod")
    }

    fn termination(&self) -> BoxFuture<'_, Result<Option<Termination>, OrchestratorError>> {
        unreachable!("the guard ends no pod")
    }

    fn emit(&self, event: ClusterEvent) {
        self.events.lock().unwrap().push(event);
    }
}

fn refused() -> OrchestratorError {
    OrchestratorError::Forbidden("ConfigMap kv-cluster: 403".into())
}

const OURS: ClusterId = ClusterId(0xa);
const OTHER: ClusterId = ClusterId(0xb);

fn guard() -> RecordGuard {
    let mut guard = RecordGuard::new(OURS, Ordinal(2));
    guard.confirm_after = Duration::ZERO;
    guard
}

fn formed(cluster: ClusterId) -> Result<Option<BootstrapRecord>, OrchestratorError> {
    Ok(Some(BootstrapRecord::Formed { cluster }))
}

#[test]
fn a_member_is_fenced_by_two_reads_in_a_row_and_not_by_a_half_done_edit() {
    let unreachable = || Err(OrchestratorError::Unreachable("away".into()));
    let fenced = Some(Fenced { ordinal: Ordinal(2), ours: OURS, formed: OTHER });
    for (reads, leads, expected) in [
        (vec![formed(OTHER), formed(OTHER)], true, fenced),
        (vec![formed(OTHER), formed(OTHER)], false, fenced),
        (vec![formed(OTHER), formed(OURS)], true, None),
        (vec![formed(OTHER), Ok(Some(BootstrapRecord::Empty))], true, None),
        (vec![formed(OTHER), Ok(None)], true, None),
        (vec![formed(OTHER), unreachable()], true, None),
        (vec![formed(OURS)], true, None),
        (vec![unreachable()], true, None),
    ] {
        run(async || {
            let script = Script { reads: reads.clone().into(), ..Script::default() };
            let answer = guard().check(&script, leads, Instant::now()).await;
            assert_eq!(answer, expected, "{reads:?}");
            assert_eq!(*script.reads_answered.lock().unwrap(), reads.len(), "{reads:?}");
            assert!(script.writes.lock().unwrap().is_empty(), "{reads:?}");
            let events: Vec<&str> =
                script.events.lock().unwrap().iter().map(|event| event.reason).collect();
            assert_eq!(events, if answer.is_some() { vec!["Fenced"] } else { vec![] });
        });
    }
}

#[test]
fn only_the_leader_writes_the_record_again_and_a_formed_one_never() {
    let claimed = BootstrapRecord::Claimed {
        cluster: OTHER,
        member: crate::types::MemberId(1),
        ordinal: Ordinal(0),
    };
    for (read, written) in [
        (Ok(None), vec!["create"]),
        (Ok(Some(BootstrapRecord::Empty)), vec!["write"]),
        (Ok(Some(claimed)), vec!["write"]),
        (formed(OURS), vec![]),
        (formed(OTHER), vec![]),
    ] {
        run(async || {
            let script = Script { reads: vec![read.clone()].into(), ..Script::default() };
            let mut guard = guard();
            guard.check(&script, false, Instant::now()).await;
            assert!(script.writes.lock().unwrap().is_empty(), "{read:?}");
            guard.check(&script, true, Instant::now()).await;
            assert_eq!(*script.writes.lock().unwrap(), written, "{read:?}");
        });
    }
}

/// An operator must apply the Role again: the leader says so once in ten minutes, and tries twice a minute. A
/// starting API server refuses everything for a moment, which is nothing to report.
#[test]
fn a_refused_write_is_reported_and_not_repeated_with_every_poll() {
    run(async || {
        let script = Script { reads: vec![Ok(None)].into(), refuses: true, ..Script::default() };
        let (mut guard, began, mut polled) = (guard(), Instant::now(), Duration::ZERO);
        let counts = || {
            let creations = script.writes.lock().unwrap().len();
            (creations, script.events.lock().unwrap().len())
        };
        for (until, expected) in [(10, (5, 0)), (40, (6, 1)), (600, (24, 1)), (650, (26, 2))] {
            let polls = (0..until).step_by(2).map(Duration::from_secs);
            for at in polls.filter(|at| *at >= polled) {
                guard.check(&script, true, began + at).await;
            }
            polled = Duration::from_secs(until);
            assert_eq!(counts(), expected, "after {until} s");
        }
        let events = script.events.lock().unwrap().clone();
        assert_eq!(events.len(), 2, "Events expire");
        let text = &events[0].message;
        assert!(text.contains("missing") && text.contains("Apply the manifests again"), "{text}");
    });
}

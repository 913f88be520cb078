//! The bootstrap record under running members: it is deleted, replaced with a stale one, or written by a
//! member that recovers alone.

use std::sync::Mutex;

use futures_util::future::BoxFuture;
use tokio::time::{Duration, Instant};

use super::{
    super::{
        Identity, Stage,
        orchestrator::{
            BootstrapRecord, ClusterEvent, FormerClaim, FoundingOrder, Intent, Orchestrator,
            OrchestratorError, StoredRecord, Termination,
        },
        other_formed::OtherFormed,
        record_guard::{Fenced, RecordGuard},
    },
    pods::{PODS, STALE, Step, World, run},
};
use crate::{
    disk::sim::Crash,
    types::{ClusterId, MemberId, Ordinal},
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

/// Readiness depends on it: a pod that waits while a cluster has a quorum waits for no other pod.
#[test]
fn a_volume_notes_that_a_cluster_with_a_quorum_answers() {
    run(async || {
        let world = World::new();
        world.all_up().await;
        let answered_after_round = async |down: usize| {
            world.all_up().await;
            (0..down).for_each(|i| world.crash(i, Crash::KeepAll));
            world.wipe(2);
            world.start(2);
            world.round(2, true).await;
            let up = world.pods[2].lock().unwrap().up.clone().expect("it is up");
            up.quorum_answer_age().is_some()
        };
        assert!(answered_after_round(0).await);
        // Ordinal 1 answers as a member, and has no quorum.
        assert!(!answered_after_round(1).await);
        assert!(!answered_after_round(2).await);
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
            for _ in 0..8 {
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

/// The node of the first recovery's volume dies before the restart, and comes back after a recovery of
/// another volume.
#[test]
fn a_stored_order_does_not_replace_a_later_recovery() {
    for (stale, later) in (0..PODS).flat_map(|i| (0..PODS).map(move |j| (i, j))) {
        if stale == later {
            continue;
        }
        run(async || {
            let world = World::new();
            world.all_up().await;
            let order = |i: usize| {
                let up = world.pods[i].lock().unwrap().up.clone().expect("a running pod");
                up.order_recovery().unwrap().expect("a member")
            };
            let lost = order(stale);
            world.late(stale, true);
            let serves = order(later);
            world.crash(later, Crash::KeepAll);
            world.rounds().await;
            assert_eq!((world.formed(), world.clusters()), (Some(serves), [serves].into()));
            world.late(stale, false);
            world.rounds().await;
            assert_eq!((world.formed(), world.clusters()), (Some(serves), [serves].into()));
            let refusal =
                format!("as cluster {lost}, but the bootstrap record names cluster {serves}");
            assert!(world.api().events.iter().any(|event| event.contains(&refusal)));
            (0..PODS).filter(|i| *i != later).for_each(|i| world.wipe(i));
            world.rounds().await;
            assert_eq!((world.members(), world.clusters()), (PODS, [serves].into()));
        });
    }
}

/// An older build stored the order without the id of the lost cluster: the record decides alone.
#[test]
fn an_order_that_names_no_lost_cluster_replaces_no_record() {
    for is_deleted in [false, true] {
        run(async || {
            let world = World::new();
            world.all_up().await;
            let before = world.formed();
            let up = world.pods[1].lock().unwrap().up.clone().expect("a running pod");
            let recovered = up.order_recovery().unwrap().expect("a member");
            let ordered = up.identity().expect("a member");
            let older = Identity { recovered_from: None, ..ordered.clone() };
            assert!(up.replace_identity(Some(&ordered), older).unwrap());
            drop(up);
            (0..PODS).for_each(|i| world.late(i, true));
            if is_deleted {
                world.api().record = None;
            }
            world.late(1, false);
            world.rounds().await;
            let expected = if is_deleted { None } else { before };
            assert_eq!((world.formed(), world.members()), (expected, 0));
            let text = match is_deleted {
                true => format!("write `state: formed` and `cluster: {recovered}`"),
                false => "stored by an older version".into(),
            };
            assert!(world.api().events.iter().any(|event| event.contains(&text)));
        });
    }
}

/// The control plane was restored from a backup that is older than the recovery.
#[test]
fn a_recovered_member_says_that_the_record_names_its_predecessor() {
    run(async || {
        let world = World::new();
        world.all_up().await;
        let before = world.formed().expect("a cluster");
        let up = world.pods[0].lock().unwrap().up.clone().expect("a running pod");
        let recovered = up.order_recovery().unwrap().expect("a member");
        drop(up);
        (0..PODS).for_each(|i| world.late(i, true));
        world.late(0, false);
        world.rounds().await;
        assert_eq!(world.formed(), Some(recovered));
        world.api().record = Some((BootstrapRecord::Formed { cluster: before }, 1000, 1000));
        let said = |text: &str| {
            let events = std::mem::take(&mut world.api().events);
            let hint = format!("{recovered} was recovered from {before}");
            let said = events.iter().any(|event| event.contains(text) && event.contains(&hint));
            assert!(said, "{text}: {events:?}");
        };
        world.lead().await;
        said("stops serving");
        world.start(0);
        world.round(0, true).await;
        said("is refused");
        assert_eq!(world.members(), 0);
    });
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
        let stored = move |record| StoredRecord { record, version, younger_by, order: None };
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

    fn order_founding<'a>(
        &'a self,
        _: &'a FoundingOrder,
        _: &'a str,
    ) -> BoxFuture<'a, Result<bool, OrchestratorError>> {
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

fn member() -> Identity {
    Identity {
        cluster: OURS,
        member: MemberId(3),
        ordinal: Ordinal(2),
        home: "default/kv".into(),
        boot: 1,
        stage: Stage::Member,
        founders: Vec::new(),
        recovered_from: None,
    }
}

fn guard() -> RecordGuard {
    let mut guard = RecordGuard::new(&member());
    guard.confirm_after = Duration::ZERO;
    guard
}

fn formed(cluster: ClusterId) -> Result<Option<BootstrapRecord>, OrchestratorError> {
    Ok(Some(BootstrapRecord::Formed { cluster }))
}

#[test]
fn a_member_is_fenced_by_two_reads_in_a_row_and_not_by_a_half_done_edit() {
    let unreachable = || Err(OrchestratorError::Unreachable("away".into()));
    let fenced = Some(Fenced { ordinal: Ordinal(2), record: OtherFormed::new(&member(), OTHER) });
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
    let claimed =
        BootstrapRecord::Claimed { cluster: OTHER, member: MemberId(1), ordinal: Ordinal(0) };
    let (missing, away) = (|| Ok(None), || Err(OrchestratorError::Unreachable("away".into())));
    for (reads, written) in [
        // `kubectl delete -k` deletes the record first, and the StatefulSet a moment later.
        (vec![missing(), missing(), away()], vec![]),
        (vec![missing(), missing(), missing()], vec!["create"]),
        (vec![missing(), missing(), away(), missing()], vec![]),
        (vec![missing(), missing(), formed(OURS), missing()], vec![]),
        (vec![Ok(Some(BootstrapRecord::Empty)); 2], vec!["write"]),
        (vec![Ok(Some(claimed)); 2], vec!["write"]),
        (vec![formed(OURS); 2], vec![]),
        (vec![formed(OTHER); 2], vec![]),
    ] {
        run(async || {
            let script = Script { reads: reads.clone().into(), ..Script::default() };
            let mut guard = guard();
            guard.check(&script, false, Instant::now()).await;
            assert!(script.writes.lock().unwrap().is_empty(), "{reads:?}");
            for _ in 1..reads.len() {
                guard.check(&script, true, Instant::now()).await;
            }
            assert_eq!(*script.writes.lock().unwrap(), written, "{reads:?}");
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
        for (until, expected) in [(10, (4, 0)), (42, (6, 1)), (600, (24, 1)), (650, (26, 2))] {
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

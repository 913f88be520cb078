//! Volumes of a former cluster, whose pods do not answer: one test for each rule of a founding.

use std::{collections::BTreeSet, path::Path, time::Duration};

use super::{
    super::{
        FoundingOrderError, Identity, Stage,
        orchestrator::{BootstrapRecord, ClaimOrigin},
    },
    pods::{Claim, HOUR, ORDINALS, PODS, Set, Step, World, run},
};
use crate::{
    disk::sim::Crash,
    types::{ClusterId, MemberId, Ordinal},
};

/// A cluster whose pods are down, and its id.
async fn former() -> (World, BTreeSet<ClusterId>) {
    let world = World::new();
    world.all_up().await;
    let cluster = world.clusters();
    assert_eq!((world.members(), cluster.len()), (PODS, 1));
    (0..PODS).for_each(|i| world.crash(i, Crash::KeepAll));
    world.api().events.clear();
    (world, cluster)
}

/// The manifests are applied again while the volumes of the former pods do not attach.
async fn late_volumes(start: usize, replicas: usize) -> (World, BTreeSet<ClusterId>) {
    let (world, before) = former().await;
    world.recreate(start, replicas);
    (0..PODS).for_each(|i| world.late(i, true));
    (world, before)
}

impl World {
    fn founded(&self) -> BTreeSet<ClusterId> {
        self.founded.lock().unwrap().clone()
    }

    #[track_caller]
    fn assert_event(&self, text: &str) {
        let events = &self.api().events;
        assert!(events.iter().any(|event| event.contains(text)), "{text:?} not in {events:#?}");
    }

    /// The claim is deleted, and its pod needs none.
    fn delete_claim(&self, i: usize) {
        self.wipe(i);
        self.api().claims.remove(&i);
    }
}

#[test]
fn new_pods_wait_while_old_volumes_attach_late() {
    run(async || {
        let (world, before) = late_volumes(0, ORDINALS).await;
        world.rounds().await;
        assert_eq!(world.founded(), before);
        world.assert_event(
            "PersistentVolumeClaim data-kv-0 is older than the StatefulSet, so it may hold the data of a \
             former cluster, and its pod does not answer (likewise data-kv-1, data-kv-2). No pod founds",
        );
        world.all_up().await;
        assert_eq!((world.members(), world.clusters()), (ORDINALS, before));
    });
}

#[test]
fn other_ordinals_found_nothing_before_the_old_claims_are_deleted() {
    run(async || {
        let (world, before) = former().await;
        world.recreate(PODS, ORDINALS - PODS);
        world.rounds().await;
        assert_eq!(world.founded(), before);
        world.assert_event("data-kv-0 is older than the StatefulSet");
        world.assert_event("and the StatefulSet has no pod for it (likewise data-kv-1, data-kv-2)");
        (0..PODS).for_each(|i| world.delete_claim(i));
        world.rounds().await;
        assert_eq!((world.members(), world.clusters().len()), (ORDINALS - PODS, 1));
        assert!(world.clusters().is_disjoint(&before));
    });
}

#[test]
fn a_first_pod_whose_volume_is_new_waits_for_the_old_volumes() {
    run(async || {
        let (world, before) = late_volumes(0, PODS).await;
        world.wipe(0);
        world.late(0, false);
        world.rounds().await;
        assert_eq!(world.founded(), before);
        world.all_up().await;
        assert_eq!((world.members(), world.clusters()), (PODS, before));
    });
}

#[test]
fn pods_wait_for_a_pending_first_pod() {
    run(async || {
        let world = World::new();
        world.late(0, true);
        world.start(1);
        world.round(1, true).await;
        // Every new cluster waits so for some seconds.
        assert_eq!(world.api().events, [""; 0]);
        world.wait(1, Duration::from_secs(10)).await;
        assert!(world.founded().is_empty());
        world.assert_event("only the pod at ordinal 0 founds a cluster alone");
        world.assert_event("and ordinal 0 does not");
        world.all_up().await;
        assert_eq!((world.members(), world.clusters().len()), (PODS, 1));
    });
}

#[test]
fn a_pod_waits_for_restored_claims_of_any_age() {
    run(async || {
        let (world, before) = late_volumes(0, ORDINALS).await;
        (0..PODS).for_each(|i| world.restore(i));
        let set = world.api().set.created;
        assert!(world.api().claims.values().all(|claim| claim.created >= set));
        world.rounds().await;
        assert_eq!(world.founded(), before);
        world.assert_event("data-kv-0 was restored from a data source");
        world.all_up().await;
        assert_eq!((world.members(), world.clusters()), (ORDINALS, before));
    });
}

#[test]
fn a_record_that_is_younger_than_the_volumes_permits_nothing() {
    run(async || {
        let (world, before) = former().await;
        world.wipe(0);
        world.play(&[Step::DeleteRecord, Step::RecreateRecord(Duration::ZERO)]).await;
        for _ in 0..3 {
            world.start(0);
            world.round(0, true).await;
        }
        assert_eq!(world.founded(), before);
        world.assert_event("data-kv-1 is older than the bootstrap record");
        world.all_up().await;
        assert_eq!((world.members(), world.clusters()), (PODS, before));
    });
}

#[test]
fn without_a_list_of_the_claims_no_pod_founds() {
    run(async || {
        let world = World::new();
        world.api().refuses_list = true;
        world.rounds().await;
        assert!(world.founded().is_empty());
        world.assert_event(
            "no pod founds a cluster before it has read the PersistentVolumeClaims: Kubernetes forbids",
        );
        world.assert_event("Apply the Role again: it lacks list on persistentvolumeclaims");
        world.all_up().await;
        assert_eq!((world.members(), world.clusters().len()), (PODS, 1));
    });
}

/// An address may belong to another pod than before.
#[test]
fn the_answer_of_another_pod_proves_nothing() {
    run(async || {
        let world = World::new();
        world.late(0, true);
        world.stale_names.lock().unwrap().insert(Ordinal(0), Ordinal(2));
        world.rounds().await;
        assert!(world.founded().is_empty());
    });
}

/// The recreated set is younger than all volumes, and all of them are empty.
#[test]
fn old_volumes_that_answer_to_be_empty_prevent_nothing() {
    run(async || {
        let world = World::new();
        world.recreate(0, PODS);
        world.late(2, true);
        world.rounds().await;
        assert!(world.founded().is_empty());
        world.late(2, false);
        world.rounds().await;
        assert_eq!((world.members(), world.clusters().len()), (PODS, 1));
    });
}

#[test]
fn a_stalled_claim_is_taken_over_by_the_same_rules() {
    run(async || {
        let (world, before) = late_volumes(0, ORDINALS).await;
        let claimed = BootstrapRecord::Claimed {
            cluster: ClusterId(77),
            member: MemberId(1),
            ordinal: Ordinal(4),
        };
        world.api().record.as_mut().unwrap().0 = claimed;
        for _ in 0..4 {
            // With an immediate takeover.
            world.start(3);
            world.round(3, true).await;
        }
        assert_eq!(world.founded(), before);
        assert_eq!(world.api().record.unwrap().0, claimed);
    });
}

/// Claims may appear between the claim of the record and `formed`: an operator restores them.
#[test]
fn a_founder_checks_the_claims_again_before_its_cluster_is_formed() {
    for emptied in [false, true] {
        run(async || {
            let (world, before) = late_volumes(0, PODS).await;
            world.wipe(0);
            world.late(0, false);
            let old: Vec<Claim> =
                (1..PODS).map(|i| world.api().claims.remove(&i).unwrap()).collect();
            world.start(0);
            world.round(0, true).await;
            assert!(matches!(world.api().record.unwrap().0, BootstrapRecord::Claimed { .. }));
            world.api().claims.extend((1..PODS).zip(old));
            if emptied {
                world.empty_record();
            }
            for _ in 0..3 {
                world.start(0);
                world.round(0, true).await;
            }
            assert_eq!(world.founded(), before, "emptied: {emptied}");
            world.all_up().await;
            assert_eq!((world.members(), world.clusters()), (PODS, before));
        });
    }
}

#[test]
fn another_pod_than_the_first_asks_all_again_before_its_cluster_is_formed() {
    run(async || {
        let world = World::new();
        (0..PODS).for_each(|i| world.start_with_timeout(i, HOUR));
        world.round(1, true).await;
        assert!(matches!(world.api().record.unwrap().0, BootstrapRecord::Claimed { .. }));
        world.late(0, true);
        for _ in 0..3 {
            world.start_with_timeout(1, HOUR);
            world.round(1, true).await;
        }
        assert!(world.founded().is_empty());
        world.all_up().await;
        assert_eq!((world.members(), world.clusters().len()), (PODS, 1));
    });
}

#[test]
fn an_order_founds_despite_silent_volumes_and_ends_with_the_founding() {
    run(async || {
        let (world, before) = late_volumes(0, ORDINALS).await;
        world.rounds().await;
        let claims = world.order_founding(3).await.unwrap();
        let names: Vec<&str> = claims.iter().map(|claim| claim.name.as_str()).collect();
        assert_eq!(names, ["data-kv-0", "data-kv-1", "data-kv-2"]);
        assert!(claims.iter().all(|claim| claim.origin == ClaimOrigin::OlderThanSet));
        world.rounds().await;
        assert_eq!((world.members(), world.clusters().len()), (ORDINALS - PODS, 1));
        assert!(world.clusters().is_disjoint(&before));
        assert_eq!(world.api().order, None);
        // The former members are refused.
        let after = world.clusters();
        world.all_up().await;
        assert_eq!((world.members(), world.clusters()), (ORDINALS - PODS, after));
    });
}

/// The founder crashes after its claim: the order must hold until the cluster is formed.
#[test]
fn an_order_survives_the_restart_of_the_founder() {
    run(async || {
        let (world, before) = late_volumes(0, ORDINALS).await;
        world.start(3);
        world.order_founding(3).await.unwrap();
        world.play(&[Step::Round(3), Step::CrashUnconfirmed(3, Crash::KeepAll)]).await;
        assert_eq!(world.founded(), before);
        world.rounds().await;
        assert_eq!((world.members(), world.clusters().len()), (ORDINALS - PODS, 1));
    });
}

#[test]
fn an_order_overrides_a_pending_first_pod_and_an_archive() {
    run(async || {
        let world = World::new();
        world.late(0, true);
        world.start(1);
        assert_eq!(world.order_founding(1).await.unwrap(), []);
        world.rounds().await;
        assert_eq!((world.members(), world.clusters().len()), (PODS - 1, 1));
    });
    run(async || {
        let (world, before) = former().await;
        world.start(0);
        world.mark_removed(0);
        world.recreate(0, 1);
        world.start(0);
        world.round(0, true).await;
        world.assert_event("which may live at other ordinals");
        world.order_founding(0).await.unwrap();
        world.rounds().await;
        assert_eq!((world.members(), world.clusters().len()), (1, 1));
        assert!(world.clusters().is_disjoint(&before));
    });
}

/// An operator must know which data an order abandons.
#[test]
fn no_order_is_given_or_followed_while_the_claims_are_unknown() {
    run(async || {
        let (world, before) = late_volumes(0, ORDINALS).await;
        world.api().refuses_list = true;
        world.start(3);
        let error = world.order_founding(3).await.unwrap_err();
        assert!(matches!(error, FoundingOrderError::ClaimsUnknown(_)));
        assert!(error.to_string().contains("Apply the Role again"), "{error}");
        assert_eq!(world.api().order, None);
        world.api().refuses_list = false;
        world.order_founding(3).await.unwrap();
        world.api().refuses_list = true;
        world.rounds().await;
        assert_eq!(world.founded(), before);
    });
}

/// An order that is left over must not concern volumes that appear later.
#[test]
fn an_order_holds_only_for_the_claims_that_it_names() {
    run(async || {
        let (world, before) = late_volumes(0, ORDINALS).await;
        let appears_later = world.api().claims.remove(&1).unwrap();
        world.start(3);
        assert_eq!(world.order_founding(3).await.unwrap().len(), 2);
        world.api().claims.insert(1, appears_later);
        world.rounds().await;
        assert_eq!(world.founded(), before);
        world.assert_event("PersistentVolumeClaim data-kv-1 is older than the StatefulSet");
        // The next order replaces it.
        assert_eq!(world.order_founding(3).await.unwrap().len(), 3);
        world.rounds().await;
        assert_eq!((world.members(), world.clusters().len()), (ORDINALS - PODS, 1));
    });
}

#[test]
fn an_order_does_not_override_a_member_that_answers() {
    run(async || {
        let (world, before) = late_volumes(0, ORDINALS).await;
        world.late(1, false);
        world.start(1);
        world.start(3);
        world.order_founding(3).await.unwrap();
        world.rounds().await;
        assert_eq!((world.members(), world.clusters()), (1, before.clone()));
        assert_eq!(world.founded(), before);
        // Nor later, when the member does not answer any more.
        world.late(1, true);
        world.rounds().await;
        assert_eq!(world.founded(), before);
    });
}

#[test]
fn an_order_is_refused_where_nothing_can_be_founded() {
    run(async || {
        let (world, before) = former().await;
        let cluster = before.into_iter().next().unwrap();
        world.start(0);
        let refused = world.order_founding(0).await;
        assert!(matches!(refused, Err(FoundingOrderError::Member(c)) if c == cluster));
        world.wipe(1);
        world.start(1);
        let refused = world.order_founding(1).await;
        assert!(matches!(refused, Err(FoundingOrderError::Formed(c)) if c == cluster));
        world.api().record = None;
        assert!(matches!(world.order_founding(1).await, Err(FoundingOrderError::NoRecord)));
        world.api().away = true;
        assert!(matches!(world.order_founding(1).await, Err(FoundingOrderError::Orchestrator(_))));
    });
}

const SILENCE: Duration = Duration::from_secs(900);
const UNPROVABLE: Duration = Duration::from_secs(300);
const SECOND: Duration = Duration::from_secs(1);

impl World {
    fn names_command(&self) -> bool {
        self.api().events.iter().any(|event| event.contains("kvctl"))
    }

    /// The pod's obstacle holds for this time.
    async fn wait(&self, i: usize, time: Duration) {
        self.pods[i].lock().unwrap().up.as_ref().unwrap().age_obstacle(time);
        self.round(i, true).await;
    }
}

/// The command abandons the data, and late volumes attach within minutes.
#[test]
fn silent_pods_are_waited_for_before_an_event_names_the_command() {
    run(async || {
        let (world, _) = late_volumes(0, ORDINALS).await;
        world.start_with_timeout(3, HOUR);
        world.round(3, true).await;
        world.wait(3, SILENCE - SECOND).await;
        assert!(!world.names_command());
        world.wait(3, SECOND).await;
        world.assert_event(
            ". First find out why the pod is silent: kubectl describe -n default pod kv-0, and its claim. \
             This ABANDONS the data of data-kv-0, data-kv-1, data-kv-2, and founds an empty cluster: \
             kubectl exec -n default kv-3 -- kvctl cluster found --despite-volumes (by hand, in the data \
             of the bootstrap record: `found: despite data-kv-0,data-kv-1,data-kv-2`)",
        );
        let longest = world.api().events.iter().map(String::len).max();
        assert!(longest < Some(1024), "{longest:?}");
    });
}

#[test]
fn an_event_names_the_command_earlier_where_no_pod_can_prove_a_volume_empty() {
    run(async || {
        let (world, _) = former().await;
        world.recreate(PODS, ORDINALS - PODS);
        world.start_with_timeout(3, HOUR);
        world.round(3, true).await;
        world.wait(3, UNPROVABLE - SECOND).await;
        assert!(!world.names_command());
        world.wait(3, SECOND).await;
        world.assert_event("are empty. This ABANDONS the data of data-kv-0, data-kv-1, data-kv-2");
        // The pods exist now, and are late: their time has only begun.
        let world_set = world.api().set;
        world.api().events.clear();
        (0..PODS).for_each(|i| world.late(i, true));
        world.api().set = Set { start: 0, replicas: ORDINALS, ..world_set };
        world.round(3, true).await;
        world.assert_event("and its pod does not answer");
        world.wait(3, UNPROVABLE).await;
        assert!(!world.names_command());
    });
}

/// The Role is the remedy.
#[test]
fn no_event_names_the_command_while_the_claims_are_unknown() {
    run(async || {
        let (world, _) = late_volumes(0, ORDINALS).await;
        world.api().refuses_list = true;
        world.start_with_timeout(3, HOUR);
        world.round(3, true).await;
        world.wait(3, 2 * SILENCE).await;
        world.assert_event("Apply the Role again");
        // Nor right after that.
        world.api().refuses_list = false;
        world.round(3, true).await;
        world.assert_event("and its pod does not answer");
        assert!(!world.names_command());
    });
}

/// A superseded founder's volume must not count as one of a former cluster.
#[test]
fn an_unserved_founder_counts_as_empty() {
    run(async || {
        let world = World::new();
        world
            .play(&[Step::Start(0), Step::Round(0), Step::CrashUnconfirmed(0, Crash::KeepAll)])
            .await;
        let identity = || {
            let disk = world.pods[0].lock().unwrap().disk.clone();
            Identity::load(&disk, Path::new("/data/identity")).unwrap().unwrap()
        };
        assert_eq!(identity().stage, Stage::Promised);
        world.recreate(0, ORDINALS);
        world.rounds().await;
        assert_eq!((world.members(), world.clusters().len()), (ORDINALS, 1));
    });
}

//! The bootstrap with Kubernetes: pods start, crash and lose their volumes, volumes attach late or are
//! restored, the bootstrap record and the StatefulSet are deleted and recreated, a stale record replaces it,
//! the API server is down or refuses, and answers are lost.
//!
//! Invariants: no cluster is founded next to the volumes of another one; once everything is up, one
//! cluster exists.

use std::{path::Path, time::Duration};

use proptest::prelude::*;

use super::{
    super::{Identity, Stage},
    cases,
    pods::{HOUR, ORDINALS, PODS, Step, World, run},
};
use crate::{
    disk::{Disk, Open, sim::Crash},
    types::MemberId,
};

fn crash() -> impl Strategy<Value = Crash> {
    prop_oneof![Just(Crash::LoseAll), Just(Crash::KeepAll), Just(Crash::Arbitrary)]
}

/// Steps that lose no volume, no record and no StatefulSet.
fn harmless_step() -> impl Strategy<Value = Step> {
    let pod = 0..ORDINALS;
    prop_oneof![
        10 => pod.clone().prop_map(Step::Round),
        5 => pod.clone().prop_map(Step::Start),
        2 => (pod.clone(), crash()).prop_map(|(i, how)| Step::Crash(i, how)),
        2 => (pod.clone(), crash()).prop_map(|(i, how)| Step::CrashUnconfirmed(i, how)),
        1 => any::<bool>().prop_map(Step::Api),
        1 => any::<bool>().prop_map(Step::RefuseList),
        1 => (pod.clone(), any::<bool>()).prop_map(|(i, late)| Step::Late(i, late)),
        1 => pod.prop_map(Step::Skew),
        1 => Just(Step::LoseAnswer),
    ]
}

fn ordinals() -> impl Strategy<Value = (usize, usize)> {
    (0..ORDINALS).prop_flat_map(|start| (Just(start), 1..=ORDINALS - start))
}

fn step() -> impl Strategy<Value = Step> {
    let pod = 0..ORDINALS;
    prop_oneof![
        30 => harmless_step(),
        2 => pod.clone().prop_map(Step::Wipe),
        1 => pod.prop_map(Step::Restore),
        1 => Just(Step::DeleteRecord),
        1 => Just(Step::StaleRecord),
        1 => prop_oneof![Just(Duration::ZERO), Just(HOUR)].prop_map(Step::RecreateRecord),
        1 => ordinals().prop_map(|(start, replicas)| Step::Scale(start, replicas)),
        1 => ordinals().prop_map(|(start, replicas)| Step::Recreate(start, replicas)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(2000), ..ProptestConfig::default() })]

    /// The assertion is in `World::round`.
    #[test]
    fn no_cluster_is_founded_beside_the_volumes_of_another(
        steps in prop::collection::vec(step(), 0..80)
    ) {
        run(async || World::new().play(&steps).await);
    }

    /// After any crashes, without lost volumes and without a lost record, all pods end in one cluster.
    #[test]
    fn crashes_and_lost_answers_alone_end_in_one_cluster(
        steps in prop::collection::vec(harmless_step(), 0..60)
    ) {
        run(async || {
            let world = World::new();
            world.play(&steps).await;
            world.all_up().await;
            assert_eq!((world.members(), world.clusters().len()), (PODS, 1));
        });
    }

    /// Claims that are older than the StatefulSet delay the founding, and no more, if they are empty.
    #[test]
    fn empty_volumes_of_a_former_set_end_in_one_cluster(
        (start, replicas) in ordinals(),
        steps in prop::collection::vec(harmless_step(), 0..60),
    ) {
        run(async || {
            let world = World::new();
            world.recreate(start, replicas);
            world.recreate(0, ORDINALS);
            world.play(&steps).await;
            world.all_up().await;
            assert_eq!((world.members(), world.clusters().len()), (ORDINALS, 1));
        });
    }
}

#[test]
fn a_wiped_ordinal_founds_nothing_for_any_set_of_down_pods_and_any_state_of_the_record() {
    let records: [&[Step]; 3] =
        [&[], &[Step::DeleteRecord], &[Step::DeleteRecord, Step::RecreateRecord(HOUR)]];
    for (wiped, down, record) in (0..PODS)
        .flat_map(|w| (0..1 << PODS).map(move |d| (w, d)))
        .flat_map(|(w, d)| records.map(|c| (w, d, c)))
    {
        run(async || {
            let world = World::new();
            world.all_up().await;
            let before = world.clusters();
            for i in (0..PODS).filter(|i| down >> i & 1 == 1) {
                world.crash(i, Crash::KeepAll);
            }
            world.play(record).await;
            world.wipe(wiped);
            for _ in 0..8 {
                world.start(wiped);
                world.round(wiped, true).await;
            }
            let founded = world.founded.lock().unwrap().clone();
            assert_eq!(founded, before, "wiped {wiped}, down {down:03b}, {record:?}");
            assert!(world.clusters().is_subset(&before));
        });
    }
}

#[test]
fn a_stalled_founder_is_replaced_and_joins() {
    run(async || {
        let world = World::new();
        (1..PODS).for_each(|i| world.late(i, true));
        world
            .play(&[Step::Start(0), Step::Round(0), Step::CrashUnconfirmed(0, Crash::KeepAll)])
            .await;
        // It restarts, and does not go on.
        world.start(0);
        (1..PODS).for_each(|i| world.late(i, false));
        world.start_with_timeout(1, HOUR);
        world.start_with_timeout(2, HOUR);
        for _ in 0..3 {
            world.round(2, true).await;
        }
        assert!(world.clusters().is_empty(), "the first founder may go on");
        world.crash(2, Crash::KeepAll);
        world.start(2);
        for _ in 0..3 {
            world.round(2, true).await;
        }
        let second = world.clusters();
        assert_eq!(second.len(), 1);
        // The first founder detects that it is superseded, archives its data, and joins.
        world.all_up().await;
        assert_eq!((world.members(), world.clusters()), (PODS, second));
        let disk = world.pods[0].lock().unwrap().disk.clone();
        assert!(disk.exists(Path::new("/data/archive/identity")).unwrap());
        let identity = Identity::load(&disk, Path::new("/data/identity")).unwrap().unwrap();
        assert_ne!(identity.member, MemberId(1));
    });
}

/// A superseded founder may start with its log and a recreated record while the cluster that superseded
/// it is down.
#[test]
fn a_superseded_founder_founds_nothing_with_a_recreated_record() {
    run(async || {
        let world = World::new();
        let outrun = [Step::Start(0), Step::Round(0), Step::CrashUnconfirmed(0, Crash::KeepAll)];
        world.play(&outrun).await;
        [0, 2].into_iter().for_each(|i| world.start(i));
        world.play(&[Step::Start(1), Step::Round(1), Step::Round(1), Step::Round(1)]).await;
        let before = world.clusters();
        assert_eq!(before.len(), 1);
        (0..PODS).for_each(|i| world.crash(i, Crash::KeepAll));
        world
            .play(&[Step::Crash(1, Crash::KeepAll), Step::DeleteRecord, Step::RecreateRecord(HOUR)])
            .await;
        world.play(&[Step::Start(0), Step::Round(0), Step::Start(0), Step::Round(0)]).await;
        assert!(world.clusters().is_empty());
        world.all_up().await;
        assert_eq!((world.members(), world.clusters()), (PODS, before));
    });
}

/// Two pods crashed while they founded, and the record is lost: neither has served clients, so one may
/// continue.
#[test]
fn two_unfinished_founders_do_not_wait_for_each_other() {
    run(async || {
        let world = World::new();
        for i in [0, 1] {
            (0..PODS).for_each(|i| world.start(i));
            world.play(&[Step::Round(i), Step::CrashUnconfirmed(i, Crash::KeepAll)]).await;
        }
        let has_log = |i: usize| {
            let disk = world.pods[i].lock().unwrap().disk.clone();
            disk.exists(Path::new("/data/wal/1.wal")).unwrap()
        };
        assert!(has_log(0) && has_log(1) && world.clusters().is_empty());
        world.play(&[Step::DeleteRecord, Step::RecreateRecord(HOUR)]).await;
        world.all_up().await;
        assert_eq!((world.members(), world.clusters().len()), (PODS, 1));
    });
}

/// The members moved to other ordinals, and the set is recreated where the old volumes are.
#[test]
fn a_volume_of_a_member_that_left_founds_no_other_cluster() {
    run(async || {
        let world = World::new();
        world.all_up().await;
        (0..PODS).for_each(|i| world.mark_removed(i));
        world.empty_record();
        let before = world.founded.lock().unwrap().clone();
        world.all_up().await;
        assert_eq!((world.members(), &*world.founded.lock().unwrap()), (0, &before));
    });
}

/// The volume got another id, which became invalid before a log existed under it.
#[test]
fn an_unused_id_does_not_hide_the_archived_member() {
    run(async || {
        let world = World::new();
        world.all_up().await;
        world.mark_removed(0);
        for _ in 0..2 {
            world.crash(0, Crash::KeepAll);
            world.start(0);
            world.round(0, true).await;
        }
        let up = world.pods[0].lock().unwrap().up.clone().unwrap();
        let assigned = up.identity().filter(|identity| identity.stage == Stage::Assigned);
        up.discard_identity(&assigned.expect("an id without a log")).unwrap();
        [1, 2].into_iter().for_each(|i| world.wipe(i));
        world.empty_record();
        for _ in 0..8 {
            world.round(0, true).await;
        }
        assert!(world.clusters().is_empty());
    });
}

/// A volume with an id founds nothing, and needs the archive for nothing else.
#[test]
fn a_damaged_archive_does_not_stop_a_volume_with_an_id() {
    run(async || {
        let world = World::new();
        world.all_up().await;
        world.mark_removed(1);
        world.start(1);
        world.round(1, true).await;
        world.crash(1, Crash::KeepAll);
        let disk = world.pods[1].lock().unwrap().disk.clone();
        let archived = disk.open(Path::new("/data/archive/identity"), Open::Write).unwrap();
        archived.write_all_at(&[0xff; 8], 0).unwrap();
        world.start(1);
        let up = world.pods[1].lock().unwrap().up.clone().unwrap();
        let assigned = up.identity().expect("an id");
        assert_eq!(assigned.stage, Stage::Assigned);
        // The id is kept: without it the volume could found.
        assert!(up.discard_identity(&assigned).is_err());
        assert_eq!(up.identity(), Some(assigned));
    });
}

/// An emptied record looks like a new one. Members that are still starting must be detected too.
#[test]
fn an_emptied_record_founds_nothing_beside_starting_members() {
    run(async || {
        let world = World::new();
        world.all_up().await;
        let before = world.clusters();
        (0..PODS).for_each(|i| world.crash(i, Crash::KeepAll));
        world.wipe(0);
        world.empty_record();
        (0..PODS).for_each(|i| world.start(i));
        for _ in 0..8 {
            world.round(0, true).await;
        }
        assert!(world.clusters().is_empty());
        world.all_up().await;
        assert_eq!((world.members(), world.clusters()), (PODS, before));
    });
    // No member answers when the pod claims; one answers before it would serve.
    run(async || {
        let world = World::new();
        world.all_up().await;
        let before = world.clusters();
        (0..PODS).for_each(|i| world.crash(i, Crash::KeepAll));
        world.wipe(0);
        world.empty_record();
        world.start(0);
        world.round(0, true).await;
        world.start(1);
        world.round(0, true).await;
        assert_eq!(*world.founded.lock().unwrap(), before);
    });
}

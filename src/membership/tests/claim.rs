//! Formation with Kubernetes: pods start, crash and lose their volumes, the claim is deleted and made
//! anew, the API server goes away, answers get lost.
//!
//! What must hold: no cluster is founded beside the volumes of another; once everything is there, one is.

use std::{path::Path, time::Duration};

use proptest::prelude::*;

use super::{
    super::{Claim, Identity, Stage},
    pods::{HOUR, PODS, Step, World, run},
};
use crate::{
    disk::{Disk, Open, sim::Crash},
    types::MemberId,
};

fn step() -> impl Strategy<Value = Step> {
    let pod = 0..PODS;
    let crash = || prop_oneof![Just(Crash::LoseAll), Just(Crash::KeepAll), Just(Crash::Arbitrary)];
    prop_oneof![
        10 => pod.clone().prop_map(Step::Round),
        5 => pod.clone().prop_map(Step::Start),
        2 => (pod.clone(), crash()).prop_map(|(i, how)| Step::Crash(i, how)),
        2 => (pod.clone(), crash()).prop_map(|(i, how)| Step::CrashUnconfirmed(i, how)),
        1 => pod.prop_map(Step::Wipe),
        1 => any::<bool>().prop_map(Step::Api),
        1 => Just(Step::LoseAnswer),
        1 => Just(Step::DeleteClaim),
        1 => Just(Step::RecreateClaim),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_cluster_is_founded_beside_the_volumes_of_another(
        steps in prop::collection::vec(step(), 0..60)
    ) {
        run(async || World::new().play(&steps).await);
    }

    /// Whatever crashed before, and wherever: without lost volumes and a lost claim, all end in one.
    #[test]
    fn crashes_and_lost_answers_alone_end_in_one_cluster(
        steps in prop::collection::vec(step(), 0..60)
    ) {
        let harmless = |step: &Step| {
            !matches!(step, Step::Wipe(_) | Step::DeleteClaim | Step::RecreateClaim)
        };
        let steps: Vec<Step> = steps.into_iter().filter(harmless).collect();
        run(async || {
            let world = World::new();
            world.play(&steps).await;
            world.all_up().await;
            assert_eq!((world.members(), world.clusters().len()), (PODS, 1));
        });
    }
}

#[test]
fn a_wiped_ordinal_founds_nothing_whoever_else_is_down_and_whatever_became_of_the_claim() {
    let claims: [&[Step]; 3] =
        [&[], &[Step::DeleteClaim], &[Step::DeleteClaim, Step::RecreateClaim]];
    for (wiped, down, claim) in (0..PODS)
        .flat_map(|w| (0..1 << PODS).map(move |d| (w, d)))
        .flat_map(|(w, d)| claims.map(|c| (w, d, c)))
    {
        run(async || {
            let world = World::new();
            world.all_up().await;
            let before = world.clusters();
            for i in (0..PODS).filter(|i| down >> i & 1 == 1) {
                world.crash(i, Crash::KeepAll);
            }
            world.play(claim).await;
            world.wipe(wiped);
            for _ in 0..8 {
                world.start(wiped);
                world.round(wiped, true).await;
            }
            let founded = world.founded.lock().unwrap().clone();
            assert_eq!(founded, before, "wiped {wiped}, down {down:03b}, {claim:?}");
            assert!(world.clusters().is_subset(&before));
        });
    }
}

#[test]
fn a_founder_that_never_goes_on_is_replaced_and_learns_of_it() {
    run(async || {
        let world = World::new();
        world
            .play(&[Step::Start(1), Step::Round(1), Step::CrashUnconfirmed(1, Crash::KeepAll)])
            .await;
        world.start_patient(2, HOUR);
        for _ in 0..3 {
            world.round(2, true).await;
        }
        assert!(world.clusters().is_empty(), "the first one may come back yet");
        world.crash(2, Crash::KeepAll);
        world.start(2);
        for _ in 0..3 {
            world.round(2, true).await;
        }
        let second = world.clusters();
        assert_eq!(second.len(), 1);
        // The first one finds that it was outrun, sets its volume aside, and joins.
        world.all_up().await;
        assert_eq!((world.members(), world.clusters()), (PODS, second));
        let disk = world.pods[1].lock().unwrap().disk.clone();
        assert!(disk.exists(Path::new("/data/archive/identity")).unwrap());
        let identity = Identity::load(&disk, Path::new("/data/identity")).unwrap().unwrap();
        assert_ne!(identity.member, MemberId(1));
    });
}

/// A founder that was outrun may find its log, and a claim that was made anew, while the cluster that
/// outran it is down.
#[test]
fn an_outrun_founder_founds_nothing_under_a_claim_that_was_made_anew() {
    run(async || {
        let world = World::new();
        let outrun = [Step::Start(0), Step::Round(0), Step::CrashUnconfirmed(0, Crash::KeepAll)];
        world.play(&outrun).await;
        world.play(&[Step::Start(1), Step::Round(1), Step::Round(1), Step::Round(1)]).await;
        let before = world.clusters();
        assert_eq!(before.len(), 1);
        world.play(&[Step::Crash(1, Crash::KeepAll), Step::DeleteClaim, Step::RecreateClaim]).await;
        world.play(&[Step::Start(0), Step::Round(0), Step::Start(0), Step::Round(0)]).await;
        assert!(world.clusters().is_empty());
        world.all_up().await;
        assert_eq!((world.members(), world.clusters()), (PODS, before));
    });
}

/// Two crashed while they founded, and their claim is gone: neither was served by, so one may go on.
#[test]
fn two_unfinished_founders_do_not_wait_for_each_other() {
    run(async || {
        let world = World::new();
        for i in [0, 1] {
            world
                .play(&[Step::Start(i), Step::Round(i), Step::CrashUnconfirmed(i, Crash::KeepAll)])
                .await;
        }
        let begun = |i: usize| {
            let disk = world.pods[i].lock().unwrap().disk.clone();
            disk.exists(Path::new("/data/wal/1.wal")).unwrap()
        };
        assert!(begun(0) && begun(1) && world.clusters().is_empty());
        world.play(&[Step::DeleteClaim, Step::RecreateClaim]).await;
        world.all_up().await;
        assert_eq!((world.members(), world.clusters().len()), (PODS, 1));
    });
}

/// The members moved to other ordinals, and the set is made anew where the old volumes are.
#[test]
fn a_volume_of_a_member_that_left_founds_no_other_cluster() {
    run(async || {
        let world = World::new();
        world.all_up().await;
        (0..PODS).for_each(|i| world.bury(i));
        world.api.0.lock().unwrap().claim = Some((Claim::Empty, 1000, Duration::ZERO));
        let before = world.founded.lock().unwrap().clone();
        world.all_up().await;
        assert_eq!((world.members(), &*world.founded.lock().unwrap()), (0, &before));
    });
}

/// The same volume was given an id once more, and that one died before anything was begun under it.
#[test]
fn an_id_that_died_early_does_not_hide_the_member_set_aside_before_it() {
    run(async || {
        let world = World::new();
        world.all_up().await;
        world.bury(1);
        for _ in 0..2 {
            world.crash(1, Crash::KeepAll);
            world.start(1);
            world.round(1, true).await;
        }
        let up = world.pods[1].lock().unwrap().up.clone().unwrap();
        let assigned = up.identity().filter(|identity| identity.stage == Stage::Assigned);
        up.forget(&assigned.expect("an id that nothing was begun under")).unwrap();
        [0, 2].into_iter().for_each(|i| world.wipe(i));
        world.api.0.lock().unwrap().claim = Some((Claim::Empty, 1000, Duration::ZERO));
        for _ in 0..8 {
            world.round(1, true).await;
        }
        assert!(world.clusters().is_empty());
    });
}

/// It founds nothing, and needs the archive for nothing else.
#[test]
fn a_damaged_archive_stops_nobody_who_has_an_id() {
    run(async || {
        let world = World::new();
        world.all_up().await;
        world.bury(1);
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
        // What would let it found stays undone.
        assert!(up.forget(&assigned).is_err());
        assert_eq!(up.identity(), Some(assigned));
    });
}

/// A claim that was emptied looks like a new one. Members that are only starting are seen all the same.
#[test]
fn an_emptied_claim_founds_nothing_beside_members_that_are_starting() {
    let emptied = |world: &World| {
        world.api.0.lock().unwrap().claim = Some((Claim::Empty, 1000, Duration::ZERO));
    };
    run(async || {
        let world = World::new();
        world.all_up().await;
        let before = world.clusters();
        (0..PODS).for_each(|i| world.crash(i, Crash::KeepAll));
        world.wipe(0);
        emptied(&world);
        (0..PODS).for_each(|i| world.start(i));
        for _ in 0..8 {
            world.round(0, true).await;
        }
        assert!(world.clusters().is_empty());
        world.all_up().await;
        assert_eq!((world.members(), world.clusters()), (PODS, before));
    });
    // Nobody answered when it claimed; one does before it would serve.
    run(async || {
        let world = World::new();
        world.all_up().await;
        let before = world.clusters();
        (0..PODS).for_each(|i| world.crash(i, Crash::KeepAll));
        world.wipe(0);
        emptied(&world);
        world.start(0);
        world.round(0, true).await;
        world.start(1);
        world.round(0, true).await;
        assert_eq!(*world.founded.lock().unwrap(), before);
    });
}

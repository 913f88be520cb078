//! Members are killed at random, and nothing that was acknowledged is lost.

use std::env;

use tokio::time::{Duration, Instant, sleep};

use crate::{
    check,
    cluster::{Cluster, LITTLE_LOG, SMALL_LOG},
    dice::Dice,
    oracle::{Oracle, Outcome},
    workload::{Workload, put},
};

const CLIENTS: usize = 8;

/// Loads a cluster of three and kills one, two or all three at once, `rounds` times. Returns how
/// many members were killed.
async fn crash(rounds: usize, log: &[&str]) -> usize {
    let mut dice = Dice::from_env();
    let mut cluster = Cluster::start(3, log).await;
    let load = Workload::start(&cluster, CLIENTS, &mut dice);
    let (mut kills, started) = (0, Instant::now());
    for round in 0..rounds {
        load.progress(20).await;
        sleep(Duration::from_millis(dice.below(300) as u64)).await;
        // All sizes come early, so that a short run has them too.
        let victims = (dice.below(3), if round < 3 { round + 1 } else { dice.below(3) + 1 });
        let victims: Vec<usize> = (0..victims.1).map(|i| (victims.0 + i) % 3).collect();
        for &victim in &victims {
            cluster.members[victim].kill();
        }
        kills += victims.len();
        sleep(Duration::from_millis(dice.below(1500) as u64)).await;
        for &victim in &victims {
            cluster.members[victim].start();
        }
        if dice.below(4) == 0 {
            // Once more, before it has recovered.
            sleep(Duration::from_millis(dice.below(500) as u64)).await;
            cluster.members[victims[0]].kill();
            cluster.members[victims[0]].start();
            kills += 1;
        }
    }
    load.progress(20).await;
    let oracle = load.stop().await;
    for member in &mut cluster.members {
        member.wait_ready().await;
    }
    check::holds_what_it_promised(&cluster, &oracle).await;
    println!("{kills} kills in {:.0?}: {:?}", started.elapsed(), oracle.tally());
    kills
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_write_survives_kill_9() {
    crash(4, &LITTLE_LOG).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes: `just crash`"]
async fn crash_long() {
    let wanted = env::var("KVD_CRASH_KILLS").map_or(100, |n| n.parse().unwrap());
    let mut kills = 0;
    // With snapshots and purges, and without; a new cluster every so often keeps the check short.
    for log in [&LITTLE_LOG[..], &SMALL_LOG[..]].into_iter().cycle() {
        if kills >= wanted {
            break;
        }
        // A round kills about two.
        kills += crash(((wanted - kills) / 2).clamp(1, 25), log).await;
    }
    println!("{kills} kills, nothing lost");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_member_keeps_what_it_acknowledged() {
    let mut cluster = Cluster::start(1, &SMALL_LOG).await;
    let oracle = Oracle::default();
    for i in 0..20 {
        let client = cluster.members[0].client();
        let outcome = put(&client, &oracle, format!("key/{}", i % 5)).await;
        assert!(matches!(outcome, Outcome::Acknowledged(_)), "{outcome:?}");
        if i % 7 == 6 {
            cluster.members[0].kill();
            cluster.members[0].start();
            cluster.members[0].wait_ready().await;
        }
    }
    check::holds_what_it_promised(&cluster, &oracle).await;
}

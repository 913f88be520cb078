//! Random members are killed under load, and every acknowledged write survives.

use std::env;

use tokio::time::{Duration, Instant, sleep};

use crate::{
    cluster::{
        check,
        harness::{Cluster, FREQUENT_SNAPSHOTS, SMALL_SEGMENTS},
        workload::{Workload, put},
    },
    support::{
        oracle::{Oracle, Outcome},
        retry::with_retry,
        rng::Rng,
    },
};

const CLIENTS: usize = 8;

/// Loads a cluster of three members and kills one, two or all three at once, `rounds` times.
/// Returns the number of kills.
async fn crash(rounds: usize, log: &[&str]) -> usize {
    let mut rng = Rng::from_env();
    let mut cluster = Cluster::start(3, log).await;
    let load = Workload::start(&cluster, CLIENTS, &mut rng);
    let (mut kills, started) = (0, Instant::now());
    for round in 0..rounds {
        load.progress(20).await;
        sleep(Duration::from_millis(rng.below(300) as u64)).await;
        // The first rounds use each number of victims once, so a short run has them all.
        let victims = (rng.below(3), if round < 3 { round + 1 } else { rng.below(3) + 1 });
        let victims: Vec<usize> = (0..victims.1).map(|i| (victims.0 + i) % 3).collect();
        for &victim in &victims {
            cluster.members[victim].kill();
        }
        kills += victims.len();
        sleep(Duration::from_millis(rng.below(1500) as u64)).await;
        for &victim in &victims {
            cluster.members[victim].start();
        }
        if rng.below(4) == 0 {
            // A second kill, during recovery.
            sleep(Duration::from_millis(rng.below(500) as u64)).await;
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
    check::assert_history_holds(&cluster, &oracle).await;
    println!("{kills} kills in {:.0?}: {:?}", started.elapsed(), oracle.tally());
    kills
}

#[test]
fn every_acknowledged_write_survives_kill_9() {
    with_retry(async || {
        crash(4, &FREQUENT_SNAPSHOTS).await;
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes: `just crash`"]
async fn crash_long() {
    let wanted = env::var("KVD_CRASH_KILLS").map_or(100, |n| n.parse().unwrap());
    let mut kills = 0;
    // With and without snapshots and purges. A new cluster every few rounds keeps the check short.
    for log in [&FREQUENT_SNAPSHOTS[..], &SMALL_SEGMENTS[..]].into_iter().cycle() {
        if kills >= wanted {
            break;
        }
        // A round kills about two members.
        kills += crash(((wanted - kills) / 2).clamp(1, 25), log).await;
    }
    println!("{kills} kills, nothing lost");
}

#[test]
fn a_single_member_keeps_what_it_acknowledged() {
    with_retry(async || {
        let mut cluster = Cluster::start(1, &SMALL_SEGMENTS).await;
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
        check::assert_history_holds(&cluster, &oracle).await;
    });
}

//! Members are stopped as an operator stops them.

use tokio::time::{Duration, Instant};

use crate::{
    check,
    cluster::{CALM, Cluster},
    dice::Dice,
    workload::Workload,
};

/// What a stop may take: a hand-over, two drains, and a busy machine.
const STOP_MAX: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_told_to_stop_hands_over_and_comes_back() {
    let mut dice = Dice::from_env();
    let mut cluster = Cluster::start(3, &CALM).await;
    let load = Workload::start(&cluster, 4, &mut dice);
    load.progress(20).await;
    let leader = cluster.leader().await;
    let started = Instant::now();
    cluster.members[leader].stop().await;
    assert!(started.elapsed() < STOP_MAX, "stopping took {:?}", started.elapsed());
    let log = cluster.members[leader].log();
    assert!(log.contains("handing over leadership"), "it did not hand over");
    assert!(!log.contains("nobody took over leadership"), "nobody took over");
    load.progress(20).await;

    let next = cluster.leader().await;
    assert_ne!(next, leader);
    cluster.members[leader].start();
    cluster.members[leader].wait_ready().await;
    // And one that follows, if nothing has changed: its stop is nobody's concern.
    let follower = (0..3).find(|&i| i != next && i != leader).unwrap();
    cluster.members[follower].stop().await;
    load.progress(20).await;
    cluster.members[follower].start();
    cluster.members[follower].wait_ready().await;

    let oracle = load.stop().await;
    check::holds_what_it_promised(&cluster, &oracle).await;
    println!("{:?}", oracle.tally());
}

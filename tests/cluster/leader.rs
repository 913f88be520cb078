//! A leader that acknowledged entries which its own disk does not hold.

use crate::{
    cluster::{
        check,
        harness::{Cluster, SMALL_SEGMENTS},
        workload::Workload,
    },
    support::{retry::with_retry, rng::Rng},
};

/// Replication does not wait for the leader's own disk, so followers may commit entries that the
/// leader has not written. A leader that restarts before the followers notice must not lead the
/// same term again: it would assign the same log positions to other entries.
async fn kill_leaders_that_have_not_written(times: usize) {
    let mut rng = Rng::from_env();
    let mut cluster = Cluster::start(3, &SMALL_SEGMENTS).await;
    let load = Workload::start(&cluster, 4, &mut rng);
    for _ in 0..times {
        load.progress(5).await;
        let leader = cluster.leader().await;
        cluster.members[leader].hold_log();
        // The followers' disks alone acknowledge these writes. There are more of them than there
        // were requests in flight.
        load.progress(20).await;
        cluster.members[leader].kill();
        cluster.members[leader].release_log();
        cluster.members[leader].start();
        load.progress(5).await;
    }
    let oracle = load.stop().await;
    for member in &mut cluster.members {
        member.wait_ready().await;
    }
    check::assert_history_holds(&cluster, &oracle).await;
    println!("{times} leaders killed: {:?}", oracle.tally());
}

#[test]
fn a_leader_killed_before_its_own_fsync_does_not_lead_again_with_other_entries() {
    with_retry(async || {
        kill_leaders_that_have_not_written(3).await;
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a minute"]
async fn leader_crash_long() {
    kill_leaders_that_have_not_written(20).await;
}

//! A leader whose log is behind what it has promised.

use crate::{
    check,
    cluster::{Cluster, SMALL_LOG},
    dice::Dice,
    workload::Workload,
};

/// Replication does not wait for the leader's own disk: followers may commit what the leader has not
/// written. Killed and back before anybody noticed, it must not lead the same term again, where it
/// would give the same log positions to other entries.
async fn kill_leaders_that_have_not_written(times: usize) {
    let mut dice = Dice::from_env();
    let mut cluster = Cluster::start(3, &SMALL_LOG).await;
    let load = Workload::start(&cluster, 4, &mut dice);
    for _ in 0..times {
        load.progress(5).await;
        let leader = cluster.leader().await;
        cluster.members[leader].hold_log();
        // Acknowledged by the followers' disks alone, because the leader does not write: more of
        // them than there were requests under way.
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
    check::holds_what_it_promised(&cluster, &oracle).await;
    println!("{times} leaders killed: {:?}", oracle.tally());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_killed_before_its_own_fsync_does_not_lead_again_with_other_entries() {
    kill_leaders_that_have_not_written(3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a minute"]
async fn leader_crash_long() {
    kill_leaders_that_have_not_written(20).await;
}

//! A disk hangs: the member's process and network work, and its log is not written any more.

use tokio::time::{Instant, sleep};

use crate::{
    cluster::{
        check,
        harness::{Cluster, LONG_ELECTION_TIMEOUT},
        join::wait_until_listed,
        workload::Workload,
    },
    support::{POLL_INTERVAL, WAIT_TIMEOUT, retry::with_retry, rng::Rng},
};

/// Three voters; the fourth member stays a learner.
async fn with_a_learner() -> Cluster {
    let mut cluster = Cluster::start_to_grow(3, &LONG_ELECTION_TIMEOUT).await;
    cluster.add().start();
    cluster.members[3].wait_ready().await;
    wait_until_listed(&cluster, "kv-3", |member| member.is_learner).await;
    cluster
}

/// Waits until a member other than `hung` lists kv-`ordinal` with or without a vote. The member whose disk
/// hangs may not know of the change.
async fn wait_for_vote(cluster: &Cluster, hung: usize, ordinal: usize, votes: bool) {
    let (name, deadline) = (format!("kv-{ordinal}"), Instant::now() + WAIT_TIMEOUT);
    let asked = (0..3).find(|member| *member != hung).unwrap();
    loop {
        let list = cluster.members[asked].client().member_list().await.map(|list| list.members);
        let mut members = list.iter().flatten();
        if members.any(|member| member.name == name && member.is_learner != votes) {
            return;
        }
        assert!(Instant::now() < deadline, "{name} votes: {list:?}");
        sleep(POLL_INTERVAL).await;
    }
}

async fn wait_until_not_ready(cluster: &Cluster, member: usize, reason: &str) {
    let deadline = Instant::now() + WAIT_TIMEOUT;
    loop {
        let answer = cluster.members[member].why_not_ready();
        if answer.as_ref().is_some_and(|answer| answer.contains(reason)) {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "member {member} is ready, or not because of: {answer:?}"
        );
        sleep(POLL_INTERVAL).await;
    }
}

/// The disk of the leader or of a follower hangs: a learner votes instead, the hung member is not ready,
/// and with its disk back it goes on as a learner.
async fn hang(of_leader: bool) {
    let mut rng = Rng::from_env();
    let mut cluster = with_a_learner().await;
    let leader = cluster.leader().await;
    let hung = if of_leader { leader } else { (leader + 1) % 3 };
    let load = Workload::start(&cluster, 4, &mut rng);
    load.progress(20).await;
    cluster.members[hung].hold_log();
    wait_for_vote(&cluster, hung, hung, false).await;
    wait_for_vote(&cluster, hung, 3, true).await;
    wait_until_not_ready(&cluster, hung, "the disk hangs").await;
    load.progress(20).await;
    cluster.members[hung].release_log();
    for member in &mut cluster.members {
        member.wait_ready().await;
    }
    load.progress(20).await;
    wait_for_vote(&cluster, hung, hung, false).await;
    let oracle = load.stop().await;
    check::assert_history_holds(&cluster, &oracle).await;
}

#[test]
fn a_voter_whose_disk_hangs_gives_its_vote_to_a_learner() {
    with_retry(async || hang(false).await);
}

#[test]
fn a_leader_whose_disk_hangs_hands_over_and_gives_its_vote_to_a_learner() {
    with_retry(async || hang(true).await);
}

/// Heartbeats are not what makes a cluster work: two of three disks hang, and nothing is committed.
#[test]
fn no_member_is_ready_while_a_majority_of_the_disks_hangs() {
    with_retry(async || {
        let mut rng = Rng::from_env();
        let mut cluster = Cluster::start(3, &LONG_ELECTION_TIMEOUT).await;
        let leader = cluster.leader().await;
        let load = Workload::start(&cluster, 4, &mut rng);
        load.progress(20).await;
        let hung = [(leader + 1) % 3, (leader + 2) % 3];
        hung.iter().for_each(|member| cluster.members[*member].hold_log());
        for member in hung {
            wait_until_not_ready(&cluster, member, "the disk hangs").await;
        }
        wait_until_not_ready(&cluster, leader, " for ").await;
        hung.iter().for_each(|member| cluster.members[*member].release_log());
        for member in &mut cluster.members {
            member.wait_ready().await;
        }
        load.progress(20).await;
        let oracle = load.stop().await;
        check::assert_history_holds(&cluster, &oracle).await;
    });
}

//! Members that join later, or return after a long absence.

use std::{fs, path::Path};

use ordinal::proto::etcdserverpb::{Member as Listed, RangeRequest};
use tokio::time::{Duration, Instant, sleep};

use crate::{
    cluster::{
        check,
        harness::{Cluster, FREQUENT_SNAPSHOTS, LONG_ELECTION_TIMEOUT, SMALL_SEGMENTS},
        member::Member,
        workload::Workload,
    },
    support::{POLL_INTERVAL, WAIT_TIMEOUT, retry::with_retry, rng::Rng},
};

#[test]
fn members_that_join_learn_and_then_vote() {
    with_retry(async || {
        let mut rng = Rng::from_env();
        let mut cluster = Cluster::start_to_grow(3, &SMALL_SEGMENTS).await;
        let load = Workload::start(&cluster, 4, &mut rng);
        load.progress(50).await;
        for ordinal in [3, 4] {
            cluster.add().start();
            cluster.members[ordinal].wait_ready().await;
        }
        // Learners and voters answer linearizable reads.
        let floor = load.oracle.floor("shared/0");
        let request = RangeRequest { key: "shared/0".into(), ..Default::default() };
        let read = cluster.members[3].client().range(request).await.unwrap();
        assert!(read.header.unwrap().revision >= floor.revision);
        wait_until_listed(&cluster, "kv-3", |member| !member.is_learner).await;
        wait_until_listed(&cluster, "kv-4", |member| !member.is_learner).await;

        // Three of five members are a majority only if the new ones vote.
        let victims = [0, 1];
        for victim in victims {
            cluster.members[victim].kill();
        }
        load.progress(20).await;
        for victim in victims {
            cluster.members[victim].start();
        }
        let oracle = load.stop().await;
        for member in &mut cluster.members {
            member.wait_ready().await;
        }
        check::assert_history_holds(&cluster, &oracle).await;
    });
}

/// Works without Kubernetes, and without a membership command.
#[test]
fn a_member_that_lost_its_volume_is_replaced_by_itself() {
    with_retry(async || {
        let mut rng = Rng::from_env();
        let mut cluster = Cluster::start(3, &SMALL_SEGMENTS).await;
        let load = Workload::start(&cluster, 4, &mut rng);
        load.progress(50).await;
        // Includes the bootstrap member and the leader.
        for lost in [0, cluster.leader().await, 2] {
            let before = id_of(&cluster, lost).await;
            cluster.members[lost].kill();
            fs::remove_dir_all(cluster.members[lost].data()).unwrap();
            cluster.members[lost].start();
            cluster.members[lost].wait_ready().await;
            let name = format!("kv-{lost}");
            wait_until_listed(&cluster, &name, |m| !m.is_learner && m.id != before).await;
            wait_until_gone(&cluster, before).await;
            load.progress(20).await;
        }
        let oracle = load.stop().await;
        check::assert_history_holds(&cluster, &oracle).await;
    });
}

/// The current id of the member. A member becomes ready before its name is replicated.
pub async fn id_of(cluster: &Cluster, ordinal: usize) -> u64 {
    let (name, deadline) = (format!("kv-{ordinal}"), Instant::now() + WAIT_TIMEOUT);
    loop {
        let list = cluster.members[ordinal].client().member_list().await.unwrap();
        if let Some(member) = list.members.iter().find(|m| m.name == name) {
            return member.id;
        }
        assert!(Instant::now() < deadline, "{name} is not listed: {list:?}");
        sleep(POLL_INTERVAL).await;
    }
}

pub async fn wait_until_gone(cluster: &Cluster, id: u64) {
    let deadline = Instant::now() + WAIT_TIMEOUT;
    for member in &cluster.members {
        loop {
            let list = member.client().member_list().await.map(|list| list.members);
            if list.as_ref().is_ok_and(|list| list.iter().all(|m| m.id != id)) {
                break;
            }
            assert!(Instant::now() < deadline, "member {} lists {list:?}", member.ordinal);
            sleep(POLL_INTERVAL).await;
        }
    }
}

/// An older copy of a volume lacks acknowledged entries, so the member must not vote with it.
#[test]
fn a_volume_that_was_rolled_back_is_set_aside() {
    with_retry(async || {
        let mut rng = Rng::from_env();
        let mut cluster = Cluster::start(3, &LONG_ELECTION_TIMEOUT).await;
        let load = Workload::start(&cluster, 4, &mut rng);
        load.progress(50).await;
        let rolled = (cluster.leader().await + 1) % 3;
        let data = cluster.members[rolled].data();
        let copy = data.with_extension("copy");
        cluster.members[rolled].kill();
        copy_dir(&data, &copy);
        cluster.members[rolled].start();
        cluster.members[rolled].wait_ready().await;
        load.progress(50).await;
        cluster.members[rolled].kill();
        fs::remove_dir_all(&data).unwrap();
        fs::rename(&copy, &data).unwrap();
        cluster.members[rolled].start();
        assert!(!cluster.members[rolled].exited().await.success());
        let log = cluster.members[rolled].log();
        assert!(log.contains("older copy"), "{log}");
        cluster.members[rolled].start();
        cluster.members[rolled].wait_ready().await;
        assert!(data.join("archive/identity").exists());
        wait_until_listed(&cluster, &format!("kv-{rolled}"), |m| !m.is_learner).await;
        let oracle = load.stop().await;
        check::assert_history_holds(&cluster, &oracle).await;
    });
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// Waits until every member lists a member of this name that satisfies the predicate.
pub async fn wait_until_listed(cluster: &Cluster, name: &str, wanted: impl Fn(&Listed) -> bool) {
    let deadline = Instant::now() + WAIT_TIMEOUT;
    for member in &cluster.members {
        loop {
            let list = member.client().member_list().await.map(|list| list.members);
            let found = list.iter().flatten().any(|m| m.name == name && wanted(m));
            if found {
                break;
            }
            assert!(Instant::now() < deadline, "member {} lists {list:?}", member.ordinal);
            sleep(POLL_INTERVAL).await;
        }
    }
}

#[test]
fn a_member_that_was_away_too_long_catches_up_by_a_snapshot() {
    with_retry(async || {
        let mut rng = Rng::from_env();
        let mut cluster = Cluster::start(3, &FREQUENT_SNAPSHOTS).await;
        let load = Workload::start(&cluster, 4, &mut rng);
        load.progress(50).await;
        let away = (cluster.leader().await + 1) % 3;
        cluster.members[away].kill();
        // Metrics lag slightly; by now they include every append that the member can have received.
        load.progress(10).await;
        let others: Vec<&Member> = cluster.members.iter().filter(|m| m.ordinal != away).collect();
        let lasts = others.iter().map(|m| m.metric("ordinal_raft_last_index").unwrap());
        let newest_seen = lasts.max().unwrap();
        // The leader has purged the log that the absent member needs next.
        for other in others {
            load.until(|| other.metric("ordinal_raft_first_index") > Some(newest_seen + 1)).await;
        }
        // Killed during, or just after, the transfer or installation of the snapshot.
        for _ in 0..3 {
            cluster.members[away].start();
            sleep(Duration::from_millis(rng.below(1000) as u64)).await;
            cluster.members[away].kill();
        }
        cluster.members[away].start();
        cluster.members[away].wait_ready().await;
        // Only the snapshot explains this. Which of the runs installed it is up to chance.
        let caught_up =
            || cluster.members[away].metric("ordinal_raft_applied_index") > Some(newest_seen);
        load.until(caught_up).await;
        assert!(cluster.members[away].log().contains("installing snapshot"));
        load.progress(20).await;
        let oracle = load.stop().await;
        check::assert_history_holds(&cluster, &oracle).await;

        // All members start from a snapshot and the rest of the log.
        for member in &mut cluster.members {
            member.kill();
            member.start();
        }
        for member in &mut cluster.members {
            member.wait_ready().await;
        }
        check::assert_history_holds(&cluster, &oracle).await;
    });
}

/// The last resort: two of three volumes are lost for good, and an operator confirms the loss.
#[test]
fn one_volume_recovers_the_cluster_when_an_operator_confirms() {
    with_retry(async || {
        let mut rng = Rng::from_env();
        let mut cluster = Cluster::start(3, &LONG_ELECTION_TIMEOUT).await;
        let load = Workload::start(&cluster, 4, &mut rng);
        load.progress(50).await;
        // All members know the leader.
        cluster.leader().await;
        let refused = cluster.members[0].client().recover(None).await.unwrap_err().to_string();
        assert!(refused.contains("a majority is there"), "{refused}");
        let oracle = load.stop().await;
        let kept = (cluster.leader().await + 1) % 3;
        let lost = [(kept + 1) % 3, (kept + 2) % 3];
        // The survivor may lack recent writes; in this test it has them all.
        let floor = oracle.floor("").revision;
        let deadline = Instant::now() + WAIT_TIMEOUT;
        while revision_at(&cluster, kept).await < floor {
            assert!(Instant::now() < deadline);
            sleep(POLL_INTERVAL).await;
        }
        for other in lost {
            cluster.members[other].kill();
            fs::remove_dir_all(cluster.members[other].data()).unwrap();
        }
        // The silence of the others proves nothing.
        let refused =
            recovery_refused(&cluster, kept, "a majority of the voters may be alive").await;
        assert!(refused.contains(&format!("alive {kept}; silent ")), "{refused}");
        let client = cluster.members[kept].client();
        let wrong = client.recover(Some(7)).await.unwrap_err().to_string();
        assert!(wrong.contains("cluster 7 is not this member's cluster"), "{wrong}");
        // Empty volumes at their ordinals prove it. They join the new cluster.
        for other in lost {
            cluster.members[other].start();
        }
        let deadline = Instant::now() + WAIT_TIMEOUT;
        while let Err(e) = cluster.members[kept].client().recover(None).await {
            assert!(Instant::now() < deadline, "{e}");
            sleep(POLL_INTERVAL).await;
        }
        cluster.members[kept].exited().await;
        cluster.members[kept].start();
        cluster.members[kept].wait_ready().await;
        for other in lost {
            cluster.members[other].wait_ready().await;
            wait_until_listed(&cluster, &format!("kv-{other}"), |m| !m.is_learner).await;
        }
        check::assert_history_holds(&cluster, &oracle).await;
    });
}

/// Waits until a recovery from this member is refused for this reason, and returns the whole text.
async fn recovery_refused(cluster: &Cluster, from: usize, reason: &str) -> String {
    let deadline = Instant::now() + WAIT_TIMEOUT;
    loop {
        let refused = cluster.members[from].client().recover(None).await.unwrap_err().to_string();
        if refused.contains(reason) {
            return refused;
        }
        assert!(Instant::now() < deadline, "{refused}");
        sleep(POLL_INTERVAL).await;
    }
}

/// Their volumes are intact, but no process can prove or disprove it: the operator takes the responsibility.
#[test]
fn an_operator_may_insist_on_a_recovery_by_naming_the_cluster() {
    with_retry(async || {
        let mut cluster = Cluster::start(3, &LONG_ELECTION_TIMEOUT).await;
        let kept = (cluster.leader().await + 1) % 3;
        let before = cluster.members[kept].client().cluster().await.unwrap().cluster_id;
        for other in [(kept + 1) % 3, (kept + 2) % 3] {
            cluster.members[other].kill();
        }
        recovery_refused(&cluster, kept, "a majority of the voters may be alive").await;
        let recovered = cluster.members[kept].client().recover(Some(before)).await.unwrap();
        cluster.members[kept].exited().await;
        cluster.members[kept].start();
        cluster.members[kept].wait_ready().await;
        let after = cluster.members[kept].client().cluster().await.unwrap();
        assert_eq!((after.cluster_id, after.members.len()), (recovered.cluster_id, 1));
        assert_ne!(after.cluster_id, before);
    });
}

async fn revision_at(cluster: &Cluster, ordinal: usize) -> i64 {
    let request = RangeRequest { key: "-".into(), serializable: true, ..Default::default() };
    cluster.members[ordinal].client().range(request).await.unwrap().header.unwrap().revision
}

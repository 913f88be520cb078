//! Members that come later, or were away for long.

use std::{fs, path::Path};

use ordinal::proto::etcdserverpb::{Member as Listed, RangeRequest};
use tokio::time::{Duration, Instant, sleep};

use crate::{
    check,
    cluster::{CALM, Cluster, LITTLE_LOG, SMALL_LOG},
    dice::Dice,
    process::{Member, PATIENCE, POLL},
    workload::Workload,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_join_learn_and_then_vote() {
    let mut dice = Dice::from_env();
    let mut cluster = Cluster::start_to_grow(3, &SMALL_LOG).await;
    let load = Workload::start(&cluster, 4, &mut dice);
    load.progress(50).await;
    for ordinal in [3, 4] {
        cluster.add().start();
        cluster.members[ordinal].wait_ready().await;
    }
    // Learner or voter, they answer linearizable reads.
    let floor = load.oracle.floor("shared/0");
    let request = RangeRequest { key: "shared/0".into(), ..Default::default() };
    let read = cluster.members[3].client().range(request).await.unwrap();
    assert!(read.header.unwrap().revision >= floor.revision);
    wait_until_listed(&cluster, "kv-3", |member| !member.is_learner).await;
    wait_until_listed(&cluster, "kv-4", |member| !member.is_learner).await;

    // Three of five are a majority only if the new ones vote.
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
    check::holds_what_it_promised(&cluster, &oracle).await;
}

/// Without Kubernetes, too: nobody runs a membership command.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_lost_its_volume_is_replaced_by_itself() {
    let mut dice = Dice::from_env();
    let mut cluster = Cluster::start(3, &SMALL_LOG).await;
    let load = Workload::start(&cluster, 4, &mut dice);
    load.progress(50).await;
    // The founder of the cluster, too, and whoever leads.
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
    check::holds_what_it_promised(&cluster, &oracle).await;
}

/// Who lives there, once it has said so: a member is ready before its name is known.
pub(crate) async fn id_of(cluster: &Cluster, ordinal: usize) -> u64 {
    let (name, deadline) = (format!("kv-{ordinal}"), Instant::now() + PATIENCE);
    loop {
        let list = cluster.members[ordinal].client().member_list().await.unwrap();
        if let Some(member) = list.members.iter().find(|m| m.name == name) {
            return member.id;
        }
        assert!(Instant::now() < deadline, "{name} is not listed: {list:?}");
        sleep(POLL).await;
    }
}

pub(crate) async fn wait_until_gone(cluster: &Cluster, id: u64) {
    let deadline = Instant::now() + PATIENCE;
    for member in &cluster.members {
        loop {
            let list = member.client().member_list().await.map(|list| list.members);
            if list.as_ref().is_ok_and(|list| list.iter().all(|m| m.id != id)) {
                break;
            }
            assert!(Instant::now() < deadline, "member {} lists {list:?}", member.ordinal);
            sleep(POLL).await;
        }
    }
}

/// An older copy of a volume has forgotten what it acknowledged: it must not vote with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_that_was_rolled_back_is_set_aside() {
    let mut dice = Dice::from_env();
    let mut cluster = Cluster::start(3, &CALM).await;
    let load = Workload::start(&cluster, 4, &mut dice);
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
    check::holds_what_it_promised(&cluster, &oracle).await;
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

/// Waits until every member lists a member of this name that is as wanted.
pub(crate) async fn wait_until_listed(
    cluster: &Cluster,
    name: &str,
    wanted: impl Fn(&Listed) -> bool,
) {
    let deadline = Instant::now() + PATIENCE;
    for member in &cluster.members {
        loop {
            let list = member.client().member_list().await.map(|list| list.members);
            let found = list.iter().flatten().any(|m| m.name == name && wanted(m));
            if found {
                break;
            }
            assert!(Instant::now() < deadline, "member {} lists {list:?}", member.ordinal);
            sleep(POLL).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_was_away_too_long_catches_up_by_a_snapshot() {
    let mut dice = Dice::from_env();
    let mut cluster = Cluster::start(3, &LITTLE_LOG).await;
    let load = Workload::start(&cluster, 4, &mut dice);
    load.progress(50).await;
    let away = (cluster.leader().await + 1) % 3;
    cluster.members[away].kill();
    // Metrics trail a little: now they count all that it can have been sent.
    load.progress(10).await;
    let others: Vec<&Member> = cluster.members.iter().filter(|m| m.ordinal != away).collect();
    let lasts = others.iter().map(|m| m.metric("ordinal_raft_last_index").unwrap());
    let newest_seen = lasts.max().unwrap();
    // Whoever leads has dropped what the one that is away needs next.
    for other in others {
        load.until(|| other.metric("ordinal_raft_first_index") > Some(newest_seen + 1)).await;
    }
    // Killed while it receives, or installs, or just after.
    for _ in 0..3 {
        cluster.members[away].start();
        sleep(Duration::from_millis(dice.below(1000) as u64)).await;
        cluster.members[away].kill();
    }
    cluster.members[away].start();
    cluster.members[away].wait_ready().await;
    // Nothing else can have brought it on; which of its lives that was is left to chance.
    let caught_up =
        || cluster.members[away].metric("ordinal_raft_applied_index") > Some(newest_seen);
    load.until(caught_up).await;
    assert!(cluster.members[away].log().contains("installing a snapshot"));
    load.progress(20).await;
    let oracle = load.stop().await;
    check::holds_what_it_promised(&cluster, &oracle).await;

    // All of them start from a snapshot and the rest of the log.
    for member in &mut cluster.members {
        member.kill();
        member.start();
    }
    for member in &mut cluster.members {
        member.wait_ready().await;
    }
    check::holds_what_it_promised(&cluster, &oracle).await;
}

/// The last resort: two of three volumes are lost for good, and a person says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_volume_goes_on_alone_when_it_is_told_to() {
    let mut dice = Dice::from_env();
    let mut cluster = Cluster::start(3, &CALM).await;
    let load = Workload::start(&cluster, 4, &mut dice);
    load.progress(50).await;
    // Who leads is known to all.
    cluster.leader().await;
    let refused = cluster.members[0].client().recover().await.unwrap_err().to_string();
    assert!(refused.contains("a majority is there"), "{refused}");
    let oracle = load.stop().await;
    let kept = (cluster.leader().await + 1) % 3;
    let lost = [(kept + 1) % 3, (kept + 2) % 3];
    // What it has not heard of may be lost; here it has heard of all.
    let floor = oracle.floor("").revision;
    let deadline = Instant::now() + PATIENCE;
    while revision_at(&cluster, kept).await < floor {
        assert!(Instant::now() < deadline);
        sleep(POLL).await;
    }
    for other in lost {
        cluster.members[other].kill();
        fs::remove_dir_all(cluster.members[other].data()).unwrap();
    }
    let deadline = Instant::now() + PATIENCE;
    while let Err(e) = cluster.members[kept].client().recover().await {
        assert!(Instant::now() < deadline, "{e}");
        sleep(POLL).await;
    }
    cluster.members[kept].exited().await;
    cluster.members[kept].start();
    cluster.members[kept].wait_ready().await;
    // The others come back empty, and join the new cluster.
    for other in lost {
        cluster.members[other].start();
    }
    for other in lost {
        cluster.members[other].wait_ready().await;
        wait_until_listed(&cluster, &format!("kv-{other}"), |m| !m.is_learner).await;
    }
    check::holds_what_it_promised(&cluster, &oracle).await;
}

async fn revision_at(cluster: &Cluster, ordinal: usize) -> i64 {
    let request = RangeRequest { key: "-".into(), serializable: true, ..Default::default() };
    cluster.members[ordinal].client().range(request).await.unwrap().header.unwrap().revision
}

//! Members that come later, or were away for long.

use std::{collections::BTreeSet, fs};

use ordinal::proto::etcdserverpb::{Member as Listed, RangeRequest};
use tokio::time::{Duration, Instant, sleep};

use crate::{
    check,
    cluster::{Cluster, LITTLE_LOG, SMALL_LOG},
    dice::Dice,
    process::{Member, PATIENCE, POLL},
    workload::Workload,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_joins_learns_and_then_votes() {
    let mut dice = Dice::from_env();
    let mut cluster = Cluster::start_to_grow(3, &SMALL_LOG).await;
    let load = Workload::start(&cluster, 4, &mut dice);
    load.progress(50).await;
    cluster.add().start();
    cluster.members[3].wait_ready().await;
    // Learner or voter, it answers linearizable reads.
    let floor = load.oracle.floor("shared/0");
    let request = RangeRequest { key: "shared/0".into(), ..Default::default() };
    let read = cluster.members[3].client().range(request).await.unwrap();
    assert!(read.header.unwrap().revision >= floor.revision);
    wait_until_listed(&cluster, "kv-3", |member| !member.is_learner).await;

    // Three of four are a majority only if the new one votes.
    let victim = (cluster.leader().await + 1) % 3;
    cluster.members[victim].kill();
    load.progress(20).await;
    cluster.members[victim].start();
    let oracle = load.stop().await;
    for member in &mut cluster.members {
        member.wait_ready().await;
    }
    check::holds_what_it_promised(&cluster, &oracle).await;
}

/// Waits until every member lists a member of this name that is as wanted.
async fn wait_until_listed(cluster: &Cluster, name: &str, wanted: impl Fn(&Listed) -> bool) {
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
    let seen = segments(&cluster.members[away]);
    let newest_seen = seen.last().unwrap();
    // Whoever leads has dropped what the one that is away needs next.
    for other in (0..3).filter(|&other| other != away) {
        load.until(|| segments(&cluster.members[other]).first() > Some(newest_seen)).await;
    }
    // Killed while it receives, or installs, or just after.
    for _ in 0..3 {
        cluster.members[away].start();
        sleep(Duration::from_millis(dice.below(1000) as u64)).await;
        cluster.members[away].kill();
    }
    cluster.members[away].start();
    cluster.members[away].wait_ready().await;
    let installed = || cluster.members[away].log().contains("a snapshot was installed");
    load.until(installed).await;
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

/// The names of the files of a member's log: in their order.
fn segments(member: &Member) -> BTreeSet<String> {
    let entries = fs::read_dir(member.data().join("wal")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".wal")).collect()
}

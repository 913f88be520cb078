//! Without a majority, no API of a member names a leader.

use std::process::Command;

use tokio::time::{Duration, Instant, sleep};

use crate::{
    cluster::{
        harness::{Cluster, SMALL_SEGMENTS},
        member::Member,
    },
    support::{POLL_INTERVAL, retry::with_retry},
};

/// Bound from the loss of the majority until no member names a leader, with default timing. As in
/// etcd.
const NOTICE_LIMIT: Duration = Duration::from_secs(2);

/// The APIs that still name a leader, or do not report the missing majority.
async fn leaders_named_by(member: &Member) -> Vec<String> {
    let client = member.client();
    let mut named = Vec::new();
    let status = client.status().await.unwrap();
    if status.leader != 0 {
        named.push(format!("Status names {:x}", status.leader));
    }
    if status.errors != ["etcdserver: no leader"] {
        named.push(format!("the errors of Status are {:?}", status.errors));
    }
    for gauge in ["etcd_server_has_leader", "etcd_server_is_leader"] {
        if member.metric(gauge) != Some(0) {
            named.push(format!("{gauge} is {:?}", member.metric(gauge)));
        }
    }
    let cluster = client.cluster().await.unwrap();
    if cluster.leader != 0 || cluster.leading.is_some() {
        named.push(format!("Cluster names {:x}, {:?}", cluster.leader, cluster.leading));
    }
    named
}

async fn no_leader_is_named(survivor: &Member, lost: Instant) {
    loop {
        // Measured before the answers, which may be older than the last of them.
        let after = lost.elapsed();
        let named = leaders_named_by(survivor).await;
        assert!(named.is_empty() || after < NOTICE_LIMIT, "after {after:?}: {}", named.join("; "));
        if named.is_empty() {
            println!("no leader is named after {after:?}");
            // A missing leader is no reason to split the cluster: the majority may return at any
            // time.
            let refused = survivor.client().recover(None).await.unwrap_err().to_string();
            assert!(refused.contains("a majority is there, or was "), "{refused}");
            return;
        }
        sleep(POLL_INTERVAL).await;
    }
}

fn kvctl(member: &Member, args: &[&str]) -> String {
    let mut kvctl = Command::new(env!("CARGO_BIN_EXE_kvctl"));
    kvctl.args(["--dial-timeout", "1s", "--command-timeout", "2s"]);
    let output = kvctl.args(["--endpoints", &member.endpoint()]).args(args).output().unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

fn no_leader_is_printed(survivor: &Member) {
    let status = kvctl(survivor, &["endpoint", "status"]);
    let is_leader = status.split(", ").nth(4);
    assert_eq!(is_leader, Some("false"), "{status}");
    for (verb, expected) in [
        (&["endpoint", "status"][..], "etcdserver: no leader"),
        (&["cluster"], "   no leader   "),
        (&["doctor"], "; no leader; "),
        (&["top", "--once"], "   leader none   "),
    ] {
        let printed = kvctl(survivor, verb);
        assert!(printed.contains(expected), "{verb:?}: {printed}");
    }
}

/// The others are frozen, not killed: connections stay open, as if the network dropped every
/// packet.
#[test]
fn a_leader_that_lost_its_majority_does_not_go_on_naming_itself() {
    with_retry(async || {
        let cluster = Cluster::start(3, &SMALL_SEGMENTS).await;
        let leader = cluster.leader().await;
        let others = [(leader + 1) % 3, (leader + 2) % 3];
        others.iter().for_each(|other| cluster.members[*other].freeze());
        no_leader_is_named(&cluster.members[leader], Instant::now()).await;
        no_leader_is_printed(&cluster.members[leader]);
        others.iter().for_each(|other| cluster.members[*other].thaw());
        cluster.leader().await;
    });
}

#[test]
fn a_follower_does_not_go_on_naming_a_leader_that_died_with_the_majority() {
    with_retry(async || {
        let mut cluster = Cluster::start(3, &SMALL_SEGMENTS).await;
        let leader = cluster.leader().await;
        let (other, survivor) = ((leader + 1) % 3, (leader + 2) % 3);
        cluster.members[leader].kill();
        cluster.members[other].kill();
        no_leader_is_named(&cluster.members[survivor], Instant::now()).await;
        no_leader_is_printed(&cluster.members[survivor]);
        cluster.members[other].start();
        cluster.members[other].wait_ready().await;
        assert_ne!(cluster.leader().await, leader);
    });
}

//! Membership commands, and client requests to a member without a vote.

use std::process::Command;

use ordinal::{
    client::{Client, Get, Keys, Put, Session, Watch},
    proto::etcdserverpb::PutRequest,
};
use tokio::time::{Duration, Instant, sleep, timeout};
use tonic::Code;

use crate::{
    cluster::{
        check,
        harness::{Cluster, LONG_ELECTION_TIMEOUT},
        join::{id_of, wait_until_gone, wait_until_listed},
        workload::Workload,
    },
    support::{POLL_INTERVAL, WAIT_TIMEOUT, retry::with_retry, rng::Rng},
};

/// The output of `kvctl`, and whether it succeeded.
fn kvctl(endpoint: &str, args: &[&str]) -> (String, bool) {
    let mut kvctl = Command::new(env!("CARGO_BIN_EXE_kvctl"));
    kvctl.args(["--command-timeout", "60s", "--endpoints", endpoint]);
    let output = kvctl.args(args).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (String::from_utf8_lossy(&text).into_owned(), output.status.success())
}

/// The fourth member stays a learner: four voters would be an even number.
async fn with_a_learner() -> Cluster {
    let mut cluster = Cluster::start_to_grow(3, &LONG_ELECTION_TIMEOUT).await;
    cluster.add().start();
    cluster.members[3].wait_ready().await;
    wait_until_listed(&cluster, "kv-3", |member| member.is_learner).await;
    cluster
}

fn put(key: &str, value: &str) -> PutRequest {
    Put::new(key, value).into()
}

#[test]
fn a_learner_answers_reads_watches_and_leases_as_any_member() {
    with_retry(async || {
        let cluster = with_a_learner().await;
        let (voter, learner) = (cluster.members[0].client(), cluster.members[3].client());
        let mut changes = learner.watch(Watch::new(Keys::prefix("w/"))).await.unwrap();
        for round in 0..20 {
            let value = round.to_string();
            voter.put(put("w/k", &value)).await.unwrap();
            // Linearizable: the read sees every write acknowledged before it.
            let read = learner.get("w/k").await.unwrap().unwrap();
            assert_eq!(read.value, value, "a learner returns a stale value");
            let batch = timeout(WAIT_TIMEOUT, changes.next()).await.unwrap().unwrap();
            let seen: Vec<_> =
                batch.events.iter().map(|e| e.kv.as_ref().unwrap().value.clone()).collect();
            assert_eq!(seen, [value], "a learner's watch");
        }
        // A learner forwards writes, and renews leases.
        learner.put(put("w/own", "x")).await.unwrap();
        let lease = learner.lease_grant(Duration::from_secs(60)).await.unwrap();
        assert!(learner.lease_keep_alive_once(lease.id).await.unwrap().ttl > 0);
        assert!(learner.lease_time_to_live(lease.id, false).await.unwrap().ttl > 0);

        let (status, ok) =
            kvctl(&cluster.members[3].endpoint(), &["endpoint", "status", "-w", "json"]);
        assert!(ok && status.contains("\"isLearner\":true"), "{status}");
        let (at_a_glance, ok) = kvctl(&cluster.members[3].endpoint(), &["cluster"]);
        assert!(ok && at_a_glance.contains("tolerates the loss of 1 of 3 voters"), "{at_a_glance}");
        let row = at_a_glance.lines().find(|line| line.contains("kv-3")).unwrap();
        assert!(row.contains("learner") && row.contains("yes"), "{at_a_glance}");
        let (report, ok) = kvctl(&cluster.members[0].endpoint(), &["doctor"]);
        assert!(report.contains("4 of 4 members answer"), "{report}");
        assert!(ok || report.contains("sync"), "nothing but the disk can be wrong: {report}");
    });
}

/// Serializable reads, from any member, in the order of time.
#[test]
fn a_session_never_goes_back_in_time_wherever_it_reads() {
    with_retry(async || {
        let cluster = with_a_learner().await;
        let session = Session::default();
        let clients: Vec<Client> =
            cluster.members.iter().map(|m| m.client().in_session(session.clone())).collect();
        for round in 0..100 {
            let value = round.to_string();
            clients[round % 4].put(put("k", &value)).await.unwrap();
            for reader in [1, 2, 3] {
                let read = clients[(round + reader) % 4].range(Get::new("k").serializable()).await;
                assert_eq!(read.unwrap().kvs[0].value, value, "round {round}");
            }
        }
        let other = Session::from_token("1:1").unwrap();
        let elsewhere = cluster.members[0].client().in_session(other);
        let refused = elsewhere.range(Get::new("k").serializable()).await.unwrap_err();
        assert_eq!(refused.code(), Some(Code::FailedPrecondition), "{refused}");
        let refused = elsewhere.watch(Watch::new("k")).await.unwrap_err().to_string();
        assert!(refused.contains("the session belongs to cluster 1"), "{refused}");
    });
}

#[test]
fn any_member_transfers_leadership_and_removes_members() {
    with_retry(async || {
        let mut rng = Rng::from_env();
        let mut cluster = Cluster::start_to_grow(3, &LONG_ELECTION_TIMEOUT).await;
        let load = Workload::start(&cluster, 4, &mut rng);
        load.progress(50).await;
        let ask = async |verb: &[&str], expected: &str| {
            let (output, _) = kvctl(&cluster.members[1].endpoint(), verb);
            assert!(output.contains(expected), "{verb:?}: {output}");
        };
        ask(&["member", "remove", "beef"], "etcdserver: member not found").await;
        ask(&["member", "promote", "kv-0"], "etcdserver: can only promote a learner member").await;
        ask(&["move-leader", "beef"], "etcdserver: bad leader transferee").await;
        ask(&["member", "add", "x", "--peer-urls", "http://elsewhere:1"], "no ordinal's address")
            .await;
        ask(&["member", "update", "kv-0", "--peer-urls", "http://a:1"], "--peer-template").await;

        // Sent to a member that is neither the leader nor the target.
        let leader = cluster.leader().await;
        let (to, asked) = ((leader + 1) % 3, (leader + 2) % 3);
        let (output, ok) =
            kvctl(&cluster.members[asked].endpoint(), &["move-leader", &format!("kv-{to}")]);
        assert!(ok && output.contains("Leadership transferred"), "{output}");
        assert_eq!(cluster.leader().await, to);

        // The leader itself: it transfers leadership first.
        let removed = id_of(&cluster, to).await;
        let (output, ok) =
            kvctl(&cluster.members[asked].endpoint(), &["member", "remove", &format!("kv-{to}")]);
        assert!(ok && output.contains("removed from cluster"), "{output}");
        load.progress(20).await;
        assert!(!cluster.members[to].exited().await.success(), "it goes on without its cluster");
        // After a restart it joins as a new member.
        cluster.members[to].start();
        cluster.members[to].wait_ready().await;
        wait_until_listed(&cluster, &format!("kv-{to}"), |m| !m.is_learner && m.id != removed)
            .await;
        wait_until_gone(&cluster, removed).await;
        let oracle = load.stop().await;
        check::assert_history_holds(&cluster, &oracle).await;
    });
}

#[test]
fn an_added_ordinal_is_taken_by_the_member_that_starts_there() {
    with_retry(async || {
        let mut cluster = Cluster::start_to_grow(1, &LONG_ELECTION_TIMEOUT).await;
        let client = cluster.members[0].client();
        let alone = id_of(&cluster, 0).await;
        let last = client.member_remove(alone).await.unwrap_err().to_string();
        assert!(last.contains("not enough started members"), "{last}");
        for ordinal in [1, 2] {
            let url = format!("http://{}", cluster.add().peer());
            let added = client.member_add(vec![url.clone()], false).await.unwrap().member.unwrap();
            assert!(added.is_learner && added.name.is_empty() && added.peer_ur_ls == [url.clone()]);
            let twice = client.member_add(vec![url], false).await.unwrap_err().to_string();
            assert!(twice.contains("Peer URLs already exists"), "{twice}");
            let early = client.member_promote(added.id).await.unwrap_err().to_string();
            assert!(early.contains("in sync with leader"), "{early}");
            cluster.members[ordinal].start();
            cluster.members[ordinal].wait_ready().await;
            wait_until_gone(&cluster, added.id).await;
        }
        for name in ["kv-0", "kv-1", "kv-2"] {
            wait_until_listed(&cluster, name, |member| !member.is_learner).await;
        }
        // An ordinal that was added and never joined is removed.
        let url = format!("http://{}", cluster.add().peer());
        let added = client.member_add(vec![url], true).await.unwrap().member.unwrap();
        let left = client.member_remove(added.id).await.unwrap().members;
        assert_eq!(left.len(), 3);
        let deadline = Instant::now() + WAIT_TIMEOUT;
        while client.member_list().await.unwrap().members.len() != 3 {
            assert!(Instant::now() < deadline);
            sleep(POLL_INTERVAL).await;
        }
    });
}

//! Leases survive their leader, and end on time.

use bytes::Bytes;
use ordinal::proto::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseLeasesRequest,
    LeaseRevokeRequest, LeaseTimeToLiveRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
    kv_client::KvClient, lease_client::LeaseClient, request_op::Request as Op,
};
use tokio::time::{Duration, Instant, sleep, timeout};
use tonic::{Code, Status, Streaming, transport::Channel};

use crate::{
    cluster::{
        harness::{Cluster, SMALL_SEGMENTS},
        member::Member,
    },
    support::{POLL_INTERVAL, WAIT_TIMEOUT, retry::with_retry},
};

/// TTL of leases that are not renewed.
const SHORT_TTL: Duration = Duration::from_secs(4);
/// TTL of leases that are renewed while the test needs them.
const LONG_TTL: Duration = Duration::from_secs(8);

fn channel(member: &Member) -> Channel {
    let endpoint = Channel::from_shared(format!("http://{}", member.endpoint())).unwrap();
    endpoint.connect_timeout(Duration::from_secs(1)).timeout(WAIT_TIMEOUT).connect_lazy()
}

fn leases(member: &Member) -> LeaseClient<Channel> {
    LeaseClient::new(channel(member))
}

fn kv(member: &Member) -> KvClient<Channel> {
    KvClient::new(channel(member))
}

fn put(key: String, lease: i64) -> PutRequest {
    PutRequest { key: key.into(), value: "held".into(), lease, ..PutRequest::default() }
}

/// A granted lease with one key attached.
struct Held {
    id: i64,
    ttl: Duration,
    key: String,
    /// Time just before the last answered renewal was sent. The lease may not end within a TTL
    /// after it.
    renewed: Instant,
}

impl Held {
    async fn grant(member: &Member, name: &str, ttl: Duration) -> Held {
        let key = format!("{name}-{}", member.ordinal);
        let ask = async || {
            let renewed = Instant::now();
            let request = LeaseGrantRequest { id: 0, ttl: ttl.as_secs() as i64 };
            let granted = leases(member).lease_grant(request).await?.into_inner();
            assert_eq!(granted.ttl, ttl.as_secs() as i64);
            // On a very busy machine the lease may have expired already.
            kv(member).put(put(key.clone(), granted.id)).await?;
            Ok(Held { id: granted.id, ttl, key: key.clone(), renewed })
        };
        answered(ask).await
    }

    /// Whether the lease exists; `None` without an answer.
    async fn renew(&mut self, member: &Member) -> Option<bool> {
        let sent = Instant::now();
        let answer = renewal(member, self.id).await.ok()?;
        if answer.ttl > 0 {
            self.renewed = sent;
        }
        Some(answer.ttl > 0)
    }

    /// A lease that does not exist any more did not expire early.
    async fn check(&self, member: &Member) {
        let asked = RangeRequest { key: self.key.clone().into(), ..RangeRequest::default() };
        let Ok(found) = kv(member).range(asked).await else { return };
        let age = self.renewed.elapsed();
        let gone = found.into_inner().count == 0;
        assert!(!gone || age >= self.ttl, "{} is gone after {age:?}", self.key);
    }
}

/// Retries until there is an answer: members are killed, and the machine may be busy.
async fn answered<T>(ask: impl AsyncFn() -> Result<T, Status>) -> T {
    let deadline = Instant::now() + WAIT_TIMEOUT;
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(status) => assert!(Instant::now() < deadline, "{status:?}"),
        }
        sleep(POLL_INTERVAL).await;
    }
}

async fn open(
    member: &Member,
    requests: Vec<i64>,
    goes_on: bool,
) -> Result<Streaming<LeaseKeepAliveResponse>, Status> {
    use tokio_stream::StreamExt as _;
    let requests = tokio_stream::iter(requests).map(|id| LeaseKeepAliveRequest { id });
    let pending = tokio_stream::pending().take(usize::from(goes_on));
    Ok(leases(member).lease_keep_alive(requests.chain(pending)).await?.into_inner())
}

async fn renewal(member: &Member, id: i64) -> Result<LeaseKeepAliveResponse, Status> {
    let mut stream = open(member, vec![id], false).await?;
    stream.message().await?.ok_or_else(|| Status::unknown("no answer"))
}

/// The number of keys in this member's own state, by a serializable read.
async fn local_keys(member: &Member) -> i64 {
    let all = RangeRequest {
        key: "\0".into(),
        range_end: Bytes::from_static(b"\0"),
        count_only: true,
        serializable: true,
        ..RangeRequest::default()
    };
    answered(async || kv(member).range(all.clone()).await).await.into_inner().count
}

#[test]
fn leases_survive_the_leader_and_none_ends_before_its_time() {
    with_retry(async || {
        let mut cluster = Cluster::start(3, &SMALL_SEGMENTS).await;
        let (mut kept, mut left) = (Vec::new(), Vec::new());
        for member in &cluster.members {
            kept.push(Held::grant(member, "kept", LONG_TTL).await);
            left.push(Held::grant(member, "left", SHORT_TTL).await);
        }
        for _ in 0..2 {
            let leader = cluster.leader().await;
            cluster.members[leader].kill();
            let others: Vec<usize> = (0..3).filter(|other| *other != leader).collect();
            let until = Instant::now() + Duration::from_secs(3);
            while Instant::now() < until {
                for (held, member) in kept.iter_mut().zip(others.iter().cycle()) {
                    let there = held.renew(&cluster.members[*member]).await;
                    let age = held.renewed.elapsed();
                    assert!(
                        there != Some(false) || age >= LONG_TTL,
                        "{} ended after {age:?}",
                        held.key
                    );
                }
                for (held, member) in kept.iter().chain(&left).zip(others.iter().cycle()) {
                    held.check(&cluster.members[*member]).await;
                }
                sleep(POLL_INTERVAL).await;
            }
            cluster.members[leader].start();
            cluster.members[leader].wait_ready().await;
        }
        // From here on, no client renews a lease.
        let deadline = Instant::now() + LONG_TTL + WAIT_TIMEOUT;
        for member in &cluster.members {
            while local_keys(member).await > 0 {
                for held in &kept {
                    held.check(member).await;
                }
                assert!(Instant::now() < deadline, "member {} keeps keys for ever", member.ordinal);
                sleep(POLL_INTERVAL).await;
            }
            for held in kept.iter().chain(&left) {
                let asked = LeaseTimeToLiveRequest { id: held.id, keys: true };
                let found = answered(async || leases(member).lease_time_to_live(asked).await).await;
                assert_eq!(found.into_inner().ttl, -1, "{}", held.key);
                let renewed = answered(async || renewal(member, held.id).await).await;
                assert_eq!(renewed.ttl, 0, "{}", held.key);
            }
        }
    });
}

/// As in etcd, a member lists the leases in its own state, which needs no leader.
#[test]
fn leases_are_listed_by_a_member_that_is_left_alone() {
    with_retry(async || {
        let mut cluster = Cluster::start(3, &SMALL_SEGMENTS).await;
        let leader = cluster.leader().await;
        let alone = (leader + 1) % 3;
        let granted = Held::grant(&cluster.members[alone], "alone", LONG_TTL).await;
        for at in (0..3).filter(|at| *at != alone) {
            cluster.members[at].kill();
        }
        let listed =
            leases(&cluster.members[alone]).lease_leases(LeaseLeasesRequest {}).await.unwrap();
        let listed: Vec<i64> =
            listed.into_inner().leases.into_iter().map(|lease| lease.id).collect();
        assert_eq!(listed, [granted.id]);
    });
}

#[test]
fn a_member_that_stops_ends_the_streams_that_keep_leases_alive() {
    with_retry(async || {
        let mut cluster = Cluster::start(3, &SMALL_SEGMENTS).await;
        let follower = (cluster.leader().await + 1) % 3;
        let member = &cluster.members[follower];
        let held = Held::grant(member, "held", LONG_TTL).await;
        let mut stream = open(member, vec![held.id, 1, held.id], true).await.unwrap();
        for ttl in [LONG_TTL.as_secs() as i64, 0, LONG_TTL.as_secs() as i64] {
            assert_eq!(stream.message().await.unwrap().unwrap().ttl, ttl);
        }
        member.terminate();
        let end = timeout(Duration::from_secs(4), stream.message()).await.expect("it ends at once");
        assert_eq!(end.unwrap_err().code(), Code::Unavailable);
        assert!(cluster.members[follower].exited().await.success());
    });
}

/// The expiry is one command. A member that spends long applying it must not be suspected dead.
#[test]
fn the_end_of_a_lease_with_very_many_keys_costs_no_election() {
    with_retry(async || {
        const KEYS: usize = 25_600;
        // Long enough that a busy machine alone does not cause an election.
        let cluster = Cluster::start(3, &["--election-timeout", "4s"]).await;
        let leader = cluster.leader().await;
        let member = &cluster.members[(leader + 1) % 3];
        let request = LeaseGrantRequest { id: 7, ttl: 600 };
        leases(member).lease_grant(request).await.unwrap();
        for chunk in 0..KEYS / 128 {
            let put = |i| Op::RequestPut(put(format!("{chunk}/{i}"), 7));
            let success = (0..128).map(|i| RequestOp { request: Some(put(i)) }).collect();
            kv(member).txn(TxnRequest { success, ..TxnRequest::default() }).await.unwrap();
        }
        let asked = LeaseTimeToLiveRequest { id: 7, keys: true };
        let found = leases(member).lease_time_to_live(asked).await.unwrap().into_inner();
        assert_eq!(found.keys.len(), KEYS);
        assert!(found.keys.is_sorted());

        let before = found.header.unwrap();
        let revoked = leases(member).lease_revoke(LeaseRevokeRequest { id: 7 }).await.unwrap();
        let header = revoked.into_inner().header.unwrap();
        assert_eq!(header.revision, before.revision + 1, "one revision");
        assert_eq!(header.raft_term, before.raft_term, "no election");
        assert_eq!(local_keys(member).await, 0);
        assert_eq!(cluster.leader().await, leader);
    });
}

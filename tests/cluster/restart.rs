//! Members are stopped with SIGTERM, as an operator stops them.

use ordinal::proto::etcdserverpb::{RangeRequest, kv_client::KvClient};
use tokio::{
    net::TcpStream,
    time::{Duration, Instant, sleep},
};
use tonic::{Request, transport::Channel};

use crate::{
    cluster::{
        check,
        harness::{Cluster, LONG_ELECTION_TIMEOUT, SMALL_SEGMENTS},
        member::Member,
        workload::Workload,
    },
    support::{POLL_INTERVAL, WAIT_TIMEOUT, retry::with_retry, rng::Rng},
};

/// Bound on a stop: a leadership transfer, two drains, and a busy machine.
const STOP_LIMIT: Duration = Duration::from_secs(15);

#[test]
fn a_leader_that_gets_sigterm_transfers_leadership_and_returns() {
    with_retry(async || {
        let mut rng = Rng::from_env();
        let mut cluster = Cluster::start(3, &LONG_ELECTION_TIMEOUT).await;
        let load = Workload::start(&cluster, 4, &mut rng);
        load.progress(20).await;
        let leader = cluster.leader().await;
        let started = Instant::now();
        cluster.members[leader].stop().await;
        assert!(started.elapsed() < STOP_LIMIT, "stopping took {:?}", started.elapsed());
        let log = cluster.members[leader].log();
        assert!(log.contains("transferring leadership"), "it did not transfer leadership");
        assert!(!log.contains("leadership transfer timed out"), "no member took over");
        load.progress(20).await;

        let next = cluster.leader().await;
        assert_ne!(next, leader);
        cluster.members[leader].start();
        cluster.members[leader].wait_ready().await;
        // The same for a follower, unless leadership changed: its stop disturbs no client.
        let follower = (0..3).find(|&i| i != next && i != leader).unwrap();
        cluster.members[follower].stop().await;
        load.progress(20).await;
        cluster.members[follower].start();
        cluster.members[follower].wait_ready().await;

        let oracle = load.stop().await;
        check::assert_history_holds(&cluster, &oracle).await;
        println!("{:?}", oracle.tally());
    });
}

/// Connects as soon as the port is open, and sends a request that needs a leader.
async fn first_answer(member: &Member) -> Result<(), tonic::Status> {
    let deadline = Instant::now() + WAIT_TIMEOUT;
    while TcpStream::connect(member.endpoint()).await.is_err() {
        assert!(Instant::now() < deadline, "member {} opens no port", member.ordinal);
        sleep(POLL_INTERVAL).await;
    }
    let channel = Channel::from_shared(format!("http://{}", member.endpoint())).unwrap();
    let range = RangeRequest { key: "k".into(), serializable: true, ..RangeRequest::default() };
    let mut request = Request::new(range);
    request.metadata_mut().insert("hasleader", "true".parse().unwrap());
    KvClient::new(channel.connect().await.unwrap()).range(request).await.map(drop)
}

#[test]
fn the_first_client_waits_for_the_first_leader() {
    with_retry(async || {
        let mut cluster = Cluster::start(3, &SMALL_SEGMENTS).await;
        cluster.members.iter_mut().for_each(Member::kill);
        cluster.members.iter_mut().for_each(Member::start);
        for member in &cluster.members {
            first_answer(member).await.unwrap();
        }
    });
}

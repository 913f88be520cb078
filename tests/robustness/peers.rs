//! Callers that are no peers, and peers that send nonsense.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use ordinal::proto::{
    etcdserverpb::{HashKvRequest, ResponseHeader, StatusRequest},
    peer::{
        AppendReply, AppendRequest, Entry, ForwardRequest, Hello, JoinRequest, LogPosition,
        MemberPlace, PromiseRequest, SnapshotChunk, SnapshotFile, SnapshotOffer, SnapshotReply,
        TransferLeaderRequest, Vote, VoteRequest, append_reply, forward_reply, forward_request,
        join_reply, peer_client::PeerClient, promise_reply,
    },
};
use tempfile::TempDir;
use tokio::time::timeout;
use tonic::{Code, Status, Streaming, transport::Channel};

use crate::support::{
    grpc::{connect, get, put},
    kvd::{Kvd, readiness},
    ports::{Ports, free_ports},
    retry::with_retry,
};

/// Answers come immediately, or never.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// A cluster of three, and the facts that a peer of it would know.
struct Cluster {
    kvd: Kvd,
    members: Vec<Ports>,
    headers: Vec<ResponseHeader>,
    leader: u64,
    _scratch: TempDir,
}

impl Cluster {
    async fn start() -> Cluster {
        let scratch = TempDir::new().unwrap();
        // As many ports as `kvd dev` uses for its members.
        let base = free_ports(103).port();
        let port = |n: u16| std::net::SocketAddr::from(([127, 0, 0, 1], base + n));
        let members: Vec<Ports> = (0..3)
            .map(|i| Ports { client: port(2 * i), peer: port(2 * i + 1), admin: port(100 + i) })
            .collect();
        let data = scratch.path().join("data");
        let base = base.to_string();
        let mut args = vec!["dev", "--base-port", &base, "--data-dir", data.to_str().unwrap()];
        args.extend(["--election-timeout", "10s"]);
        let mut kvd = Kvd::start(scratch.path(), members[0], &args);
        for member in &members {
            kvd.ports = *member;
            kvd.ready().await;
        }
        let mut cluster =
            Cluster { kvd, members, headers: Vec::new(), leader: 0, _scratch: scratch };
        for i in 0..3 {
            let status = cluster.maintenance(i).await.status(StatusRequest {}).await.unwrap();
            let status = status.into_inner();
            cluster.leader = status.leader;
            cluster.headers.push(status.header.unwrap());
        }
        cluster
    }

    async fn maintenance(
        &self,
        i: usize,
    ) -> ordinal::proto::etcdserverpb::maintenance_client::MaintenanceClient<Channel> {
        ordinal::proto::etcdserverpb::maintenance_client::MaintenanceClient::new(
            connect(self.members[i].client).await,
        )
    }

    fn leads(&self, i: usize) -> bool {
        self.headers[i].member_id == self.leader
    }

    fn follower(&self) -> usize {
        (0..3).find(|&i| !self.leads(i)).unwrap()
    }

    async fn peer(&self, i: usize) -> PeerClient<Channel> {
        PeerClient::new(connect(self.members[i].peer).await)
    }

    /// The hello of the leader to member `to`, or of another member to the leader.
    fn hello(&self, to: usize) -> Hello {
        let from = (0..3).find(|&i| i != to && (self.leads(i) || self.leads(to))).unwrap();
        Hello {
            cluster_id: self.headers[to].cluster_id,
            from: self.headers[from].member_id,
            from_ordinal: u32::try_from(from).unwrap(),
            to: self.headers[to].member_id,
            boot: 1,
            ..Default::default()
        }
    }

    /// The vote of the leader, as the leader sends it.
    fn vote(&self) -> Vote {
        Vote { term: self.headers[0].raft_term, voted_for: self.leader, committed: true }
    }

    /// Asserts that every member serves, and holds the same data.
    async fn assert_healthy(&self) {
        let mut hashes = Vec::new();
        for (i, ports) in self.members.iter().enumerate() {
            assert_eq!(readiness(ports.admin), Some(200), "member {i}:\n{}", self.kvd.log());
            let channel = connect(ports.client).await;
            let mut kv = ordinal::proto::etcdserverpb::kv_client::KvClient::new(channel);
            assert_eq!(get(&mut kv, "kept").await.unwrap(), "value");
            put(&mut kv, "after", "nonsense").await;
        }
        let mut kv = self.kvd.kv().await;
        put(&mut kv, "last", "of all").await;
        for i in 0..3 {
            // Linearizable: this member has applied all writes.
            let channel = connect(self.members[i].client).await;
            let mut kv = ordinal::proto::etcdserverpb::kv_client::KvClient::new(channel);
            get(&mut kv, "last").await.unwrap();
            let hash = self.maintenance(i).await.hash_kv(HashKvRequest { revision: 0 }).await;
            hashes.push(hash.unwrap().into_inner().hash);
        }
        assert!(hashes.windows(2).all(|pair| pair[0] == pair[1]), "{hashes:?}");
        let status = self.maintenance(0).await.status(StatusRequest {}).await.unwrap();
        let term = status.into_inner().raft_term;
        assert_eq!(term, self.headers[0].raft_term, "nonsense cost an election");
    }
}

async fn append(
    peer: &mut PeerClient<Channel>,
    request: AppendRequest,
) -> Result<Option<AppendReply>, Status> {
    // The request stream stays open: the error must not come from its end.
    let requests = stream::iter([request]).chain(stream::pending());
    single_reply(peer.append(requests).await?.into_inner()).await
}

async fn snapshot(
    peer: &mut PeerClient<Channel>,
    chunks: Vec<SnapshotChunk>,
) -> Result<Vec<SnapshotReply>, Status> {
    let mut replies = peer.snapshot(stream::iter(chunks)).await?.into_inner();
    let mut all = Vec::new();
    while let Some(reply) = timeout(ANSWER_TIMEOUT, replies.message()).await.expect("an answer")? {
        all.push(reply);
    }
    Ok(all)
}

async fn single_reply<T>(mut replies: Streaming<T>) -> Result<Option<T>, Status> {
    timeout(ANSWER_TIMEOUT, replies.message()).await.expect("an answer, or an end")
}

#[test]
fn nonsense_of_peers_is_refused_and_the_cluster_stays_whole() {
    with_retry(async || {
        let cluster = Cluster::start().await;
        put(&mut cluster.kvd.kv().await, "kept", "value").await;
        for member in 0..3 {
            strangers_are_refused(&cluster, member).await;
        }
        let follower = cluster.follower();
        broken_appends_are_refused(&cluster, follower).await;
        broken_snapshots_are_refused(&cluster, follower).await;
        let leader = (0..3).find(|&i| cluster.leads(i)).unwrap();
        broken_votes_are_refused(&cluster, follower).await;
        broken_forwards_are_refused(&cluster, leader).await;
        broken_formation_is_refused(&cluster, leader).await;
        cluster.assert_healthy().await;
        let Cluster { mut kvd, .. } = cluster;
        kvd.signal("INT");
        assert!(kvd.exited(Duration::from_secs(10)).await.success(), "{}", kvd.log());
    });
}

/// Calls without a hello, and with a wrong one, of each method that requires one.
async fn strangers_are_refused(cluster: &Cluster, member: usize) {
    let right = cluster.hello(member);
    let wrong = [
        (None, "has no hello"),
        (Some(Hello::default()), "from cluster"),
        (Some(Hello { cluster_id: !0, ..right.clone() }), "from cluster"),
        (Some(Hello { home: "prod/kv".into(), ..right.clone() }), "\"prod/kv\""),
        (Some(Hello { to: 77, ..right.clone() }), "for member"),
        (Some(Hello { to: 0, ..right.clone() }), "for member"),
        (Some(Hello { from: 0, ..right.clone() }), "was removed"),
        (Some(Hello { boot: 0, ..right.clone() }), "rolled back"),
    ];
    let mut peer = cluster.peer(member).await;
    for (hello, why) in wrong {
        let vote = VoteRequest { hello: hello.clone(), ..Default::default() };
        let transfer = TransferLeaderRequest { hello: hello.clone(), ..Default::default() };
        let first = AppendRequest { hello: hello.clone(), ..Default::default() };
        let chunk = SnapshotChunk { hello: hello.clone(), ..Default::default() };
        let forward = ForwardRequest { hello: hello.clone(), ..Default::default() };
        let refused = [
            peer.vote(vote).await.unwrap_err(),
            peer.transfer_leader(transfer).await.unwrap_err(),
            append(&mut peer, first).await.unwrap_err(),
            snapshot(&mut peer, vec![chunk]).await.unwrap_err(),
            peer.forward(stream::iter([forward])).await.unwrap_err(),
        ];
        for status in refused {
            assert_eq!(status.code(), Code::FailedPrecondition, "{hello:?}: {status:?}");
            assert!(status.message().contains(why), "{hello:?}: {status:?}");
        }
    }
    // No message at all.
    let silent = peer.append(stream::empty()).await.unwrap_err();
    assert_eq!(silent.code(), Code::FailedPrecondition);
}

async fn broken_appends_are_refused(cluster: &Cluster, to: usize) {
    let vote = cluster.vote();
    let entry = |term, index| Entry { term, index, ..Default::default() };
    let far = LogPosition { term: vote.term, index: 1 << 40 };
    let next = far.index + 1;
    let request = AppendRequest {
        hello: Some(cluster.hello(to)),
        vote: Some(vote),
        previous: Some(far),
        ..Default::default()
    };
    let with = |entries| AppendRequest { entries, ..request.clone() };
    let broken = [
        AppendRequest { vote: None, ..request.clone() },
        AppendRequest { vote: Some(Vote { committed: false, ..vote }), ..request.clone() },
        with(vec![Entry { kind: 77, ..entry(vote.term, next) }]),
        with(vec![Entry { kind: 2, data: "no membership".into(), ..entry(vote.term, next) }]),
        // Gaps, steps back, and terms that no leader of this term has.
        with(vec![entry(vote.term, next + 1)]),
        with(vec![entry(vote.term, next), entry(vote.term, next)]),
        with(vec![entry(vote.term, next), entry(vote.term, next + 5)]),
        with(vec![entry(vote.term + 1, next)]),
        with(vec![entry(0, next)]),
        AppendRequest { previous: None, ..with(vec![entry(vote.term, 500)]) },
        AppendRequest {
            previous: Some(LogPosition { index: u64::MAX, ..far }),
            ..with(vec![entry(vote.term, 0)])
        },
    ];
    let mut peer = cluster.peer(to).await;
    for request in broken {
        for heartbeats in [false, true] {
            let request = AppendRequest { heartbeats, ..request.clone() };
            match append(&mut peer, request.clone()).await {
                Ok(None) => {}
                Err(status) => assert_eq!(status.code(), Code::InvalidArgument, "{status:?}"),
                Ok(Some(reply)) => panic!("{request:?} is answered with {reply:?}"),
            }
        }
    }
    // In order, but far beyond the log of this member.
    let reply = append(&mut peer, with(vec![entry(vote.term, next)])).await.unwrap();
    assert!(matches!(reply.unwrap().result, Some(append_reply::Result::Conflict(_))));
    // A leader of an old term.
    let old = AppendRequest { vote: Some(Vote { term: 0, ..vote }), ..request.clone() };
    let reply = append(&mut peer, old).await.unwrap();
    assert!(matches!(reply.unwrap().result, Some(append_reply::Result::HigherVote(_))));
}

async fn broken_snapshots_are_refused(cluster: &Cluster, to: usize) {
    let vote = cluster.vote();
    let position = LogPosition { term: vote.term, index: 1 << 40 };
    let file = |name: &str, bytes| SnapshotFile { name: name.into(), bytes, crc: 1 };
    let first = |files| SnapshotChunk {
        hello: Some(cluster.hello(to)),
        vote: Some(vote),
        offer: Some(SnapshotOffer { position: Some(position), files, ..Default::default() }),
        ..Default::default()
    };
    let chunk = |file, offset, data: &'static str| SnapshotChunk {
        file,
        offset,
        data: data.into(),
        ..Default::default()
    };
    let name = format!("{:016x}-{:016x}.snap", position.index, position.term);
    let block = format!("{:016x}-{:08x}.blk", 77, 1);
    let good = || vec![file(&name, 8)];
    let broken = [
        vec![SnapshotChunk { vote: None, ..first(good()) }],
        vec![SnapshotChunk { vote: Some(Vote { committed: false, ..vote }), ..first(good()) }],
        vec![SnapshotChunk { offer: None, ..first(good()) }],
        vec![first(vec![])],
        vec![first(vec![file("../../identity", 8)])],
        vec![first(vec![file("/etc/passwd", 8)])],
        vec![first(vec![file("", 8)])],
        vec![first(vec![file(&name, 8), file(&name, 8)])],
        vec![first(vec![file(&name, u64::MAX), file(&block, u64::MAX)])],
        vec![first(good())],
        vec![first(good()), chunk(7, 0, "nonsense")],
        vec![first(good()), chunk(0, 3, "nonsense")],
        vec![first(good()), chunk(0, u64::MAX, "nonsense")],
        vec![first(good()), chunk(0, 0, "more than was offered")],
        vec![first(good()), chunk(0, 0, "nonsense")],
    ];
    let mut peer = cluster.peer(to).await;
    for chunks in broken {
        let last = chunks.last().cloned();
        let refused = snapshot(&mut peer, chunks).await.expect_err("nonsense is installed");
        let code = refused.code();
        let expected = [Code::InvalidArgument, Code::Aborted];
        assert!(expected.contains(&code), "{last:?}: {refused:?}");
    }
}

async fn broken_votes_are_refused(cluster: &Cluster, to: usize) {
    let hello = Some(cluster.hello(to));
    let mut peer = cluster.peer(to).await;
    let nobody = VoteRequest { hello: hello.clone(), ..Default::default() };
    assert_eq!(peer.vote(nobody.clone()).await.unwrap_err().code(), Code::InvalidArgument);
    let long_ago = VoteRequest { vote: Some(Vote::default()), ..nobody };
    assert!(!peer.vote(long_ago.clone()).await.unwrap().into_inner().granted);
    let asked = VoteRequest { pre_vote: true, ..long_ago };
    assert!(!peer.vote(asked).await.unwrap().into_inner().granted);
    let transfer = TransferLeaderRequest { hello, ..Default::default() };
    assert_eq!(peer.transfer_leader(transfer).await.unwrap_err().code(), Code::InvalidArgument);
}

async fn broken_forwards_are_refused(cluster: &Cluster, leader: usize) {
    let mut peer = cluster.peer(leader).await;
    let hello = ForwardRequest { hello: Some(cluster.hello(leader)), ..Default::default() };
    let propose = |id, batch: &'static [u8]| ForwardRequest {
        id,
        request: Some(forward_request::Request::Propose(Bytes::from_static(batch))),
        ..Default::default()
    };
    let requests = vec![
        hello,
        ForwardRequest { id: 1, ..Default::default() },
        propose(2, b"nonsense"),
        // An empty command, and one of an unknown kind.
        propose(3, &[0x0a, 0]),
        propose(4, &[0x0a, 3, 0xfa, 1, 0]),
    ];
    let mut replies = peer.forward(stream::iter(requests)).await.unwrap().into_inner();
    let mut answered = Vec::new();
    while let Some(reply) = timeout(ANSWER_TIMEOUT, replies.message()).await.unwrap().unwrap() {
        let unknown = matches!(reply.result, Some(forward_reply::Result::Unknown(_)));
        assert!(unknown, "{reply:?}");
        answered.push(reply.id);
    }
    answered.sort_unstable();
    assert_eq!(answered, [1, 2, 3, 4]);
}

async fn broken_formation_is_refused(cluster: &Cluster, leader: usize) {
    let mut peer = cluster.peer(leader).await;
    let promise = |request| {
        let mut peer = peer.clone();
        async move { peer.promise(request).await.unwrap().into_inner().result.unwrap() }
    };
    let here = MemberPlace { member_id: 9, ordinal: u32::try_from(leader).unwrap() };
    let founders = vec![here];
    let other = PromiseRequest { cluster_id: 7, founders, replace: true, ..Default::default() };
    let reply = promise(other.clone()).await;
    assert!(matches!(reply, promise_reply::Result::Taken(_)), "{reply:?}");
    for nonsense in [
        PromiseRequest::default(),
        PromiseRequest { home: "prod/kv".into(), ..other.clone() },
        PromiseRequest { founders: vec![MemberPlace { ordinal: 99, ..here }], ..other },
    ] {
        let reply = promise(nonsense).await;
        assert!(matches!(reply, promise_reply::Result::Refused(_)), "{reply:?}");
    }
    let mut join = async |request| peer.join(request).await.unwrap().into_inner().result.unwrap();
    let home = JoinRequest { home: "prod/kv".into(), ordinal: 3, ..Default::default() };
    let reply = join(home).await;
    assert!(matches!(reply, join_reply::Result::Refused(_)), "{reply:?}");
    let cluster_id = JoinRequest { ordinal: 3, member_id: 9, cluster_id: 7, ..Default::default() };
    let reply = join(cluster_id).await;
    assert!(matches!(reply, join_reply::Result::Refused(_)), "{reply:?}");
    let occupied = join(JoinRequest::default()).await;
    assert!(matches!(occupied, join_reply::Result::OccupiedBy(_)), "{occupied:?}");
}

//! Every method of the API, answered and refused: a refusal is one HEADERS frame that ends the stream, an
//! answer is HEADERS, DATA and trailers, and there is nothing else.

use std::collections::BTreeSet;

use bytes::Bytes;
use ordinal::proto::{
    FILE_DESCRIPTOR_SET,
    etcdserverpb::{
        CompactionRequest, DeleteRangeRequest, HashKvRequest, LeaseGrantRequest,
        LeaseKeepAliveRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest, MemberRemoveRequest,
        MoveLeaderRequest, PutRequest, RangeRequest, TxnRequest, WatchCreateRequest, WatchRequest,
        watch_request::RequestUnion,
    },
    health::HealthCheckRequest,
};
use prost::Message;
use prost_types::FileDescriptorSet;

use crate::{
    support::kvd::lone_member,
    wire::frames::{Connection, message, request, with},
};

const ANSWER: &str = "HEADERS DATA TRAILERS(0)";
const NOT_BUILT: &str = "REFUSAL(12 ordinal: ";

/// All methods, and whether a client sends more than one message.
fn methods() -> Vec<(String, bool)> {
    let set = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
    let mut methods = Vec::new();
    for file in &set.file {
        for service in &file.service {
            for method in &service.method {
                let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                methods.push((path, method.client_streaming()));
            }
        }
    }
    methods
}

fn encoded(request: &impl Message) -> Bytes {
    message(&request.encode_to_vec())
}

fn kv(method: &str) -> String {
    format!("/etcdserverpb.KV/{method}")
}

fn lease(method: &str) -> String {
    format!("/etcdserverpb.Lease/{method}")
}

fn cluster(method: &str) -> String {
    format!("/etcdserverpb.Cluster/{method}")
}

fn maintenance(method: &str) -> String {
    format!("/etcdserverpb.Maintenance/{method}")
}

/// A request, and the frames of its answer: method, body, frames.
type Row = (String, Bytes, &'static str);

/// Requests in this order to a new store.
fn table() -> Vec<Row> {
    [kv_rows(), write_rows(), lease_rows(), cluster_rows(), maintenance_rows()].concat()
}

fn empty() -> Bytes {
    message(&[])
}

fn key() -> Bytes {
    Bytes::from_static(b"k")
}

fn kv_rows() -> Vec<Row> {
    let put = |value: &[u8]| {
        encoded(&PutRequest {
            key: key(),
            value: Bytes::copy_from_slice(value),
            ..PutRequest::default()
        })
    };
    let range =
        |revision| encoded(&RangeRequest { key: key(), revision, ..RangeRequest::default() });
    vec![
        (kv("Put"), put(b"1"), ANSWER),
        (kv("Put"), put(b"2"), ANSWER),
        (kv("Put"), put(b"3"), ANSWER),
        (kv("Put"), empty(), "REFUSAL(3 etcdserver: key is not provided)"),
        (kv("Compact"), encoded(&CompactionRequest { revision: 3, physical: false }), ANSWER),
        (
            kv("Compact"),
            encoded(&CompactionRequest { revision: 3, physical: true }),
            "REFUSAL(11 etcdserver: mvcc: required revision has been compacted)",
        ),
        (kv("Range"), range(0), ANSWER),
        (
            kv("Range"),
            range(2),
            "REFUSAL(11 etcdserver: mvcc: required revision has been compacted)",
        ),
        (
            kv("Range"),
            range(99),
            "REFUSAL(11 etcdserver: mvcc: required revision is a future revision)",
        ),
        (kv("RangeStream"), range(0), ANSWER),
        (
            kv("RangeStream"),
            range(2),
            "REFUSAL(11 etcdserver: mvcc: required revision has been compacted)",
        ),
        (kv("RangeStream"), empty(), "REFUSAL(3 etcdserver: key is not provided)"),
    ]
}

fn write_rows() -> Vec<Row> {
    vec![
        (kv("Txn"), empty(), ANSWER),
        (
            kv("Txn"),
            encoded(&TxnRequest { success: vec![Default::default()], ..TxnRequest::default() }),
            "REFUSAL(3 etcdserver: key not found)",
        ),
        (
            kv("DeleteRange"),
            encoded(&DeleteRangeRequest { key: key(), ..DeleteRangeRequest::default() }),
            ANSWER,
        ),
        (kv("DeleteRange"), empty(), "REFUSAL(3 etcdserver: key is not provided)"),
    ]
}

fn lease_rows() -> Vec<Row> {
    let ttl = |id, ttl| encoded(&LeaseGrantRequest { id, ttl });
    vec![
        (lease("LeaseGrant"), ttl(7, 60), ANSWER),
        (lease("LeaseGrant"), ttl(7, 60), "REFUSAL(9 etcdserver: lease already exists)"),
        (lease("LeaseGrant"), ttl(8, i64::MAX), "REFUSAL(11 etcdserver: too large lease TTL)"),
        (lease("LeaseTimeToLive"), encoded(&LeaseTimeToLiveRequest { id: 7, keys: true }), ANSWER),
        (lease("LeaseLeases"), empty(), ANSWER),
        (
            lease("LeaseKeepAlive"),
            [encoded(&LeaseKeepAliveRequest { id: 7 }), encoded(&LeaseKeepAliveRequest { id: 9 })]
                .concat()
                .into(),
            ANSWER,
        ),
        (lease("LeaseRevoke"), encoded(&LeaseRevokeRequest { id: 7 }), ANSWER),
        (
            lease("LeaseRevoke"),
            encoded(&LeaseRevokeRequest { id: 7 }),
            "REFUSAL(5 etcdserver: requested lease not found)",
        ),
    ]
}

fn cluster_rows() -> Vec<Row> {
    vec![
        (cluster("MemberList"), empty(), ANSWER),
        (
            cluster("MemberRemove"),
            encoded(&MemberRemoveRequest { id: 99 }),
            "REFUSAL(5 etcdserver: member not found)",
        ),
        (cluster("MemberUpdate"), empty(), "REFUSAL"),
        (cluster("MemberPromote"), empty(), "REFUSAL(5 etcdserver: member not found)"),
        (cluster("MemberAdd"), empty(), "REFUSAL"),
    ]
}

fn maintenance_rows() -> Vec<Row> {
    let health = |service: &str| encoded(&HealthCheckRequest { service: service.into() });
    vec![
        (maintenance("Status"), empty(), ANSWER),
        (maintenance("Alarm"), empty(), ANSWER),
        (maintenance("HashKV"), empty(), ANSWER),
        (
            maintenance("HashKV"),
            encoded(&HashKvRequest { revision: 99 }),
            "REFUSAL(11 etcdserver: mvcc: required revision is a future revision)",
        ),
        (
            maintenance("MoveLeader"),
            encoded(&MoveLeaderRequest { target_id: 99 }),
            "REFUSAL(9 etcdserver: bad leader transferee)",
        ),
        ("/grpc.health.v1.Health/Check".into(), health(""), ANSWER),
        ("/grpc.health.v1.Health/Check".into(), health("x"), "REFUSAL(5 unknown service)"),
        ("/grpc.health.v1.Health/List".into(), empty(), ANSWER),
        ("/ordinal.v1.ClusterAdmin/Cluster".into(), empty(), ANSWER),
        ("/ordinal.v1.ClusterAdmin/Recover".into(), empty(), "REFUSAL"),
    ]
}

/// Methods with endless answers, which other tests cover.
const ENDLESS: [&str; 2] = ["/etcdserverpb.Watch/Watch", "/grpc.health.v1.Health/Watch"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_ends_with_trailers_and_a_refusal_is_one_frame() {
    let (kvd, _scratch) = lone_member().await;
    let connection = Connection::to(kvd.ports.client).await;
    let mut asked = BTreeSet::new();
    for (path, body, expected) in table() {
        let frames = connection.call(request(&path), body.clone()).await;
        match expected {
            "REFUSAL" => assert!(frames.starts_with("REFUSAL("), "{path}: {frames}"),
            _ => assert_eq!(frames, expected, "{path} {body:?}"),
        }
        asked.insert(path);
    }
    for (path, _) in methods() {
        if !asked.contains(&path) && !ENDLESS.contains(&&*path) {
            let frames = connection.call(request(&path), message(&[])).await;
            assert!(frames.starts_with(NOT_BUILT), "no request for {path} in the table: {frames}");
        }
    }
    kvd.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_method_refuses_an_invalid_request_in_one_frame() {
    let (kvd, _scratch) = lone_member().await;
    let connection = Connection::to(kvd.ports.client).await;
    for (path, streams) in methods() {
        let late = with(request(&path), "grpc-timeout", "0n");
        let frames = connection.call(late, message(&[])).await;
        assert_eq!(frames, "REFUSAL(4 context deadline exceeded)", "{path}");

        let unbuilt = connection.call(request(&path), message(b"\xff")).await;
        if unbuilt.starts_with(NOT_BUILT) && !path.contains("Maintenance") {
            continue;
        }
        let packed = with(request(&path), "grpc-encoding", "deflate");
        let text = "grpc: Decompressor is not installed for grpc-encoding \"deflate\"";
        let frames = connection.call(packed, message(&[])).await;
        assert_eq!(frames, format!("REFUSAL(12 {text})"), "{path}");

        // A stream is open before the member reads its first message.
        let garbage = connection.call(request(&path), message(b"\xff")).await;
        let shape = if streams { "HEADERS TRAILERS(13 grpc: " } else { "REFUSAL(13 grpc: " };
        assert!(garbage.starts_with(shape), "{path}: {garbage}");
        assert!(garbage.contains(" unmarshal"), "{path}: {garbage}");
    }
    kvd.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_ends_with_trailers_when_its_time_is_over() {
    let (kvd, _scratch) = lone_member().await;
    let connection = Connection::to(kvd.ports.client).await;
    let create = WatchCreateRequest { key: "k".into(), ..WatchCreateRequest::default() };
    let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    let [watch, health] = ENDLESS;
    for (path, body, last) in [(watch, encoded(&create), false), (health, message(&[]), true)] {
        let timed = with(request(path), "grpc-timeout", "200m");
        let (answer, mut send) = connection.open(timed).await;
        send.send_data(body, last).unwrap();
        let expected = "HEADERS DATA TRAILERS(4 context deadline exceeded)";
        assert_eq!(answer.frames().await, expected, "{path}");
    }
    // A request without an end.
    let timed = with(request(&kv("Put")), "grpc-timeout", "200m");
    let (answer, _send) = connection.open(timed).await;
    assert_eq!(answer.frames().await, "REFUSAL(4 context deadline exceeded)");
    kvd.stop().await;
}

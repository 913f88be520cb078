//! Invalid and damaged gRPC requests: the member answers in the words of etcd's transport, in one
//! frame, and the connection survives.

use bytes::Bytes;
use http::{Method, Request};
use ordinal::proto::etcdserverpb::{PutRequest, RangeRequest};
use prost::Message;

use crate::{
    support::kvd::lone_member,
    wire::frames::{Connection, flagged, message, request, with},
};

const RANGE: &str = "/etcdserverpb.KV/Range";
const ANSWER: &str = "HEADERS DATA TRAILERS(0)";

fn range() -> Bytes {
    Bytes::from(RangeRequest { key: "k".into(), ..RangeRequest::default() }.encode_to_vec())
}

pub fn gzip(payload: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(payload).unwrap();
    gzip.finish().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invalid_grpc_request_is_refused_in_one_frame() {
    let (kvd, _scratch) = lone_member().await;
    let connection = Connection::to(kvd.ports.client).await;
    let post = || request(RANGE);
    let method = |method: Method| {
        let mut request = post();
        *request.method_mut() = method;
        request
    };
    let plain = Request::get("http://member/version").body(()).unwrap();
    for (request, expected) in [
        (
            with(post(), "content-type", "application/json"),
            "REFUSAL(415 3 invalid gRPC request content-type \"application/json\")",
        ),
        (plain, "REFUSAL(415 3 invalid gRPC request content-type \"\")"),
        (
            method(Method::GET),
            "REFUSAL(405 13 Received a HEADERS frame with :method \"GET\" which should be POST)",
        ),
        (
            with(post(), "grpc-timeout", "later"),
            "REFUSAL(400 13 malformed grpc-timeout: transport: timeout unit is not recognized: \
             \"later\")",
        ),
        (
            with(post(), "token-bin", "!"),
            "REFUSAL(400 13 malformed binary metadata \"!\" in header \"token-bin\": illegal base64 \
             data at input byte 0)",
        ),
        (
            request("/etcdserverpb.KV/Nothing"),
            "REFUSAL(12 unknown method Nothing for service etcdserverpb.KV)",
        ),
        (request("/some.Service/Method"), "REFUSAL(12 unknown service some.Service)"),
        (request("/nothing"), "REFUSAL(12 malformed method name: \"/nothing\")"),
        (with(post(), "content-type", "application/grpc+proto"), ANSWER),
    ] {
        let what = format!("{request:?}");
        assert_eq!(connection.call(request, message(&range())).await, expected, "{what}");
    }
    assert_eq!(connection.call(post(), message(&range())).await, ANSWER);
    kvd.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_message_is_named_and_costs_only_its_call() {
    let (kvd, _scratch) = lone_member().await;
    let connection = Connection::to(kvd.ports.client).await;
    let too_long = Bytes::from_static(&[0, 0xff, 0xff, 0xff, 0xff, 1, 2]);
    for (body, expected) in [
        (Bytes::new(), "REFUSAL(2 EOF)"),
        (message(b"a request")[..9].to_vec().into(), "REFUSAL(2 unexpected EOF)"),
        (too_long, "REFUSAL(8 grpc: received message larger than max (4294967295 vs. 2097152))"),
        (flagged(7, &range()), "REFUSAL(13 grpc: received unexpected payload format 7)"),
        (
            flagged(1, &range()),
            "REFUSAL(13 grpc: compressed flag set with identity or empty encoding)",
        ),
    ] {
        assert_eq!(connection.call(request(RANGE), body.clone()).await, expected, "{body:?}");
    }
    assert_eq!(connection.call(request(RANGE), message(&range())).await, ANSWER);
    kvd.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compressed_requests_are_read_and_a_bomb_is_not() {
    let (kvd, _scratch) = lone_member().await;
    let connection = Connection::to(kvd.ports.client).await;
    let packed = || with(request(RANGE), "grpc-encoding", "gzip");
    assert_eq!(connection.call(packed(), flagged(1, &gzip(&range()))).await, ANSWER);
    // A client may send an uncompressed message on a compressed stream.
    assert_eq!(connection.call(packed(), message(&range())).await, ANSWER);
    let keep_alive = with(request("/etcdserverpb.Lease/LeaseKeepAlive"), "grpc-encoding", "gzip");
    assert_eq!(connection.call(keep_alive, flagged(1, &gzip(&[8, 1]))).await, ANSWER);

    let before = kvd.resident_bytes();
    let bomb = flagged(1, &gzip(&vec![0; 64 << 20]));
    assert!(bomb.len() < 100_000, "{} bytes", bomb.len());
    let refused = "REFUSAL(8 grpc: received message after decompression larger than max 2097152)";
    for _ in 0..20 {
        assert_eq!(connection.call(packed(), bomb.clone()).await, refused);
    }
    let grown = kvd.resident_bytes().saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes more");
    let garbage = connection.call(packed(), flagged(1, b"not compressed")).await;
    assert!(
        garbage.starts_with("REFUSAL(13 grpc: failed to decompress the message: "),
        "{garbage}"
    );
    kvd.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_headers_are_taken_as_etcd_takes_them() {
    let (kvd, _scratch) = lone_member().await;
    let connection = Connection::to(kvd.ports.client).await;
    let mut large = request(RANGE);
    for i in 0..25 {
        let name: http::HeaderName = format!("x-{i}").parse().unwrap();
        large.headers_mut().insert(name, "v".repeat(8000).parse().unwrap());
    }
    assert_eq!(connection.call(large, message(&range())).await, ANSWER);
    kvd.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_refusal_of_a_large_request_names_the_bound() {
    let (kvd, _scratch) = lone_member().await;
    let connection = Connection::to(kvd.ports.client).await;
    let put = |bytes| {
        let value = vec![b'v'; bytes].into();
        let put = PutRequest { key: "k".into(), value, ..PutRequest::default() };
        message(&put.encode_to_vec())
    };
    let path = "/etcdserverpb.KV/Put";
    let frames = connection.call(request(path), put((1536 << 10) + 1)).await;
    assert_eq!(frames, "REFUSAL(3 etcdserver: request is too large)");
    let frames = connection.call(request(path), put(2 << 20)).await;
    assert!(frames.starts_with("REFUSAL(8 grpc: received message larger than max ("), "{frames}");
    kvd.stop().await;
}

//! The bounds of one connection, and their cost to the member and other clients.

use std::{io::Write, time::Duration};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderName, HeaderValue, Request};
use ordinal::proto::etcdserverpb::{
    LeaseKeepAliveRequest, PutRequest, RangeRequest, WatchCreateRequest, WatchRequest,
    watch_request::RequestUnion,
};
use prost::Message;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout, timeout_at},
};

use crate::{
    support::{
        grpc::{get, put},
        http2::{self, DATA, frame, greet, read_until_closed},
        kvd::{Kvd, lone_member},
        retry::with_retry,
    },
    wire::frames::{Answer, Connection, message, request},
};

/// More streams than etcd's users were seen to open on one connection, each a watch.
const WATCHES: usize = 4200;
/// Bound on the memory that one connection can pin: stated in `server/connections/http2.rs`.
pub const CONNECTION_BYTES_MAX: u64 = 320 << 20;
pub const RST_STREAM: u8 = 3;
pub const RANGE: &str = "/etcdserverpb.KV/Range";
pub const WATCH: &str = "/etcdserverpb.Watch/Watch";
pub const ANSWER: &str = "HEADERS DATA TRAILERS(0)";
/// Bound on the wait of other clients during an attack. It is long for debug builds next to other
/// tests.
pub const OTHERS_LIMIT: Duration = Duration::from_secs(15);

pub fn encoded(request: &impl Message) -> Bytes {
    message(&request.encode_to_vec())
}

pub fn create(key: &str) -> Bytes {
    let create = WatchCreateRequest { key: key.to_owned().into(), ..WatchCreateRequest::default() };
    encoded(&WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) })
}

/// Asserts that other clients are served during an attack.
pub async fn others_are_served(kvd: &Kvd) {
    others_served(kvd).await.unwrap();
}

/// The reason, if other clients are not served.
pub async fn others_served(kvd: &Kvd) -> Result<(), String> {
    let served = async {
        let mut kv = kvd.kv().await;
        let (key, value) = ("others".into(), "served".into());
        kv.put(PutRequest { key, value, ..PutRequest::default() }).await?;
        assert_eq!(get(&mut kv, "others").await.unwrap(), "served");
        Ok(())
    };
    let served: Result<Result<(), tonic::Status>, _> = timeout(OTHERS_LIMIT, served).await;
    let served = served.map_err(|_| "others wait for one client".to_owned())?;
    served.map_err(|refusal| format!("others are refused for one client: {refusal}"))
}

/// Reads a stream until it contains this.
async fn read_until(mut body: RecvStream, text: &[u8]) {
    let mut received = Vec::new();
    while !received.windows(text.len()).any(|window| window == text) {
        let data = body.data().await.unwrap().unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        received.extend_from_slice(&data);
    }
}

#[test]
fn thousands_of_watches_leave_room_for_other_calls_on_their_connection() {
    with_retry(async || {
        let (kvd, _scratch) = lone_member().await;
        let connection = Connection::to(kvd.ports.client).await;
        let mut watches = Vec::new();
        for _ in 0..WATCHES {
            let (answer, mut send) = connection.open(request(WATCH)).await;
            send.send_data(create("k"), false).unwrap();
            let body = answer.head().await.into_body();
            watches.push((send, tokio::spawn(read_until(body, b"a new value"))));
        }
        let put =
            PutRequest { key: "k".into(), value: "a new value".into(), ..PutRequest::default() };
        let range = RangeRequest { key: "k".into(), ..RangeRequest::default() };
        let keep_alive = LeaseKeepAliveRequest { id: 1 };
        for (path, body) in [
            ("/etcdserverpb.KV/Put", encoded(&put)),
            (RANGE, encoded(&range)),
            ("/etcdserverpb.Lease/LeaseKeepAlive", encoded(&keep_alive)),
        ] {
            assert_eq!(connection.call(request(path), body).await, ANSWER, "{path}");
        }
        let mut silent = 0;
        let deadline = Instant::now() + OTHERS_LIMIT;
        for (_, event) in &mut watches {
            silent += usize::from(timeout_at(deadline, event).await.is_err());
        }
        assert_eq!(silent, 0, "watches of {WATCHES} without an event of the put");
        drop(watches);
        assert_eq!(connection.call(request(RANGE), encoded(&range)).await, ANSWER);
        kvd.stop().await;
    });
}

#[test]
fn a_watch_outlives_thousands_of_calls_that_are_cancelled_at_once() {
    with_retry(async || {
        let (kvd, _scratch) = lone_member().await;
        let mut stream = greet(kvd.ports.client, 65_535).unwrap();
        let open = http2::call(1, WATCH, &create("k"));
        // Without END_STREAM on its DATA: the watch stays.
        let open: Vec<u8> = without_end(open);
        stream.write_all(&open).unwrap();
        let mut burst = Vec::new();
        for i in 1..=3000 {
            burst.extend(http2::call(2 * i + 1, RANGE, &message(b"\n\x01k")));
            burst.extend(frame(RST_STREAM, 0, 2 * i + 1, &8u32.to_be_bytes()));
        }
        stream.write_all(&burst).unwrap();
        put(&mut kvd.kv().await, "k", "after the burst").await;
        let received = read_until_closed(&stream, Duration::from_secs(1));
        let has_event = received.windows(15).any(|window| window == b"after the burst");
        assert!(has_event, "the watch has ended with its connection: {} bytes", received.len());
        kvd.stop().await;
    });
}

/// The frames of one call, the last of which does not end the stream.
pub fn without_end(mut call: Vec<u8>) -> Vec<u8> {
    let headers_bytes = 9 + usize::from(u16::from_be_bytes([call[1], call[2]]));
    assert_eq!(call[headers_bytes + 3], DATA);
    call[headers_bytes + 4] = 0;
    call
}

/// A call with this many header bytes of its own, which the member keeps for each call.
fn with_headers(path: &str, bytes: usize) -> Request<()> {
    const FIELD_BYTES: usize = 126;
    let mut request = request(path);
    for i in 0..bytes / FIELD_BYTES {
        let name: HeaderName = format!("x-{i}").parse().unwrap();
        let mut value = HeaderValue::from_str(&"v".repeat(FIELD_BYTES)).unwrap();
        value.set_sensitive(true);
        request.headers_mut().insert(name, value);
    }
    request
}

/// The first bytes of a message.
fn message_start() -> Bytes {
    let mut message_start = vec![0; 4_000];
    message_start[..5].copy_from_slice(&[0, 0, 0x10, 0, 0]);
    message_start.into()
}

/// Everything that one connection may pin without a refusal: streams, their headers, incomplete
/// requests, and calls that are cancelled at once.
async fn fill(connection: &Connection) -> Vec<(Answer, SendStream<Bytes>)> {
    const STREAMS: usize = 9_900;
    const UNFINISHED: usize = 5_450;
    const HEADER_BYTES: usize = 1_000;
    let mut open = Vec::new();
    for i in 0..STREAMS {
        let call = with_headers("/etcdserverpb.KV/Put", HEADER_BYTES);
        let (answer, mut send) = connection.open(call).await;
        if i < UNFINISHED {
            send.send_data(message_start(), false).unwrap();
        }
        open.push((answer, send));
    }
    for _ in 0..5_000 {
        let (_, mut send) = connection.open(with_headers(RANGE, HEADER_BYTES)).await;
        send.send_reset(Reason::CANCEL);
    }
    open
}

#[test]
fn one_connection_that_fills_every_bound_stays_below_the_stated_memory() {
    with_retry(async || {
        let (kvd, _scratch) = lone_member().await;
        others_are_served(&kvd).await;
        let before = kvd.resident_bytes();
        let connection = Connection::to(kvd.ports.client).await;
        let open = fill(&connection).await;
        others_are_served(&kvd).await;
        let range = RangeRequest { key: "others".into(), ..RangeRequest::default() };
        let frames = connection.call(request(RANGE), encoded(&range)).await;
        assert_eq!(frames, ANSWER, "all of that was allowed");
        let most = kvd.memory("VmHWM:").saturating_sub(before);
        println!("filled: {} MiB more at most", most >> 20);
        assert!(most < CONNECTION_BYTES_MAX, "{most} bytes");

        // A few more unfinished requests exceed the bound: those are refused, and nothing else is.
        let (refusals, mut refused) = mpsc::channel(1);
        let mut more = Vec::new();
        for _ in 0..90 {
            let (answer, mut send) = connection.open(request(RANGE)).await;
            send.send_data(message_start(), false).unwrap();
            let refusals = refusals.clone();
            // The accepted calls wait for the rest of the request.
            more.push((
                send,
                tokio::spawn(async move { refusals.send(answer.frames().await).await }),
            ));
        }
        let refusal = timeout(OTHERS_LIMIT, refused.recv()).await.unwrap().unwrap();
        assert_eq!(refusal, "REFUSAL(8 etcdserver: too many requests)");
        assert_eq!(connection.call(request(RANGE), encoded(&range)).await, ANSWER);
        drop(more);
        drop(open);
        kvd.stop().await;
    });
}

#[test]
fn a_hundred_thousand_streams_cost_one_connection_and_no_other_client() {
    with_retry(async || {
        let (kvd, _scratch) = lone_member().await;
        others_are_served(&kvd).await;
        let before = kvd.resident_bytes();
        let mut stream = greet(kvd.ports.client, 65_535).unwrap();
        let reader = stream.try_clone().unwrap();
        let drained =
            tokio::task::spawn_blocking(move || read_until_closed(&reader, Duration::from_secs(2)));
        let opened = tokio::task::spawn_blocking(move || {
            // The member closes the connection of a client that exceeds the bound.
            (0..100_000).all(|i| {
                stream.write_all(&without_end(http2::call(2 * i + 1, WATCH, &create("k")))).is_ok()
            })
        });
        while !opened.is_finished() {
            others_are_served(&kvd).await;
        }
        assert!(!opened.await.unwrap(), "a hundred thousand streams were taken");
        drained.await.unwrap();
        let most = kvd.memory("VmHWM:").saturating_sub(before);
        println!("a hundred thousand: {} MiB more at most", most >> 20);
        assert!(most < CONNECTION_BYTES_MAX, "{most} bytes");
        kvd.stop().await;
    });
}

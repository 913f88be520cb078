//! Attacks on a member over one connection: each test is one attack, and asserts that the member keeps
//! its memory bounded and serves other clients meanwhile.
//!
//! Most attacks are frames written by hand, because an HTTP/2 library does not send them.

use std::{
    collections::{HashMap, HashSet},
    future::poll_fn,
    io::{BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::Duration,
};

use bytes::Bytes;
use h2::SendStream;
use ordinal::proto::etcdserverpb::{
    Compare, RangeRequest, RequestOp, TxnRequest, compare, request_op,
};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    support::{
        grpc::put,
        http2::{
            self, CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, WINDOW_UPDATE, frame, greet,
        },
        kvd::{Kvd, lone_member},
        retry::{promise, with_retry},
    },
    wire::{
        bounds::{
            ANSWER, CONNECTION_BYTES_MAX, OTHERS_LIMIT, RANGE, RST_STREAM, WATCH, create, encoded,
            others_are_served, others_served, without_end,
        },
        frames::{Connection, flagged, message, request, with},
        requests::gzip,
    },
};

const PUT: &str = "/etcdserverpb.KV/Put";
const TXN: &str = "/etcdserverpb.KV/Txn";
const LEASE_KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";
const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
/// The largest window that HTTP/2 allows.
const WINDOW_MAX: u32 = (1 << 31) - 1;
/// The connection window of every HTTP/2 connection before its first WINDOW_UPDATE.
const FIRST_WINDOW: u32 = 65_535;
const GOAWAY: u8 = 7;
const CANCEL: [u8; 4] = 8u32.to_be_bytes();

/// The frames that a client has received on its connection so far.
#[derive(Default)]
struct Received {
    /// DATA of each stream.
    data: HashMap<u32, Vec<u8>>,
    /// Streams that the member has ended or reset.
    ended: HashSet<u32>,
    /// Bytes that the member has let the client send on the connection.
    window: u64,
    /// The debug data of GOAWAY.
    goaway: Option<String>,
    /// The member has closed the connection.
    closed: bool,
}

/// A connection whose frames a test writes by hand, and whose answers a thread reads.
struct Wire {
    stream: TcpStream,
    received: Arc<Mutex<Received>>,
    reader: Option<JoinHandle<()>>,
}

impl Wire {
    /// Opens a connection with this window for each answer, and no bound on all answers together.
    fn to(member: SocketAddr, window_bytes: u32) -> Wire {
        let mut stream = greet(member, window_bytes).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(&unbounded()).unwrap();
        let received =
            Arc::new(Mutex::new(Received { window: FIRST_WINDOW.into(), ..Received::default() }));
        let reader = thread::spawn({
            let (stream, received) = (stream.try_clone().unwrap(), received.clone());
            move || {
                let mut stream = BufReader::with_capacity(1 << 20, stream);
                while let Some(frame) = read_frame(&mut stream) {
                    received.lock().unwrap().add(frame);
                }
                received.lock().unwrap().closed = true;
            }
        });
        Wire { stream, received, reader: Some(reader) }
    }

    fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Waits until the received frames satisfy the predicate; `false` after the limit.
    async fn receives(&self, limit: Duration, what: impl Fn(&Received) -> bool) -> bool {
        let start = Instant::now();
        loop {
            if what(&self.received.lock().unwrap()) {
                return true;
            }
            if start.elapsed() > limit {
                return false;
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Sends a Range on this stream; whether it is answered.
    async fn answers_a_range(&mut self, stream: u32) -> bool {
        // The answer comes after all earlier requests of the test.
        const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
        let body = message(b"\n\x06others");
        if self.stream.write_all(&http2::call(stream, RANGE, &body)).is_err() {
            return false;
        }
        self.receives(ANSWER_TIMEOUT, |received| {
            received.closed
                || received.ended.contains(&stream) && received.contains(stream, b"served")
        })
        .await;
        let received = self.received.lock().unwrap();
        !received.closed && received.contains(stream, b"served")
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        // The member may have closed the connection already.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

/// The next frame; `None` once the connection has ended.
fn read_frame(stream: &mut impl Read) -> Option<Frame> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).ok()?;
    let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = head;
    let mut payload = vec![0; u32::from_be_bytes([0, l0, l1, l2]) as usize];
    stream.read_exact(&mut payload).ok()?;
    Some(Frame { kind, flags, stream: u32::from_be_bytes([s0, s1, s2, s3]), payload })
}

impl Received {
    fn add(&mut self, frame: Frame) {
        let Frame { kind, flags, stream, payload } = frame;
        match kind {
            WINDOW_UPDATE if stream == 0 => {
                self.window += u64::from(u32::from_be_bytes(payload.try_into().unwrap()));
            }
            GOAWAY => self.goaway = Some(String::from_utf8_lossy(&payload[8..]).into_owned()),
            RST_STREAM => _ = self.ended.insert(stream),
            DATA | HEADERS => {
                if kind == DATA {
                    self.data.entry(stream).or_default().extend(payload);
                }
                if flags & END_STREAM != 0 {
                    self.ended.insert(stream);
                }
            }
            _ => {}
        }
    }

    fn contains(&self, stream: u32, text: &[u8]) -> bool {
        let data = self.data.get(&stream);
        data.is_some_and(|data| data.windows(text.len()).any(|window| window == text))
    }
}

/// Lets the member send any number of bytes on the connection.
fn unbounded() -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, 0, &(WINDOW_MAX - FIRST_WINDOW).to_be_bytes())
}

/// Waits until the member's memory has stopped growing, by less than `limit`, and other clients are
/// served.
async fn assert_settles(kvd: &Kvd, what: &str, before: u64, limit: u64) {
    const SETTLED: Duration = Duration::from_millis(1500);
    const SETTLE_TIMEOUT: Duration = Duration::from_secs(10);
    let (start, mut most, mut since) = (Instant::now(), 0, Instant::now());
    let (mut served, mut longest) = (Ok(()), Duration::ZERO);
    while served.is_ok() && since.elapsed() < SETTLED && start.elapsed() < SETTLE_TIMEOUT {
        let asked = Instant::now();
        served = others_served(kvd).await;
        longest = longest.max(asked.elapsed());
        let now = kvd.memory("VmHWM:");
        if now > most + (1 << 20) {
            (most, since) = (now, Instant::now());
        }
        sleep(Duration::from_millis(50)).await;
    }
    println!("{what}: others waited {longest:?} at most");
    assert_growth(kvd, what, before, limit);
    served.unwrap();
}

/// The peak memory of the member exceeds `before` by less than `limit`.
fn assert_growth(kvd: &Kvd, what: &str, before: u64, limit: u64) {
    let growth = kvd.memory("VmHWM:").saturating_sub(before);
    println!("{what}: {} MiB more at most", growth >> 20);
    // No load of the machine excuses more memory.
    promise(|| assert!(growth < limit, "{what}: {} MiB more", growth >> 20));
}

/// The first call of a connection, which adds the four fields outside of HPACK's static table to
/// the dynamic one.
fn first_call(stream: u32) -> Vec<u8> {
    let mut block = vec![0x83, 0x86];
    for (name, value) in [
        (":path", RANGE),
        (":authority", "kv"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    ] {
        let mut field = http2::header(name, value);
        field[0] = 0x40;
        block.extend(field);
    }
    frame(HEADERS, END_HEADERS, stream, &block)
}

/// Any further call: a reference of one byte for each field.
fn next_call(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &[0x83, 0x86, 0xc1, 0xc0, 0xbf, 0xbe])
}

#[test]
fn calls_that_are_cancelled_take_no_memory_and_no_time_of_others() {
    with_retry(async || {
        const CALLS: u32 = 70_000;
        let (kvd, _scratch) = lone_member().await;
        others_are_served(&kvd).await;
        let before = kvd.resident_bytes();
        let mut wire = Wire::to(kvd.ports.client, FIRST_WINDOW);
        let mut stream = wire.stream.try_clone().unwrap();
        let cancelled = thread::spawn(move || {
            let body = message(b"\n\x01k");
            let (mut burst, mut taken) = (Vec::new(), true);
            for i in 0..CALLS {
                let id = 2 * i + 1;
                burst.extend(if i == 0 { first_call(id) } else { next_call(id) });
                // Every other call sends its request.
                if i % 2 == 0 {
                    burst.extend(frame(DATA, END_STREAM, id, &body));
                }
                burst.extend(frame(RST_STREAM, 0, id, &CANCEL));
                if burst.len() > 1 << 20 || i + 1 == CALLS {
                    taken = taken && stream.write_all(&burst).is_ok();
                    burst.clear();
                }
            }
            taken
        });
        let mut served = Ok(());
        while served.is_ok() && !cancelled.is_finished() {
            served = others_served(&kvd).await;
        }
        let taken = cancelled.join().unwrap();
        let answered = wire.answers_a_range(2 * CALLS + 1).await;
        println!("cancelled calls: all taken: {taken}, a call after them is answered: {answered}");
        assert_growth(&kvd, "cancelled calls", before, CONNECTION_BYTES_MAX);
        served.unwrap();
        assert!(taken && answered, "the connection was ended");
        drop(wire);
        kvd.stop().await;
    });
}

/// A second HEADERS frame on a stream. No gRPC client sends one, and etcd's transport ends the connection.
#[test]
fn trailers_of_a_request_end_the_connection_and_are_not_kept() {
    with_retry(async || {
        const STREAMS: u32 = 150;
        /// More messages than the member processes at once, so that it does not read up to the
        /// trailers.
        const MESSAGES: usize = 100;
        /// Fields of 33 bytes each, as HTTP/2 counts them: fewer than the limit on all headers of a
        /// request.
        const FIELDS: usize = 28_000;
        const FRAME_BYTES: usize = 16 << 10;
        let (kvd, _scratch) = lone_member().await;
        others_are_served(&kvd).await;
        let before = kvd.resident_bytes();
        let wire = Wire::to(kvd.ports.client, 0);
        let mut stream = wire.stream.try_clone().unwrap();
        let written = thread::spawn(move || {
            (0..STREAMS).all(|i| {
                let id = 2 * i + 1;
                let mut burst = without_end(http2::call(
                    id,
                    LEASE_KEEP_ALIVE,
                    &message(&[8, 1]).repeat(MESSAGES),
                ));
                // The first one adds the field to the table, and all others refer to it.
                let mut block = if i == 0 { vec![0x40, 1, b'x', 0] } else { Vec::new() };
                block.resize(block.len() + FIELDS, 0xbe);
                let (first, rest) = block.split_at(FRAME_BYTES);
                assert!(rest.len() <= FRAME_BYTES);
                burst.extend(frame(HEADERS, END_STREAM, id, first));
                burst.extend(frame(CONTINUATION, END_HEADERS, id, rest));
                stream.write_all(&burst).is_ok()
            })
        });
        while !written.is_finished() {
            others_are_served(&kvd).await;
        }
        let closed = wire.receives(OTHERS_LIMIT, |received| received.closed).await;
        let (written, ended) = (written.join().unwrap(), wire.received.lock().unwrap().ended.len());
        let goaway = wire.received.lock().unwrap().goaway.take();
        println!(
            "trailers: {goaway:?} all written: {written}, {ended} streams ended, the connection: {closed}"
        );
        assert_settles(&kvd, "trailers", before, 64 << 20).await;
        assert!(closed, "the member reads on after the trailers of a request");
        drop(wire);
        kvd.stop().await;
    });
}

/// Opens streams whose only message inflates to almost the largest request.
async fn inflate(path: &str, request_bytes: &[u8]) {
    const STREAMS: usize = 400;
    const UNKNOWN_BYTES: usize = 1946 << 10;
    let (kvd, _scratch) = lone_member().await;
    others_are_served(&kvd).await;
    let before = kvd.resident_bytes();
    let connection = Connection::to(kvd.ports.client).await;
    let mut inflating = request_bytes.to_vec();
    // Field 100, which is unknown in either message.
    prost::encoding::bytes::encode(100, &vec![0; UNKNOWN_BYTES], &mut inflating);
    let body = flagged(1, &gzip(&inflating));
    let mut open = Vec::new();
    for _ in 0..STREAMS {
        let call = with(request(path), "grpc-encoding", "gzip");
        let (answer, mut send) = connection.open(call).await;
        // The member may have refused the call already.
        let _ = send.send_data(body.clone(), false);
        open.push((answer, send));
    }
    others_are_served(&kvd).await;
    let mut answered = Vec::new();
    for (answer, send) in open {
        let mut body = answer.head().await.into_body();
        // The answer to the message, or nothing after a refusal.
        let first = timeout(OTHERS_LIMIT, body.data()).await.expect("no answer to a message");
        answered.push((first.is_some(), body, send));
    }
    others_are_served(&kvd).await;
    let taken = answered.iter().filter(|(answered, ..)| *answered).count();
    println!("{path}: {taken} of {STREAMS} messages taken");
    assert_growth(&kvd, "inflated messages", before, 128 << 20);
    drop(answered);
    kvd.stop().await;
}

#[test]
fn watches_do_not_keep_what_their_messages_inflated_to() {
    with_retry(async || {
        inflate(WATCH, &create("k")[5..]).await;
    });
}

#[test]
fn keep_alives_do_not_keep_what_their_messages_inflated_to() {
    with_retry(async || {
        inflate(LEASE_KEEP_ALIVE, &[8, 1]).await;
    });
}

#[test]
fn unread_answers_of_reflection_are_bounded() {
    with_retry(async || {
        const STREAMS: u32 = 300;
        const QUESTIONS: usize = 400;
        let (kvd, _scratch) = lone_member().await;
        others_are_served(&kvd).await;
        let before = kvd.resident_bytes();
        let mut stream = greet(kvd.ports.client, WINDOW_MAX).unwrap();
        stream.write_all(&unbounded()).unwrap();
        // file_containing_symbol: "etcdserverpb.KV"
        let questions = message(b"\x22\x0fetcdserverpb.KV").repeat(QUESTIONS);
        let mut burst = Vec::new();
        for i in 0..STREAMS {
            burst.extend(http2::open(2 * i + 1, REFLECTION));
            burst.extend(frame(DATA, 0, 2 * i + 1, &questions));
        }
        stream.write_all(&burst).unwrap();
        assert_settles(&kvd, "unread reflection", before, 128 << 20).await;
        drop(stream);
        kvd.stop().await;
    });
}

/// A transaction that reads, with a long value to compare with.
fn long_txn() -> Bytes {
    let value = compare::TargetUnion::Value(vec![b'v'; 200_000].into());
    let compare = Compare { key: "k".into(), target_union: Some(value), ..Compare::default() };
    let compare = Compare { target: compare::CompareTarget::Value.into(), ..compare };
    let range = RangeRequest { key: "k".into(), ..RangeRequest::default() };
    let read = RequestOp { request: Some(request_op::Request::RequestRange(range)) };
    encoded(&TxnRequest { compare: vec![compare], success: vec![read], ..TxnRequest::default() })
}

/// Sends one slice as soon as flow control allows; `false` once the member has reset or ended the
/// stream.
async fn send_slice(send: &mut SendStream<Bytes>, rest: &mut Bytes) -> bool {
    const SLICE_BYTES: usize = 16 << 10;
    send.reserve_capacity(rest.len().min(SLICE_BYTES));
    match poll_fn(|cx| send.poll_capacity(cx)).await {
        Some(Ok(capacity)) => {
            let slice = rest.split_to(capacity.min(rest.len()));
            send.send_data(slice, rest.is_empty()).is_ok() && !rest.is_empty()
        }
        _ => false,
    }
}

#[test]
fn requests_that_come_by_turns_do_not_wait_for_each_other() {
    with_retry(async || {
        const CALLS: usize = 450;
        const LIMIT: Duration = Duration::from_secs(20);
        let (kvd, _scratch) = lone_member().await;
        let connection = Connection::to(kvd.ports.client).await;
        let body = long_txn();
        let (mut answers, mut sending) = (Vec::new(), Vec::new());
        for _ in 0..CALLS {
            let (answer, send) = connection.open(request(TXN)).await;
            answers.push(answer);
            sending.push((send, body.clone()));
        }
        let start = Instant::now();
        let sent = async {
            while !sending.is_empty() {
                let mut unfinished = Vec::new();
                for (mut send, mut rest) in sending {
                    if send_slice(&mut send, &mut rest).await {
                        unfinished.push((send, rest));
                    }
                }
                sending = unfinished;
            }
            let (mut ok, mut refused) = (0, 0);
            for answer in answers {
                match answer.frames().await.as_str() {
                    ANSWER => ok += 1,
                    refusal if refusal.starts_with("REFUSAL(8 ") => refused += 1,
                    other => panic!("{other}"),
                }
            }
            println!("by turns: {ok} answered, {refused} refused in {:?}", start.elapsed());
        };
        timeout(LIMIT, sent).await.expect("requests wait for each other");
        kvd.stop().await;
    });
}

#[test]
fn a_silent_connection_does_not_delay_stopping() {
    with_retry(async || {
        let (mut kvd, _scratch) = lone_member().await;
        let silent = TcpStream::connect(kvd.ports.client).unwrap();
        // Connections are accepted in order: this one comes after the silent one.
        others_are_served(&kvd).await;
        let start = Instant::now();
        kvd.signal("TERM");
        let status = kvd.exited(Duration::from_secs(2)).await;
        println!("stopped in {:?}", start.elapsed());
        assert!(status.success(), "{status}");
        drop(silent);
        // Dropped before the directory of its log.
        drop(kvd);
    });
}

/// The member refuses a request that is too large before it has received all of it, so the rest
/// arrives on a stream that has ended. That is no error of the client.
#[test]
fn a_watch_outlives_hundreds_of_puts_that_are_too_large() {
    with_retry(async || {
        const PUTS: u32 = 300;
        const BURSTS: u32 = 2;
        /// Parts of each put, together less than half of the connection's window, so that the window
        /// stays open after the first burst.
        const PARTS: usize = 6;
        const PART: [u8; 2 << 10] = [0; 2 << 10];
        let (kvd, _scratch) = lone_member().await;
        let mut wire = Wire::to(kvd.ports.client, FIRST_WINDOW);
        wire.write(&without_end(http2::call(1, WATCH, &create("watched"))));
        assert!(wire.receives(OTHERS_LIMIT, |received| received.data.contains_key(&1)).await);
        let mut message_start = PART;
        message_start[..5].copy_from_slice(&[0, 0, 0x30, 0, 0]);
        let mut sent = 0;
        for nth in 0..BURSTS {
            let ids = || (0..PUTS).map(move |i| 3 + 2 * (nth * PUTS + i));
            let mut burst = Vec::new();
            for id in ids() {
                burst.extend(http2::open(id, PUT));
                burst.extend(frame(DATA, 0, id, &message_start));
            }
            for _ in 1..PARTS {
                burst.extend(ids().flat_map(|id| frame(DATA, 0, id, &PART)));
            }
            sent += u64::from(PUTS) * (PARTS * PART.len()) as u64;
            let enough = wire
                .receives(OTHERS_LIMIT, |received| received.closed || received.window >= sent)
                .await;
            assert!(enough, "the member opens its window no more");
            // The member may have ended the connection.
            let _ = wire.stream.write_all(&burst);
            let refused = |received: &Received| ids().all(|id| received.ended.contains(&id));
            wire.receives(OTHERS_LIMIT, |received| received.closed || refused(received)).await;
        }
        put(&mut kvd.kv().await, "watched", "after the refusals").await;
        let answered = wire
            .receives(OTHERS_LIMIT, |received| received.contains(1, b"after the refusals"))
            .await;
        let goaway = wire.received.lock().unwrap().goaway.take();
        assert!(
            answered,
            "the watch ended with the refused puts, and the connection with {goaway:?}"
        );
        drop(wire);
        kvd.stop().await;
    });
}

//! Bytes that are no request, on every port.

use std::{
    io::Write,
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use crate::support::{
    grpc::{get, put},
    http2::{
        CONTINUATION, DATA, END_HEADERS, HEADERS, PREFACE, SETTINGS, call, frame, greet, header,
        read_until_closed,
    },
    kvd::{lone_member, readiness},
    retry::with_retry,
};

/// Bound on the memory that garbage may cost.
const MEMORY_BYTES: u64 = 64 << 20;
/// Bound on the memory of one connection; `server/connections/http2.rs` adds it up.
const CONNECTION_BYTES: u64 = 320 << 20;

/// Random bytes, the same in each run (xorshift64).
fn random_bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut x = seed | 1;
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x.to_be_bytes()[3]
    };
    (0..len).map(|_| next()).collect()
}

/// Everything that is sent to each port, each on a connection of its own.
fn garbage() -> Vec<(&'static str, Vec<u8>)> {
    let greeting = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    let after = |bytes: &[u8]| [greeting.as_slice(), bytes].concat();
    let mut huge_frame = vec![0xff, 0xff, 0xff, HEADERS, END_HEADERS];
    huge_frame.extend(1u32.to_be_bytes());
    huge_frame.extend(random_bytes(7, 100_000));
    let fields: Vec<u8> =
        (0..200).flat_map(|i| header(&format!("x-{i}"), &"v".repeat(100))).collect();
    let mut headers_without_end = frame(HEADERS, 0, 1, &header("x", "y"));
    for _ in 0..500 {
        headers_without_end.extend(frame(CONTINUATION, 0, 1, &fields[..16_000]));
    }
    let put = "/etcdserverpb.KV/Put";
    vec![
        ("nothing", Vec::new()),
        ("random bytes", random_bytes(1, 1 << 20)),
        ("zeros", vec![0; 1 << 16]),
        ("half a preface", PREFACE[..13].to_vec()),
        ("random bytes after the preface", after(&random_bytes(2, 1 << 16))),
        ("a huge frame", after(&huge_frame)),
        ("headers without end", after(&headers_without_end)),
        ("a message of 4 GiB", after(&call(1, put, &[0, 0xff, 0xff, 0xff, 0xff, 1, 2, 3]))),
        (
            "a message that is none",
            after(&call(1, put, &[&[0, 0, 0, 4, 0][..], &random_bytes(3, 1024)].concat())),
        ),
        ("a compressed message", after(&call(1, put, &[1, 0, 0, 0, 1, 9]))),
        ("half a message", after(&call(1, put, &[0, 0, 0, 4, 0, 1]))),
        ("data on no stream", after(&frame(DATA, 0, 7, b"data"))),
        ("HTTP/1", b"GET / HTTP/1.1\r\nHost: kv\r\n\r\n".to_vec()),
        ("a long HTTP/1 line", [b"GET /".as_slice(), &[b'a'; 1 << 20]].concat()),
        (
            "HTTP/1 with endless headers",
            [b"GET / HTTP/1.1\r\n".as_slice(), &b"a: b\r\n".repeat(1 << 16)].concat(),
        ),
        (
            "a TLS greeting",
            [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &random_bytes(4, 500)].concat(),
        ),
    ]
}

fn send(to: SocketAddr, bytes: &[u8]) {
    let stream = TcpStream::connect(to).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
    // The member may close the connection before it has read everything.
    let _ = (&stream).write_all(bytes);
    read_until_closed(&stream, Duration::from_millis(50));
}

#[test]
fn garbage_on_any_port_is_survived_and_costs_little() {
    with_retry(async || {
        let (kvd, _scratch) = lone_member().await;
        let mut kv = kvd.kv().await;
        put(&mut kv, "kept", "value").await;
        let before = kvd.resident_bytes();
        for port in [kvd.ports.client, kvd.ports.peer, kvd.ports.admin] {
            for (what, bytes) in garbage() {
                send(port, &bytes);
                assert_eq!(
                    readiness(kvd.ports.admin),
                    Some(200),
                    "{what} on {port}:\n{}",
                    kvd.log()
                );
            }
            let grown = kvd.resident_bytes().saturating_sub(before);
            assert!(grown < MEMORY_BYTES, "garbage on {port} took {grown} bytes");
        }
        // Over the connection that was open all the time, and over a new one.
        assert_eq!(get(&mut kv, "kept").await.unwrap(), "value");
        put(&mut kvd.kv().await, "kept", "again").await;
        assert_eq!(get(&mut kv, "kept").await.unwrap(), "again");
        kvd.stop().await;
    });
}

#[test]
fn calls_that_are_cancelled_without_end_cost_a_bounded_amount() {
    with_retry(async || {
        const RST_STREAM: u8 = 3;
        let (kvd, _scratch) = lone_member().await;
        let before = kvd.resident_bytes();
        let mut stream = greet(kvd.ports.client, 65_535).unwrap();
        let mut sent = 0;
        // ("Rapid reset".) Cancelling is normal, so the connection survives, at a bounded cost.
        for i in 0..50_000 {
            let mut bytes =
                call(2 * i + 1, "/etcdserverpb.KV/Range", &[0, 0, 0, 0, 3, 10, 1, b'k']);
            bytes.extend(frame(RST_STREAM, 0, 2 * i + 1, &8u32.to_be_bytes()));
            if stream.write_all(&bytes).is_err() {
                break;
            }
            sent += 1;
        }
        let grown = kvd.resident_bytes().saturating_sub(before);
        assert!(grown < CONNECTION_BYTES, "{sent} resets took {grown} bytes");
        assert_eq!(get(&mut kvd.kv().await, "k").await, None);
        kvd.stop().await;
    });
}

#[test]
fn silent_connections_do_not_block_other_clients() {
    with_retry(async || {
        let (kvd, _scratch) = lone_member().await;
        let silent: Vec<TcpStream> = (0..300)
            .flat_map(|_| [kvd.ports.client, kvd.ports.peer, kvd.ports.admin])
            .map(|port| TcpStream::connect(port).unwrap())
            .collect();
        assert_eq!(readiness(kvd.ports.admin), Some(200));
        put(&mut kvd.kv().await, "k", "v").await;
        drop(silent);
        kvd.stop().await;
    });
}

//! A client that requests much and reads nothing.

use std::{io::Write, time::Duration};

use bytes::Bytes;
use ordinal::proto::etcdserverpb::RangeRequest;
use tokio::time::{Instant, timeout};

use crate::support::{
    grpc::{get, put},
    http2::{WINDOW_UPDATE, call, frame, greet, message},
    kvd::lone_member,
    retry::with_retry,
};

const VALUE_BYTES: usize = 512 << 10;
const VALUES: usize = 16;
/// Each requests all values: 8 MiB.
const REQUESTS: u32 = 300;
/// Their answers together would take 2.4 GiB.
const MEMORY_BYTES: u64 = 400 << 20;

#[test]
fn a_client_that_never_reads_costs_bounded_memory_and_delays_no_other_client() {
    with_retry(async || {
        let (kvd, _scratch) = lone_member().await;
        let mut kv = kvd.kv().await;
        for i in 0..VALUES {
            put(&mut kv, &format!("large/{i:02}"), Bytes::from(vec![b'v'; VALUE_BYTES])).await;
        }
        put(&mut kv, "small", "value").await;
        let all =
            RangeRequest { key: "large/".into(), range_end: "large0".into(), ..Default::default() };
        let mut greedy = Vec::new();
        // A window of zero, and one that lets the socket fill up.
        for window in [0, i32::MAX.cast_unsigned()] {
            let before = kvd.resident_bytes();
            let mut stream = greet(kvd.ports.client, window).unwrap();
            let more = (i32::MAX - 65_535).to_be_bytes();
            stream.write_all(&frame(WINDOW_UPDATE, 0, 0, &more)).unwrap();
            for i in 0..REQUESTS {
                let request = call(2 * i + 1, "/etcdserverpb.KV/Range", &message(&all));
                // The member may stop reading from a client that it cannot answer.
                if stream.write_all(&request).is_err() {
                    break;
                }
            }
            greedy.push(stream);
            let start = Instant::now();
            let mut most = 0;
            while start.elapsed() < Duration::from_secs(2) {
                let small = timeout(Duration::from_secs(2), get(&mut kv, "small")).await;
                assert_eq!(small.expect("others wait for the greedy one").unwrap(), "value");
                most = most.max(kvd.resident_bytes().saturating_sub(before));
            }
            println!("window {window}: at most {} MiB more", most >> 20);
            assert!(most < MEMORY_BYTES, "window {window}: {most} bytes");
        }
        put(&mut kv, "small", "again").await;
        drop(greedy);
        kvd.stop().await;
    });
}

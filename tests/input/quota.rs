//! A store that is full by its own measure: refused in etcd's words, and good again without anybody
//! clearing an alarm.

use std::time::Duration;

use ordinal::proto::etcdserverpb::{CompactionRequest, DeleteRangeRequest, PutRequest};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use tonic::Code;

use crate::kvd::{Kvd, Ports};

const QUOTA: &str = "8MiB";
const VALUE_BYTES: usize = 64 << 10;
const PATIENCE: Duration = Duration::from_secs(20);

fn filler(i: usize) -> PutRequest {
    let value = vec![b'f'; VALUE_BYTES].into();
    PutRequest { key: format!("fill/{i:05}").into(), value, ..Default::default() }
}

#[tokio::test]
async fn a_reached_quota_clears_itself_after_a_compaction() {
    let scratch = TempDir::new().unwrap();
    let ports = Ports::free();
    let data = scratch.path().join("data");
    let mut kvd = Kvd::serve_with(scratch.path(), &data, ports, &["--quota-bytes", QUOTA]);
    kvd.ready().await;
    let mut kv = kvd.kv().await;

    let mut i = 0;
    let refused = loop {
        match kv.put(filler(i)).await {
            Ok(_) => i += 1,
            Err(status) => break status,
        }
        assert!(i * VALUE_BYTES < 64 << 20, "the quota is never reached");
    };
    let text = "etcdserver: mvcc: database space exceeded";
    assert_eq!((refused.code(), refused.message()), (Code::ResourceExhausted, text));

    let all =
        DeleteRangeRequest { key: "fill/".into(), range_end: "fill0".into(), ..Default::default() };
    let deleted = kv.delete_range(all).await.unwrap().into_inner();
    assert_eq!(deleted.deleted, i64::try_from(i).unwrap());
    let revision = deleted.header.unwrap().revision;
    kv.compact(CompactionRequest { revision, physical: true }).await.unwrap();
    let start = Instant::now();
    while let Err(status) = kv.put(filler(0)).await {
        assert_eq!(status.message(), text);
        assert!(start.elapsed() < PATIENCE, "the quota does not clear itself");
        sleep(Duration::from_millis(50)).await;
    }
    drop(kv);
    kvd.stop().await;
}

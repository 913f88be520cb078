//! A store at its quota: writes are refused in etcd's words, and accepted again once they fit,
//! without a disarmed alarm.

use std::time::Duration;

use ordinal::proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, PutRequest, RequestOp, StatusRequest, StatusResponse,
    TxnRequest, maintenance_client::MaintenanceClient, request_op::Request,
};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use tonic::Code;

use crate::support::{kvd::Kvd, ports::Ports, retry::with_retry};

const QUOTA: &str = "8MiB";
const VALUE_BYTES: usize = 64 << 10;
const NO_SPACE: &str = "etcdserver: mvcc: database space exceeded";
const RECLAIM_TIMEOUT: Duration = Duration::from_secs(20);

fn filler(i: usize) -> PutRequest {
    let value = vec![b'f'; VALUE_BYTES].into();
    PutRequest { key: format!("fill/{i:05}").into(), value, ..Default::default() }
}

#[test]
fn a_reached_quota_clears_itself_after_a_compaction() {
    with_retry(async || {
        let scratch = TempDir::new().unwrap();
        let ports = Ports::free();
        let data = scratch.path().join("data");
        let mut kvd =
            Kvd::serve_with(scratch.path(), &data, ports, &["--quota-backend-bytes", QUOTA]);
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
        assert_eq!((refused.code(), refused.message()), (Code::ResourceExhausted, NO_SPACE));

        let all = DeleteRangeRequest {
            key: "fill/".into(),
            range_end: "fill0".into(),
            ..Default::default()
        };
        let deleted = kv.delete_range(all).await.unwrap().into_inner();
        assert_eq!(deleted.deleted, i64::try_from(i).unwrap());
        let revision = deleted.header.unwrap().revision;
        kv.compact(CompactionRequest { revision, physical: true }).await.unwrap();
        let start = Instant::now();
        while let Err(status) = kv.put(filler(0)).await {
            assert_eq!(status.message(), NO_SPACE);
            assert!(start.elapsed() < RECLAIM_TIMEOUT, "the quota does not clear itself");
            sleep(Duration::from_millis(50)).await;
        }
        drop(kv);
        kvd.stop().await;
    });
}

#[test]
fn a_quota_that_does_not_fit_the_volume_is_logged_with_what_to_set() {
    with_retry(async || {
        let scratch = TempDir::new().unwrap();
        let data = scratch.path().join("data");
        let more = ["--quota-backend-bytes", "1000000GiB"];
        let mut kvd = Kvd::serve_with(scratch.path(), &data, Ports::free(), &more);
        kvd.logs("sizes do not fit each other").await;
        let log = kvd.log();
        assert!(log.contains("a quota of 1000000GiB may fill 4500000.1GiB"), "{log}");
        assert!(log.contains("use a volume of 4500001GiB, or --quota-backend-bytes to"), "{log}");
        kvd.ready().await;
        kvd.stop().await;
    });
}

async fn status(kvd: &Kvd) -> StatusResponse {
    let mut maintenance = MaintenanceClient::new(kvd.channel().await);
    maintenance.status(StatusRequest {}).await.unwrap().into_inner()
}

fn put(key: &'static str, value_bytes: usize) -> PutRequest {
    let value = vec![b'f'; value_bytes].into();
    PutRequest { key: key.into(), value, ..Default::default() }
}

/// As in etcd: the size of a request counts before it is stored.
#[test]
fn a_request_that_would_reach_the_quota_is_refused_and_raises_the_alarm() {
    with_retry(async || {
        const LARGE: usize = 1_500_000;
        let scratch = TempDir::new().unwrap();
        let data = scratch.path().join("data");
        let args = ["--quota-backend-bytes", "1920000"];
        let mut kvd = Kvd::serve_with(scratch.path(), &data, Ports::free(), &args);
        kvd.ready().await;
        let mut kv = kvd.kv().await;

        kv.put(put("a", LARGE)).await.unwrap();
        assert_eq!(status(&kvd).await.errors, [""; 0]);
        let refused = kv.put(put("b", LARGE)).await.unwrap_err();
        assert_eq!((refused.code(), refused.message()), (Code::ResourceExhausted, NO_SPACE));
        let errors = status(&kvd).await.errors;
        assert!(errors.iter().any(|error| error.contains("alarm:NOSPACE")), "{errors:?}");

        // A request that stores nothing passes, and so does one that fits.
        let delete = DeleteRangeRequest { key: "none".into(), ..Default::default() };
        let delete = RequestOp { request: Some(Request::RequestDeleteRange(delete)) };
        kv.txn(TxnRequest { success: vec![delete], ..Default::default() }).await.unwrap();
        kv.put(put("small", 10)).await.unwrap();

        let delete = DeleteRangeRequest { key: "a".into(), ..Default::default() };
        let revision = kv.delete_range(delete).await.unwrap().into_inner().header.unwrap().revision;
        kv.compact(CompactionRequest { revision, physical: true }).await.unwrap();
        let start = Instant::now();
        while !status(&kvd).await.errors.is_empty() {
            assert!(start.elapsed() < RECLAIM_TIMEOUT, "the alarm does not end by itself");
            sleep(Duration::from_millis(50)).await;
        }
        kv.put(put("b", LARGE)).await.unwrap();
        drop(kv);
        kvd.stop().await;
    });
}

/// A restart must not consume quota: the live bytes are a function of the data.
#[test]
fn a_restart_changes_nothing_that_the_quota_counts() {
    with_retry(async || {
        let scratch = TempDir::new().unwrap();
        let data = scratch.path().join("data");
        let ports = Ports::free();
        let args = ["--quota-backend-bytes", "100KiB"];
        let mut before = None;
        for life in 0..3 {
            let mut kvd = Kvd::serve_with(scratch.path(), &data, ports, &args);
            kvd.ready().await;
            let mut kv = kvd.kv().await;
            // The member publishes its description once, and logs the number of its starts each
            // time.
            let now = async || status(&kvd).await.db_size_in_use;
            if let Some(before) = before {
                assert_eq!(now().await, before, "after {life} restarts");
            }
            kv.put(put("key", 1000)).await.unwrap();
            before = Some(now().await);
            drop(kv);
            kvd.stop().await;
        }
    });
}

//! Client requests that must be refused, with etcd's codes and texts.

use bytes::Bytes;
use ordinal::proto::etcdserverpb::{
    CompactionRequest, Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp,
    TxnRequest, request_op::Request,
};
use tonic::{Code, Status};

use crate::support::{
    grpc::{get, put},
    kvd::lone_member,
    retry::with_retry,
};

fn assert_status(status: &Status, code: Code, text: &str) {
    assert_eq!((status.code(), status.message()), (code, text));
}

fn range(key: &'static str) -> RangeRequest {
    RangeRequest { key: key.into(), ..Default::default() }
}

fn op(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

const NO_KEY: &str = "etcdserver: key is not provided";

#[test]
fn every_request_with_a_key_refuses_an_empty_one() {
    with_retry(async || {
        let (kvd, _scratch) = lone_member().await;
        let mut kv = kvd.kv().await;
        let refused = [
            kv.range(range("")).await.unwrap_err(),
            kv.put(PutRequest::default()).await.unwrap_err(),
            kv.delete_range(DeleteRangeRequest::default()).await.unwrap_err(),
            kv.range_stream(range("")).await.unwrap_err(),
            kv.txn(TxnRequest { compare: vec![Compare::default()], ..Default::default() })
                .await
                .unwrap_err(),
            kv.txn(TxnRequest {
                success: vec![op(Request::RequestPut(PutRequest::default()))],
                ..Default::default()
            })
            .await
            .unwrap_err(),
        ];
        for status in refused {
            assert_status(&status, Code::InvalidArgument, NO_KEY);
        }
        kvd.stop().await;
    });
}

#[test]
fn oversized_requests_are_refused_and_leave_no_trace() {
    with_retry(async || {
        let (kvd, _scratch) = lone_member().await;
        let mut kv = kvd.kv().await;
        let large = |bytes: usize| PutRequest {
            key: "large".into(),
            value: Bytes::from(vec![b'v'; bytes]),
            ..Default::default()
        };
        kv.put(large(1 << 20)).await.unwrap();
        let status = kv.put(large(1536 << 10)).await.unwrap_err();
        assert_status(&status, Code::InvalidArgument, "etcdserver: request is too large");
        // Larger than the transport accepts.
        let status = kv.put(large(8 << 20)).await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
        assert!(status.message().contains("larger than max"), "{status:?}");
        assert_eq!(get(&mut kv, "large").await.unwrap().len(), 1 << 20);

        let puts = |n: usize| TxnRequest {
            success: (0..n)
                .map(|i| {
                    let key = format!("many-{i}").into();
                    op(Request::RequestPut(PutRequest { key, ..Default::default() }))
                })
                .collect(),
            ..Default::default()
        };
        let status = kv.txn(puts(129)).await.unwrap_err();
        assert_status(
            &status,
            Code::InvalidArgument,
            "etcdserver: too many operations in txn request",
        );
        assert_eq!(get(&mut kv, "many-0").await, None);
        kv.txn(puts(128)).await.unwrap();
        let nested = (0..200).fold(puts(1), |inner, _| TxnRequest {
            success: vec![op(Request::RequestTxn(inner))],
            ..Default::default()
        });
        // Nested deeper than protobuf decoders accept.
        assert!(kv.txn(nested).await.is_err());
        kvd.stop().await;
    });
}

#[test]
fn revisions_that_are_gone_or_not_there_yet_are_out_of_range() {
    with_retry(async || {
        const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";
        const FUTURE: &str = "etcdserver: mvcc: required revision is a future revision";
        let (kvd, _scratch) = lone_member().await;
        let mut kv = kvd.kv().await;
        for i in 0..5 {
            put(&mut kv, "k", format!("{i}")).await;
        }
        let compact = |revision| CompactionRequest { revision, ..CompactionRequest::default() };
        kv.compact(compact(4)).await.unwrap();
        let at = |revision| RangeRequest { revision, ..range("k") };
        assert_status(&kv.range(at(3)).await.unwrap_err(), Code::OutOfRange, COMPACTED);
        assert_status(&kv.range(at(1000)).await.unwrap_err(), Code::OutOfRange, FUTURE);
        assert_status(&kv.range(at(i64::MAX)).await.unwrap_err(), Code::OutOfRange, FUTURE);
        assert_status(&kv.compact(compact(3)).await.unwrap_err(), Code::OutOfRange, COMPACTED);
        assert_status(&kv.compact(compact(-1)).await.unwrap_err(), Code::OutOfRange, COMPACTED);
        assert_status(&kv.compact(compact(1000)).await.unwrap_err(), Code::OutOfRange, FUTURE);
        for revision in [0, -1, i64::MIN] {
            let now = kv.range(at(revision)).await.unwrap().into_inner();
            assert_eq!(now.kvs[0].value, "4", "zero and below are now, as in etcd");
        }
        kvd.stop().await;
    });
}

#[test]
fn a_range_whose_end_is_before_its_start_is_empty() {
    with_retry(async || {
        let (kvd, _scratch) = lone_member().await;
        let mut kv = kvd.kv().await;
        put(&mut kv, "m", "1").await;
        let backwards = RangeRequest { range_end: "a".into(), ..range("z") };
        let answer = kv.range(backwards).await.unwrap().into_inner();
        assert_eq!((answer.kvs.len(), answer.count, answer.more), (0, 0, false));
        let delete =
            DeleteRangeRequest { key: "z".into(), range_end: "a".into(), ..Default::default() };
        assert_eq!(kv.delete_range(delete).await.unwrap().into_inner().deleted, 0);
        assert_eq!(get(&mut kv, "m").await.unwrap(), "1");
        kvd.stop().await;
    });
}

#[test]
fn unknown_options_are_refused() {
    with_retry(async || {
        let (kvd, _scratch) = lone_member().await;
        let mut kv = kvd.kv().await;
        let status = kv.range(RangeRequest { sort_order: 77, ..range("k") }).await.unwrap_err();
        assert_status(&status, Code::InvalidArgument, "etcdserver: invalid sort option");
        let status = kv.range(RangeRequest { sort_target: -1, ..range("k") }).await.unwrap_err();
        assert_status(&status, Code::InvalidArgument, "etcdserver: invalid sort option");
        let leased = PutRequest { key: "k".into(), lease: 12345, ..Default::default() };
        let status = kv.put(leased).await.unwrap_err();
        assert_status(&status, Code::NotFound, "etcdserver: requested lease not found");
        let status = kv
            .txn(TxnRequest { success: vec![RequestOp::default()], ..Default::default() })
            .await
            .unwrap_err();
        assert_status(&status, Code::InvalidArgument, "etcdserver: key not found");
        kvd.stop().await;
    });
}

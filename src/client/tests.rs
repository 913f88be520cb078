//! The choice of endpoints, and the certainty about the outcome without a response.

use std::time::Duration;

use tokio::{
    io::AsyncReadExt as _,
    net::{TcpListener, TcpStream},
};
use tonic::{Code, Status};

use super::{
    Client, ClientError, Endpoint, Timeouts,
    fake::{Behavior, FakeServer},
};
use crate::proto::etcdserverpb::{PutRequest, RangeRequest, TxnRequest};

/// Long enough for every member that responds.
const LONG: Timeouts = Timeouts { dial: Duration::from_secs(20), command: Duration::from_secs(20) };

fn put() -> PutRequest {
    PutRequest { key: "k".into(), value: "v".into(), ..PutRequest::default() }
}

fn get() -> RangeRequest {
    RangeRequest { key: "k".into(), ..RangeRequest::default() }
}

/// An address without a listener: its port was free a moment ago.
async fn closed_endpoint() -> Endpoint {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().to_string().parse().unwrap()
}

/// A server that reads a request and closes the connection.
async fn disconnecting_endpoint() -> Endpoint {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = listener.local_addr().unwrap().to_string().parse().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            close_after_request(stream).await;
        }
    });
    endpoint
}

/// Reads HTTP/2 up to the first DATA frame: the message of a request.
async fn close_after_request(mut stream: TcpStream) {
    const PREFACE_BYTES: usize = 24;
    const DATA: u8 = 0;
    let mut frame = vec![0; PREFACE_BYTES];
    while stream.read_exact(&mut frame).await.is_ok() {
        let mut head = [0; 9];
        if stream.read_exact(&mut head).await.is_err() || head[3] == DATA {
            return;
        }
        frame = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
    }
}

fn refusing(code: Code, message: &str) -> Behavior {
    Behavior::Refuse(Status::new(code, message))
}

#[tokio::test]
async fn a_write_tries_the_next_endpoint_only_if_it_cannot_connect() {
    let server = FakeServer::start(Behavior::Serve).await;
    let client = Client::new(vec![closed_endpoint().await, server.endpoint()], LONG);
    client.put(put()).await.unwrap();
    assert_eq!(server.calls(), 1);
}

#[tokio::test]
async fn a_write_is_not_repeated_when_its_outcome_is_unknown() {
    let unsure = FakeServer::start(refusing(Code::Unavailable, "etcdserver: leader changed")).await;
    let next = FakeServer::start(Behavior::Serve).await;
    for first in [unsure.endpoint(), disconnecting_endpoint().await] {
        let client = Client::new(vec![first, next.endpoint()], LONG);
        let error = client.put(put()).await.unwrap_err();
        assert!(
            matches!(error, ClientError::Lost { .. }) && !error.certainly_not_applied(),
            "{error}"
        );
        assert_eq!(next.calls(), 0);
    }
    assert_eq!(unsure.calls(), 1);
}

#[tokio::test]
async fn a_read_tries_the_next_endpoint() {
    let unsure = FakeServer::start(refusing(Code::Unavailable, "etcdserver: leader changed")).await;
    let next = FakeServer::start(Behavior::Serve).await;
    let first = [unsure.endpoint(), disconnecting_endpoint().await, closed_endpoint().await];
    for (answered, first) in first.into_iter().enumerate() {
        let client = Client::new(vec![first, next.endpoint()], LONG);
        client.range(get()).await.unwrap();
        client.txn(TxnRequest::default()).await.unwrap();
        assert_eq!(next.calls(), 2 * (answered + 1));
    }
}

#[tokio::test]
async fn a_refusal_is_final() {
    let refusing = FakeServer::start(refusing(Code::OutOfRange, "compacted")).await;
    let next = FakeServer::start(Behavior::Serve).await;
    let client = Client::new(vec![refusing.endpoint(), next.endpoint()], LONG);
    let error = client.range(get()).await.unwrap_err();
    assert_eq!((error.to_string().as_str(), next.calls()), ("compacted", 0));
}

#[tokio::test]
async fn a_request_without_a_response_times_out() {
    let server = FakeServer::start(Behavior::Hang).await;
    let hasty = Timeouts { command: Duration::from_millis(50), ..LONG };
    let client = Client::new(vec![server.endpoint()], hasty);
    let write = client.put(put()).await.unwrap_err();
    assert!(
        matches!(write, ClientError::TimedOut { .. }) && !write.certainly_not_applied(),
        "{write}"
    );
    assert!(write.to_string().contains("within 50ms"), "{write}");
    assert!(client.range(get()).await.unwrap_err().certainly_not_applied());
}

#[tokio::test]
async fn all_unreachable_endpoints_are_named() {
    let (a, b) = (closed_endpoint().await, closed_endpoint().await);
    let error = Client::new(vec![a.clone(), b.clone()], LONG).put(put()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "cannot reach {a}: connection refused; cannot reach {b}: connection refused \
             — is kvd running? start one with 'kvd dev'"
        )
    );
}

#[tokio::test]
async fn a_broken_channel_reports_that_nothing_was_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint: Endpoint = listener.local_addr().unwrap().to_string().parse().unwrap();
    let client = Client::new(vec![endpoint], LONG);
    let (first, ()) = tokio::join!(client.put(put()), async {
        close_after_request(listener.accept().await.unwrap().0).await;
    });
    assert!(!first.unwrap_err().certainly_not_applied());
    drop(listener);
    // The channel cannot reconnect: the client knows that nothing was sent.
    let second = client.put(put()).await.unwrap_err();
    assert!(matches!(second, ClientError::Unreachable(_)), "{second:?}");
}

//! Which endpoint is asked, and what is known when no answer comes.

use std::time::Duration;

use tokio::{
    io::AsyncReadExt as _,
    net::{TcpListener, TcpStream},
};
use tonic::{Code, Status};

use super::{
    Client, ClientError, Endpoint, Timeouts,
    fake::{FakeServer, Mood},
};
use crate::proto::etcdserverpb::{PutRequest, RangeRequest, TxnRequest};

/// Long enough for anything that answers at all.
const PATIENT: Timeouts =
    Timeouts { dial: Duration::from_secs(20), command: Duration::from_secs(20) };

fn put() -> PutRequest {
    PutRequest { key: "k".into(), value: "v".into(), ..PutRequest::default() }
}

fn get() -> RangeRequest {
    RangeRequest { key: "k".into(), ..RangeRequest::default() }
}

/// An address where nobody listens: one that was free a moment ago.
async fn nobody() -> Endpoint {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().to_string().parse().unwrap()
}

/// Somebody who takes a request and hangs up.
async fn rude() -> Endpoint {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = listener.local_addr().unwrap().to_string().parse().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            hang_up_after_request(stream).await;
        }
    });
    endpoint
}

/// Reads HTTP/2 up to the first DATA frame: the message of a request.
async fn hang_up_after_request(mut stream: TcpStream) {
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

fn refusing(code: Code, message: &str) -> Mood {
    Mood::Refuse(Status::new(code, message))
}

#[tokio::test]
async fn a_write_goes_on_to_the_next_endpoint_only_while_nobody_is_there() {
    let server = FakeServer::start(Mood::Answer).await;
    let client = Client::new(vec![nobody().await, server.endpoint()], PATIENT);
    client.put(put()).await.unwrap();
    assert_eq!(server.calls(), 1);
}

#[tokio::test]
async fn a_write_is_not_repeated_when_its_outcome_is_unknown() {
    let unsure = FakeServer::start(refusing(Code::Unavailable, "etcdserver: leader changed")).await;
    let next = FakeServer::start(Mood::Answer).await;
    for first in [unsure.endpoint(), rude().await] {
        let client = Client::new(vec![first, next.endpoint()], PATIENT);
        let error = client.put(put()).await.unwrap_err();
        assert!(matches!(error, ClientError::Lost { .. }) && !error.was_not_done(), "{error}");
        assert_eq!(next.calls(), 0);
    }
    assert_eq!(unsure.calls(), 1);
}

#[tokio::test]
async fn a_read_goes_on_to_the_next_endpoint() {
    let unsure = FakeServer::start(refusing(Code::Unavailable, "etcdserver: leader changed")).await;
    let next = FakeServer::start(Mood::Answer).await;
    let first = [unsure.endpoint(), rude().await, nobody().await];
    for (answered, first) in first.into_iter().enumerate() {
        let client = Client::new(vec![first, next.endpoint()], PATIENT);
        client.range(get()).await.unwrap();
        client.txn(TxnRequest::default()).await.unwrap();
        assert_eq!(next.calls(), 2 * (answered + 1));
    }
}

#[tokio::test]
async fn a_refusal_is_final() {
    let refusing = FakeServer::start(refusing(Code::OutOfRange, "compacted")).await;
    let next = FakeServer::start(Mood::Answer).await;
    let client = Client::new(vec![refusing.endpoint(), next.endpoint()], PATIENT);
    let error = client.range(get()).await.unwrap_err();
    assert_eq!((error.to_string().as_str(), next.calls()), ("compacted", 0));
}

#[tokio::test]
async fn an_answer_that_does_not_come_ends_in_time() {
    let server = FakeServer::start(Mood::Silent).await;
    let hasty = Timeouts { command: Duration::from_millis(50), ..PATIENT };
    let client = Client::new(vec![server.endpoint()], hasty);
    let write = client.put(put()).await.unwrap_err();
    assert!(matches!(write, ClientError::TimedOut { .. }) && !write.was_not_done(), "{write}");
    assert!(write.to_string().contains("within 50ms"), "{write}");
    assert!(client.range(get()).await.unwrap_err().was_not_done());
}

#[tokio::test]
async fn all_endpoints_that_are_not_there_are_named() {
    let (a, b) = (nobody().await, nobody().await);
    let error = Client::new(vec![a.clone(), b.clone()], PATIENT).put(put()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "cannot reach {a}: connection refused; cannot reach {b}: connection refused \
             — is kvd running? start one with 'kvd dev'"
        )
    );
}

#[tokio::test]
async fn a_channel_finds_a_server_that_came_back() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint: Endpoint = listener.local_addr().unwrap().to_string().parse().unwrap();
    let client = Client::new(vec![endpoint], PATIENT);
    let (first, ()) = tokio::join!(client.put(put()), async {
        hang_up_after_request(listener.accept().await.unwrap().0).await;
    });
    assert!(!first.unwrap_err().was_not_done());
    drop(listener);
    // The channel cannot connect anew: nothing was sent, and the client knows.
    let second = client.put(put()).await.unwrap_err();
    assert!(matches!(second, ClientError::Unreachable(_)), "{second:?}");
}

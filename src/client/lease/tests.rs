//! A keeper renews its lease at any member that can, and reports the end of the lease.

use std::time::Duration;

use tokio::time::Instant;
use tonic::{Code, Status};

use super::LeaseEnd;
use crate::{
    client::{
        Client, Timeouts,
        scripted::{Ending, LEASE, Received, ScriptedServer, header, no_leader, script},
    },
    proto::etcdserverpb::{LeaseGrantRequest, LeaseKeepAliveResponse},
};

const LONG: Timeouts = Timeouts { dial: Duration::from_secs(20), command: Duration::from_secs(20) };

fn renewed(ttl: i64) -> LeaseKeepAliveResponse {
    LeaseKeepAliveResponse { header: header(7), id: LEASE, ttl }
}

fn client(servers: &[&ScriptedServer]) -> Client {
    Client::new(servers.iter().map(|server| server.endpoint()).collect(), LONG)
}

#[tokio::test]
async fn a_lease_is_renewed_after_a_third_of_its_ttl() {
    let mut server = ScriptedServer::renews(vec![script(
        [renewed(3), renewed(3), renewed(0)],
        Ending::StayOpen,
    )])
    .await;
    let started = Instant::now();
    let mut keeper = client(&[&server]).lease_keep_alive(LEASE).await.unwrap();
    assert_eq!((keeper.id(), keeper.latest().ttl), (LEASE, 3));
    assert!(keeper.alive_until() <= Instant::now() + Duration::from_secs(3));
    assert_eq!(keeper.renewed().await.unwrap().ttl, 3);
    assert!(started.elapsed() >= Duration::from_millis(990), "{:?}", started.elapsed());
    assert!(matches!(keeper.ended().await, LeaseEnd::Gone { id: LEASE }));
    for _ in 0..3 {
        assert_eq!(server.received.recv().await, Some(Received::KeepAlive(LEASE)));
    }
}

#[tokio::test]
async fn a_lease_is_renewed_by_another_member_when_one_stops() {
    let first = ScriptedServer::renews(vec![script([renewed(1)], no_leader())]).await;
    let mut second = ScriptedServer::renews(vec![script([renewed(5)], Ending::StayOpen)]).await;
    let mut keeper = client(&[&first, &second]).lease_keep_alive(LEASE).await.unwrap();
    assert_eq!(keeper.renewed().await.unwrap().ttl, 5);
    assert_eq!(second.received.recv().await, Some(Received::KeepAlive(LEASE)));
}

#[tokio::test]
async fn a_lease_that_no_member_renews_ends_with_its_ttl() {
    let server = ScriptedServer::renews(vec![script([renewed(1)], no_leader())]).await;
    let started = Instant::now();
    let mut keeper = client(&[&server]).lease_keep_alive(LEASE).await.unwrap();
    let end = keeper.ended().await;
    let LeaseEnd::NotRenewed { id: LEASE, last } = &end else { panic!("{end:?}") };
    assert_eq!(last.to_string(), "etcdserver: no leader");
    let took = started.elapsed();
    assert!(took > Duration::from_millis(500) && took < Duration::from_secs(5), "{took:?}");
    assert!(matches!(keeper.renewed().await, Err(LeaseEnd::NotRenewed { .. })));
}

#[tokio::test]
async fn a_lease_that_is_gone_or_denied_is_an_error() {
    let denied = Ending::Fail(Status::new(Code::PermissionDenied, "etcdserver: permission denied"));
    let server =
        ScriptedServer::renews(vec![script([renewed(0)], Ending::StayOpen), script([], denied)])
            .await;
    let client = client(&[&server]);
    for message in ["etcdserver: requested lease not found", "etcdserver: permission denied"] {
        let error = client.lease_keep_alive_once(LEASE).await.unwrap_err();
        assert_eq!(error.to_string(), message);
    }
}

#[tokio::test]
async fn a_dropped_keeper_renews_no_more() {
    let mut server = ScriptedServer::renews(vec![script([renewed(1)], Ending::StayOpen)]).await;
    drop(client(&[&server]).lease_keep_alive(LEASE).await.unwrap());
    assert_eq!(server.received.recv().await, Some(Received::KeepAlive(LEASE)));
    let more = tokio::time::timeout(Duration::from_millis(500), server.received.recv()).await;
    assert!(more.is_err(), "{more:?}");
}

#[test]
fn fractions_of_a_second_are_rounded_up() {
    for (ttl, seconds) in [(1_000, 1), (1_001, 2), (10, 1)] {
        assert_eq!(LeaseGrantRequest::from(Duration::from_millis(ttl)).ttl, seconds);
    }
}

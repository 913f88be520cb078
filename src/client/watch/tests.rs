//! A watch misses and repeats nothing while streams and members go away.

use std::time::Duration;

use tonic::{Code, Status};

use super::{Watch, WatchError, WatchUpdate, Watcher};
use crate::{
    client::{
        Client, ClientError, Timeouts,
        scripted::{
            Ending, Received, ScriptedServer, compacted, created, events, no_leader, progress,
            script,
        },
    },
    proto::etcdserverpb::watch_request::RequestUnion,
};

const LONG: Timeouts = Timeouts { dial: Duration::from_secs(20), command: Duration::from_secs(20) };

fn client(servers: &[&ScriptedServer]) -> Client {
    Client::new(servers.iter().map(|server| server.endpoint()).collect(), LONG)
}

async fn next(watcher: &mut Watcher) -> Vec<i64> {
    let batch = watcher.next().await.unwrap();
    batch.events.iter().map(|event| event.kv.as_ref().unwrap().mod_revision).collect()
}

#[tokio::test]
async fn a_broken_watch_resumes_at_the_next_member() {
    let mut first =
        ScriptedServer::watches(vec![script([created(9), events(&[10, 11])], no_leader())]).await;
    // A member may first send queued events from before the requested revision.
    let mut second =
        ScriptedServer::watches(vec![script([created(12), events(&[11, 12])], Ending::StayOpen)])
            .await;
    let mut watcher = client(&[&first, &second]).watch("k").await.unwrap();
    assert_eq!(watcher.created().revision, 9);
    assert_eq!(next(&mut watcher).await, [10, 11]);
    let WatchUpdate::Interrupted { error, from: 12 } = watcher.next_update().await.unwrap() else {
        panic!("not interrupted");
    };
    assert_eq!(error.to_string(), "etcdserver: no leader");
    let resumed = watcher.next_update().await.unwrap();
    let at = second.endpoint().to_string();
    assert!(
        matches!(&resumed, WatchUpdate::Resumed { endpoint } if *endpoint == at),
        "{resumed:?}"
    );
    assert_eq!(next(&mut watcher).await, [12]);
    assert_eq!(
        (first.received_start_revision().await, second.received_start_revision().await),
        (0, 12)
    );
}

#[tokio::test]
async fn a_watch_that_breaks_before_its_first_event_misses_none() {
    let mut server = ScriptedServer::watches(vec![
        script([created(9)], no_leader()),
        script([created(15), events(&[10, 15])], Ending::StayOpen),
    ])
    .await;
    let mut watcher = client(&[&server]).watch("k").await.unwrap();
    assert_eq!(next(&mut watcher).await, [10, 15]);
    assert_eq!(
        (server.received_start_revision().await, server.received_start_revision().await),
        (0, 10)
    );
}

#[tokio::test]
async fn a_watch_resumes_from_its_last_progress() {
    let about_all = crate::proto::etcdserverpb::WatchResponse { watch_id: -1, ..progress(40) };
    let mut server = ScriptedServer::watches(vec![
        script([created(9), progress(20), about_all], no_leader()),
        script([created(40), events(&[41])], Ending::StayOpen),
    ])
    .await;
    let watch = Watch::new("k").from_revision(5).with_progress();
    let mut watcher = client(&[&server]).watch(watch).await.unwrap();
    for revision in [20, 40] {
        let update = watcher.next_update().await.unwrap();
        assert!(matches!(update, WatchUpdate::Progress(h) if h.revision == revision), "{update:?}");
    }
    assert_eq!(next(&mut watcher).await, [41]);
    assert_eq!(
        (server.received_start_revision().await, server.received_start_revision().await),
        (5, 21)
    );
}

#[tokio::test]
async fn a_watch_that_starts_in_the_future_does_not_fall_back_to_the_present() {
    let mut server = ScriptedServer::watches(vec![
        script([created(9), progress(10)], no_leader()),
        script([created(11), events(&[100])], Ending::StayOpen),
    ])
    .await;
    let mut watcher = client(&[&server]).watch(Watch::new("k").from_revision(100)).await.unwrap();
    assert_eq!(next(&mut watcher).await, [100]);
    assert_eq!(
        (server.received_start_revision().await, server.received_start_revision().await),
        (100, 100)
    );
}

#[tokio::test]
async fn a_compacted_watch_names_the_lost_and_the_oldest_revision() {
    let compacted_at_once = ScriptedServer::watches(vec![
        script([created(9), compacted(7)], Ending::StayOpen),
        script([compacted(7)], Ending::StayOpen),
    ])
    .await;
    let client = client(&[&compacted_at_once]);
    let mut watcher = client.watch(Watch::new("k").from_revision(3)).await.unwrap();
    let late = watcher.next().await.unwrap_err();
    let again = watcher.next().await.unwrap_err();
    let at_once = client.watch(Watch::new("k").from_revision(3)).await.unwrap_err();
    for error in [late, again, at_once] {
        assert!(
            matches!(error, WatchError::Compacted { from: 3, compact_revision: 7, .. }),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn a_watch_whose_next_revision_is_compacted_while_interrupted_ends() {
    let server = ScriptedServer::watches(vec![
        script([created(9), events(&[10])], no_leader()),
        script([created(50), compacted(30)], Ending::StayOpen),
    ])
    .await;
    let mut watcher = client(&[&server]).watch("k").await.unwrap();
    assert_eq!(next(&mut watcher).await, [10]);
    let error = watcher.next().await.unwrap_err();
    assert!(
        matches!(error, WatchError::Compacted { from: 11, compact_revision: 30, .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_refused_watch_is_not_retried() {
    let denied = Ending::Fail(Status::new(Code::PermissionDenied, "etcdserver: permission denied"));
    let server = ScriptedServer::watches(vec![
        script([], denied.clone()),
        script([created(9)], denied),
        script([], Ending::StayOpen),
    ])
    .await;
    let client = client(&[&server]);
    let refused = client.watch("k").await.unwrap_err();
    let ended = client.watch("k").await.unwrap().next().await.unwrap_err();
    for error in [refused, ended] {
        assert!(matches!(error, WatchError::Client(ClientError::Refused { .. })), "{error:?}");
        assert_eq!(error.to_string(), "etcdserver: permission denied");
    }
}

#[tokio::test]
async fn a_new_watch_fails_at_once_if_no_member_accepts_it() {
    let server = ScriptedServer::watches(vec![]).await;
    let error = client(&[&server]).watch("k").await.unwrap_err();
    assert_eq!(error.to_string(), "etcdserver: no leader");
}

#[tokio::test]
async fn progress_is_requested_on_the_stream_of_the_watch() {
    let mut server = ScriptedServer::watches(vec![script([created(9)], Ending::StayOpen)]).await;
    let watcher = client(&[&server]).watch("k").await.unwrap();
    server.received_start_revision().await;
    watcher.request_progress();
    let received = server.received.recv().await;
    assert!(
        matches!(received, Some(Received::Watch(RequestUnion::ProgressRequest(_)))),
        "{received:?}"
    );
}

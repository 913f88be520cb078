//! A watch misses and repeats nothing while streams and members go away.

use std::time::Duration;

use tonic::{Code, Status};

use super::{Notice, Watch, WatchError, Watcher};
use crate::{
    client::{
        Client, ClientError, Timeouts,
        scripted::{
            Asked, ScriptedServer, Then, compacted, created, events, no_leader, progress, says,
        },
    },
    proto::etcdserverpb::watch_request::RequestUnion,
};

const PATIENT: Timeouts =
    Timeouts { dial: Duration::from_secs(20), command: Duration::from_secs(20) };

fn client(servers: &[&ScriptedServer]) -> Client {
    Client::new(servers.iter().map(|server| server.endpoint()).collect(), PATIENT)
}

async fn next(watcher: &mut Watcher) -> Vec<i64> {
    let batch = watcher.next().await.unwrap();
    batch.events.iter().map(|event| event.kv.as_ref().unwrap().mod_revision).collect()
}

#[tokio::test]
async fn a_broken_watch_goes_on_at_the_next_member_where_it_was() {
    let mut first =
        ScriptedServer::watches(vec![says([created(9), events(&[10, 11])], no_leader())]).await;
    // As a member does that has events waiting: from before what was asked for.
    let mut second =
        ScriptedServer::watches(vec![says([created(12), events(&[11, 12])], Then::Wait)]).await;
    let mut watcher = client(&[&first, &second]).watch("k").await.unwrap();
    assert_eq!(watcher.created().revision, 9);
    assert_eq!(next(&mut watcher).await, [10, 11]);
    let Notice::Interrupted { error, from: 12 } = watcher.notice().await.unwrap() else {
        panic!("not interrupted");
    };
    assert_eq!(error.to_string(), "etcdserver: no leader");
    let resumed = watcher.notice().await.unwrap();
    let at = second.endpoint().to_string();
    assert!(matches!(&resumed, Notice::Resumed { endpoint } if *endpoint == at), "{resumed:?}");
    assert_eq!(next(&mut watcher).await, [12]);
    assert_eq!((first.asked_from().await, second.asked_from().await), (0, 12));
}

#[tokio::test]
async fn a_watch_that_breaks_before_its_first_event_misses_none() {
    let mut server = ScriptedServer::watches(vec![
        says([created(9)], no_leader()),
        says([created(15), events(&[10, 15])], Then::Wait),
    ])
    .await;
    let mut watcher = client(&[&server]).watch("k").await.unwrap();
    assert_eq!(next(&mut watcher).await, [10, 15]);
    assert_eq!((server.asked_from().await, server.asked_from().await), (0, 10));
}

#[tokio::test]
async fn a_watch_resumes_from_the_progress_it_was_told() {
    let about_all = crate::proto::etcdserverpb::WatchResponse { watch_id: -1, ..progress(40) };
    let mut server = ScriptedServer::watches(vec![
        says([created(9), progress(20), about_all], no_leader()),
        says([created(40), events(&[41])], Then::Wait),
    ])
    .await;
    let watch = Watch::new("k").from_revision(5).with_progress();
    let mut watcher = client(&[&server]).watch(watch).await.unwrap();
    for revision in [20, 40] {
        let notice = watcher.notice().await.unwrap();
        assert!(matches!(notice, Notice::Progress(h) if h.revision == revision), "{notice:?}");
    }
    assert_eq!(next(&mut watcher).await, [41]);
    assert_eq!((server.asked_from().await, server.asked_from().await), (5, 21));
}

#[tokio::test]
async fn a_watch_that_starts_in_the_future_does_not_fall_back_to_the_present() {
    let mut server = ScriptedServer::watches(vec![
        says([created(9), progress(10)], no_leader()),
        says([created(11), events(&[100])], Then::Wait),
    ])
    .await;
    let mut watcher = client(&[&server]).watch(Watch::new("k").from_revision(100)).await.unwrap();
    assert_eq!(next(&mut watcher).await, [100]);
    assert_eq!((server.asked_from().await, server.asked_from().await), (100, 100));
}

#[tokio::test]
async fn a_compacted_watch_names_what_is_lost_and_what_is_left() {
    let compacted_at_once = ScriptedServer::watches(vec![
        says([created(9), compacted(7)], Then::Wait),
        says([compacted(7)], Then::Wait),
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
async fn a_watch_whose_place_is_compacted_while_it_is_away_ends() {
    let server = ScriptedServer::watches(vec![
        says([created(9), events(&[10])], no_leader()),
        says([created(50), compacted(30)], Then::Wait),
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
async fn a_refused_watch_is_not_asked_for_again() {
    let denied = Then::Fail(Status::new(Code::PermissionDenied, "etcdserver: permission denied"));
    let server = ScriptedServer::watches(vec![
        says([], denied.clone()),
        says([created(9)], denied),
        says([], Then::Wait),
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
async fn a_new_watch_says_at_once_that_no_member_takes_it() {
    let server = ScriptedServer::watches(vec![]).await;
    let error = client(&[&server]).watch("k").await.unwrap_err();
    assert_eq!(error.to_string(), "etcdserver: no leader");
}

#[tokio::test]
async fn progress_is_asked_for_on_the_stream_of_the_watch() {
    let mut server = ScriptedServer::watches(vec![says([created(9)], Then::Wait)]).await;
    let watcher = client(&[&server]).watch("k").await.unwrap();
    server.asked_from().await;
    watcher.request_progress();
    let asked = server.asked.recv().await;
    assert!(matches!(asked, Some(Asked::Watch(RequestUnion::ProgressRequest(_)))), "{asked:?}");
}

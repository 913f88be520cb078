//! Events are counted, bounded, and delivered once Kubernetes is reachable.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    super::{
        events::QUEUE_MAX,
        recent_events::{RECENT_MAX, REPEAT_AFTER, RecentEvents, Repeats},
    },
    EVENTS,
    api::Mode,
    manifests, member,
};
use crate::membership::{ClusterEvent, Orchestrator as _};

fn waits_for(peer: &str) -> ClusterEvent {
    let message = format!("waits for {peer}");
    ClusterEvent { reason: "Waiting", message, warning: true, of_set: false }
}

#[test]
fn an_identical_event_is_suppressed_for_a_minute_and_counted() {
    let (mut recent, start) = (RecentEvents::default(), Instant::now());
    let mut admit = |peer: &str, second: u64| {
        let now = start + Duration::from_secs(second);
        recent.admit(&waits_for(peer), now, Duration::from_secs(1000 + second))
    };
    let repeats = |count, first| Some(Repeats { count, first });
    assert_eq!(admit("kv-1", 0), repeats(0, None));
    assert_eq!(admit("kv-1", 5), None);
    assert_eq!(admit("kv-2", 6), repeats(0, None));
    assert_eq!(admit("kv-1", 59), None);
    assert_eq!(REPEAT_AFTER, Duration::from_secs(60));
    assert_eq!(admit("kv-1", 60), repeats(2, Some(Duration::from_secs(1005))));
    assert_eq!(admit("kv-1", 61), None);
    // The memory is bounded: after many distinct events, an old one may repeat.
    for other in 0..RECENT_MAX {
        assert_eq!(admit(&format!("other {other}"), 62), repeats(0, None));
    }
    assert_eq!(admit("kv-1", 63), repeats(0, None));
}

#[tokio::test]
async fn an_event_names_its_object_reason_and_source() {
    let api = manifests().await;
    let kv0 = member(&api, "kv-0");
    kv0.intent().await.unwrap();
    kv0.emit(waits_for("kv-1"));
    kv0.emit(waits_for("kv-1"));
    let message = "ö".repeat(600);
    kv0.emit(ClusterEvent { reason: "Formed", message, warning: false, of_set: true });
    kv0.close().await;
    kv0.emit(waits_for("none: it is closed"));

    let events = api.list(EVENTS);
    let [of_pod, of_set] = events.as_slice() else { panic!("{events:#?}") };
    let field = |event: &serde_json::Value, path| event.pointer(path).cloned().unwrap();
    assert_eq!(field(of_pod, "/involvedObject/kind"), "Pod");
    assert_eq!(field(of_pod, "/involvedObject/uid"), "uid-of-kv-0");
    assert_eq!(field(of_pod, "/type"), "Warning");
    assert_eq!(field(of_pod, "/message"), "waits for kv-1");
    assert_eq!(field(of_pod, "/count"), 1);
    assert_eq!(field(of_pod, "/lastTimestamp"), "2023-11-14T22:13:20Z");
    assert_eq!(field(of_set, "/involvedObject/kind"), "StatefulSet");
    assert_eq!(field(of_set, "/involvedObject/uid"), "5e7");
    assert_eq!(field(of_set, "/type"), "Normal");
    assert_eq!(field(of_set, "/message").as_str().unwrap().len(), 1024);
    assert_eq!(field(of_set, "/source/component"), "kvd");
    let metrics = kv0.metrics();
    let counts = [&metrics.events_sent, &metrics.events_repeated, &metrics.events_dropped];
    assert_eq!(counts.map(|counter| counter.get()), [2, 1, 1]);
}

#[tokio::test]
async fn events_wait_for_kubernetes_in_a_bounded_queue() {
    let api = manifests().await;
    let kv0 = member(&api, "kv-0");
    api.go_away().await;
    for n in 0..2 * QUEUE_MAX {
        kv0.emit(waits_for(&n.to_string()));
    }
    api.come_back().await;
    // The task may have taken one from the queue before it was full.
    api.until("the queue is delivered", |api| api.list(EVENTS).len() >= QUEUE_MAX).await;
    kv0.close().await;
    let sent = api.list(EVENTS).len();
    assert!((QUEUE_MAX..=QUEUE_MAX + 1).contains(&sent), "{sent}");
    assert_eq!(kv0.metrics().events_dropped.get(), (2 * QUEUE_MAX - sent) as u64);
}

#[tokio::test]
async fn an_event_that_is_refused_does_not_hold_up_the_next() {
    let api = manifests().await;
    let kv0 = member(&api, "kv-0");
    api.set_mode(Mode::Refuses(403, "Forbidden"));
    kv0.emit(waits_for("kv-1"));
    api.until("refused twice", |api| api.requests().len() == 2).await;
    api.set_mode(Mode::Serves);
    kv0.emit(waits_for("kv-2"));
    kv0.close().await;
    assert_eq!(api.list(EVENTS).len(), 1);
    assert_eq!(kv0.metrics().events_dropped.get(), 1);
}

#[tokio::test]
async fn closing_ends_in_time_when_kubernetes_hangs() {
    let api = manifests().await;
    let kv0 = member(&api, "kv-0");
    api.set_mode(Mode::Hangs);
    for n in 0..QUEUE_MAX {
        kv0.emit(waits_for(&n.to_string()));
    }
    let began = Instant::now();
    kv0.close().await;
    assert!(began.elapsed() < Duration::from_secs(3));
}

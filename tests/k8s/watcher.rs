//! A watch of all keys that moves from pod to pod, and must neither miss nor repeat a revision.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use ordinal::{
    client::{Endpoint, Keys, Watch, WatchUpdate, Watcher},
    proto::mvccpb::KeyValue,
};
use tokio::{
    select,
    sync::watch,
    task::JoinHandle,
    time::{Duration, sleep, timeout},
};

use crate::k8s::{kubectl::CHANGE_TIMEOUT, store::client_of, workload::PREFIX};

/// The revision of the first write.
pub const FIRST_REVISION: i64 = 2;

#[derive(Debug)]
pub struct Watching {
    end: Arc<AtomicI64>,
    task: JoinHandle<Vec<KeyValue>>,
}

impl Watching {
    pub async fn start(endpoints: watch::Receiver<Vec<Endpoint>>) -> Watching {
        let end = Arc::new(AtomicI64::new(i64::MAX));
        Watching { task: tokio::spawn(follow(endpoints, end.clone())), end }
    }

    pub fn has_ended(&self) -> bool {
        self.task.is_finished()
    }

    /// All events up to this revision.
    pub async fn until(&mut self, revision: i64) -> Vec<KeyValue> {
        self.end.store(revision, Ordering::Relaxed);
        let events = timeout(CHANGE_TIMEOUT, &mut self.task).await;
        let events =
            events.unwrap_or_else(|_| panic!("the watch does not reach revision {revision}"));
        events.expect("the watch failed an assertion")
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn follow(
    mut endpoints: watch::Receiver<Vec<Endpoint>>,
    end: Arc<AtomicI64>,
) -> Vec<KeyValue> {
    let (mut events, mut next) = (Vec::new(), FIRST_REVISION);
    while next <= end.load(Ordering::Relaxed) {
        let ready = endpoints.borrow_and_update().clone();
        let watch = Watch::new(Keys::prefix(PREFIX)).from_revision(next);
        if let Ok(mut watcher) = client_of(&ready).watch(watch).await {
            collect(&mut watcher, &mut endpoints, &end, &mut events).await;
            next = events.last().map_or(FIRST_REVISION, |kv: &KeyValue| kv.mod_revision + 1);
        } else {
            sleep(Duration::from_millis(50)).await;
        }
    }
    events
}

/// Collects events until the stream breaks, the pods change, or the end is reached.
async fn collect(
    watcher: &mut Watcher,
    endpoints: &mut watch::Receiver<Vec<Endpoint>>,
    end: &AtomicI64,
    events: &mut Vec<KeyValue>,
) {
    let mut interrupted = false;
    loop {
        let next = events.last().map_or(FIRST_REVISION, |kv| kv.mod_revision + 1);
        if next > end.load(Ordering::Relaxed) {
            return;
        }
        let update = select! {
            update = watcher.next_update() => update,
            // Its pod may be gone; otherwise the watch resumes by itself.
            _ = endpoints.changed(), if interrupted => return,
            () = sleep(Duration::from_secs(1)) => continue,
        };
        match update {
            Ok(WatchUpdate::Events(batch)) => {
                for event in batch.events {
                    let kv = event.kv.expect("an event is of a key");
                    let next = events.last().map_or(FIRST_REVISION, |kv| kv.mod_revision + 1);
                    assert_eq!(kv.mod_revision, next, "the watch misses or repeats a revision");
                    events.push(kv);
                }
            }
            Ok(WatchUpdate::Interrupted { .. }) => interrupted = true,
            Ok(WatchUpdate::Resumed { .. }) => interrupted = false,
            Ok(WatchUpdate::Progress(_)) => {}
            Err(error) => {
                assert!(!error.to_string().contains("compacted"), "unexpected compaction: {error}");
                return;
            }
        }
    }
}

//! A watch of everything, which goes from pod to pod, and must neither miss nor repeat anything.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use ordinal::{
    client::{Endpoint, Keys, Notice, Watch, Watcher},
    proto::mvccpb::KeyValue,
};
use tokio::{
    select,
    sync::watch,
    task::JoinHandle,
    time::{Duration, sleep, timeout},
};

use crate::{kubectl::PATIENCE, store::client_of, workload::PREFIX};

/// The first revision that a write can have.
pub(crate) const FIRST: i64 = 2;

#[derive(Debug)]
pub(crate) struct Watching {
    end: Arc<AtomicI64>,
    task: JoinHandle<Vec<KeyValue>>,
}

impl Watching {
    pub(crate) async fn start(endpoints: watch::Receiver<Vec<Endpoint>>) -> Watching {
        let end = Arc::new(AtomicI64::new(i64::MAX));
        Watching { task: tokio::spawn(follow(endpoints, end.clone())), end }
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.task.is_finished()
    }

    /// All that it told up to this revision.
    pub(crate) async fn until(&mut self, revision: i64) -> Vec<KeyValue> {
        self.end.store(revision, Ordering::Relaxed);
        let told = timeout(PATIENCE, &mut self.task).await;
        let told = told.unwrap_or_else(|_| panic!("the watch does not tell revision {revision}"));
        told.expect("what the watch told cannot be")
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
    let (mut told, mut next) = (Vec::new(), FIRST);
    while next <= end.load(Ordering::Relaxed) {
        let ready = endpoints.borrow_and_update().clone();
        let watch = Watch::new(Keys::prefix(PREFIX)).from_revision(next);
        if let Ok(mut watcher) = client_of(&ready).watch(watch).await {
            pass(&mut watcher, &mut endpoints, &end, &mut told).await;
            next = told.last().map_or(FIRST, |kv: &KeyValue| kv.mod_revision + 1);
        } else {
            sleep(Duration::from_millis(50)).await;
        }
    }
    told
}

/// Takes what comes until the stream breaks, the pods change, or the end is reached.
async fn pass(
    watcher: &mut Watcher,
    endpoints: &mut watch::Receiver<Vec<Endpoint>>,
    end: &AtomicI64,
    told: &mut Vec<KeyValue>,
) {
    let mut interrupted = false;
    loop {
        let next = told.last().map_or(FIRST, |kv| kv.mod_revision + 1);
        if next > end.load(Ordering::Relaxed) {
            return;
        }
        let notice = select! {
            notice = watcher.notice() => notice,
            // Its pod may be among those that are gone; if not, it goes on by itself.
            _ = endpoints.changed(), if interrupted => return,
            () = sleep(Duration::from_secs(1)) => continue,
        };
        match notice {
            Ok(Notice::Events(batch)) => {
                for event in batch.events {
                    let kv = event.kv.expect("an event is of a key");
                    let next = told.last().map_or(FIRST, |kv| kv.mod_revision + 1);
                    assert_eq!(kv.mod_revision, next, "the watch misses or repeats a revision");
                    told.push(kv);
                }
            }
            Ok(Notice::Interrupted { .. }) => interrupted = true,
            Ok(Notice::Resumed { .. }) => interrupted = false,
            Ok(Notice::Progress(_)) => {}
            Err(error) => {
                assert!(!error.to_string().contains("compacted"), "nobody compacts: {error}");
                return;
            }
        }
    }
}

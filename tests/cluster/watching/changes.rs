//! Clients that change a few keys by every kind of request, and record the acknowledged changes.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use ordinal::{
    client::{Client, ClientError},
    proto::etcdserverpb::{
        DeleteRangeRequest, PutRequest, RequestOp, TxnRequest, request_op::Request,
    },
};
use tokio::{
    task::JoinHandle,
    time::{Duration, Instant, sleep},
};

use super::TIMEOUTS;
use crate::{
    cluster::harness::Cluster,
    support::{WAIT_TIMEOUT, retry::promise, rng::Rng},
};

/// So few that each key changes often.
const KEYS: usize = 12;
const RETRY_DELAY: Duration = Duration::from_millis(20);

/// Acknowledged changes by revision: each key and its new value (`None`: deleted).
pub type Written = BTreeMap<i64, BTreeMap<Bytes, Option<Bytes>>>;

pub struct Changes {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
    written: Arc<Mutex<Written>>,
}

impl Changes {
    pub fn start(cluster: &Cluster, clients: usize, rng: &mut Rng) -> Changes {
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let start = |name: usize| {
            let client = cluster.client(name % cluster.members.len(), TIMEOUTS);
            let changer = ChangeClient { client, rng: rng.split(), written: Arc::clone(&written) };
            tokio::spawn(changer.run(stop.clone()))
        };
        let clients = (0..clients).map(start).collect();
        Changes { stop, clients, written }
    }

    /// Waits for this many more acknowledged changes.
    pub async fn progress(&self, changes: usize) {
        let count = || self.written.lock().unwrap().len();
        let (target, deadline) = (count() + changes, Instant::now() + WAIT_TIMEOUT);
        while count() < target {
            assert!(Instant::now() < deadline, "nothing is acknowledged any more");
            sleep(RETRY_DELAY).await;
        }
    }

    pub async fn stop(self) -> Written {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.await.unwrap();
        }
        std::mem::take(&mut self.written.lock().unwrap())
    }
}

struct ChangeClient {
    client: Client,
    rng: Rng,
    written: Arc<Mutex<Written>>,
}

impl ChangeClient {
    async fn run(mut self, stop: Arc<AtomicBool>) {
        while !stop.load(Ordering::Relaxed) {
            if self.change().await.is_err() {
                sleep(RETRY_DELAY).await;
            }
        }
    }

    async fn change(&mut self) -> Result<(), ClientError> {
        match self.rng.below(10) {
            0..=4 => {
                let (key, value) = (self.key(), value());
                let answer = self.client.put(put_request(&key, &value)).await?;
                self.note(answer.header.unwrap().revision, [(key, Some(value))]);
            }
            // The deleted keys are unknown, and there may be none: not recorded.
            5 | 6 => {
                let request = delete_request(self.key(), "");
                self.client.delete_range(request).await?;
            }
            7 => {
                self.client.delete_range(delete_request("w/1".into(), "w/2")).await?;
            }
            _ => {
                // Different keys, as a transaction requires. The deleted key may not have existed.
                let first = self.rng.below(KEYS);
                let keys = [0, 1, 2].map(|i| key((first + i) % KEYS));
                let values = [value(), value()];
                let put = |i: usize| Request::RequestPut(put_request(&keys[i], &values[i]));
                let delete = Request::RequestDeleteRange(delete_request(keys[2].clone(), ""));
                let op = |request| RequestOp { request: Some(request) };
                let success = [put(0), delete, put(1)].map(op).to_vec();
                let answer = self.client.txn(TxnRequest { success, ..Default::default() }).await?;
                let [first, second, _] = keys;
                let [one, other] = values;
                let puts = [(first, Some(one)), (second, Some(other))];
                self.note(answer.header.unwrap().revision, puts);
            }
        }
        Ok(())
    }

    fn key(&mut self) -> Bytes {
        key(self.rng.below(KEYS))
    }

    fn note<const N: usize>(&self, revision: i64, changed: [(Bytes, Option<Bytes>); N]) {
        let before = self.written.lock().unwrap().insert(revision, changed.into());
        promise(|| assert_eq!(before, None, "two changes acknowledged at revision {revision}"));
    }
}

fn key(number: usize) -> Bytes {
    format!("w/{number}").into()
}

/// A unique value, sometimes large, so that a history has more than one page.
fn value() -> Bytes {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let width = if number.is_multiple_of(16) { 8000 } else { 100 };
    format!("{number:-<width$}").into()
}

fn put_request(key: &Bytes, value: &Bytes) -> PutRequest {
    PutRequest { key: key.clone(), value: value.clone(), ..Default::default() }
}

fn delete_request(key: Bytes, end: &'static str) -> DeleteRangeRequest {
    DeleteRangeRequest { key, range_end: end.into(), prev_kv: false }
}

/// Puts a key while all members are up, and returns the revision.
pub async fn put(client: &Client, key: &'static str, value: &'static str) -> i64 {
    let answer = client.put(put_request(&key.into(), &value.into())).await.unwrap();
    answer.header.unwrap().revision
}

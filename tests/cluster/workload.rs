//! Clients that write and read until they are stopped, while members come and go.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use ordinal::client::{Client, ClientError, Get, Timeouts};
use tokio::{
    task::JoinHandle,
    time::{Duration, Instant, sleep},
};

use crate::{
    cluster::harness::Cluster,
    support::{
        WAIT_TIMEOUT,
        oracle::{Oracle, Outcome},
        rng::Rng,
        workload::{self, assert_linearizable},
    },
};

/// Long enough for an election, so that few outcomes are unknown merely because the client gave up.
const TIMEOUTS: Timeouts =
    Timeouts { dial: Duration::from_millis(500), command: Duration::from_secs(6) };
/// Pause after an error: without it, an immediate failure would repeat a thousand times a second.
const RETRY_DELAY: Duration = Duration::from_millis(20);
/// Keys shared by all clients, and keys of each client.
const SHARED_KEYS: usize = 8;
const OWN_KEYS: usize = 4;
/// Size to which a value is padded.
const VALUE_BYTES: usize = 200;

/// Running clients.
#[derive(Debug)]
pub struct Workload {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
    pub oracle: Oracle,
}

impl Workload {
    pub fn start(cluster: &Cluster, clients: usize, rng: &mut Rng) -> Workload {
        let oracle = Oracle::default();
        let stop = Arc::new(AtomicBool::new(false));
        let start = |name: usize| {
            let of_all = (0..cluster.members.len()).map(|i| cluster.client(i, TIMEOUTS)).collect();
            let of_one = cluster.members.iter().map(|member| member.client()).collect();
            let (oracle, rng) = (oracle.clone(), rng.split());
            let writer = Writer { name, of_all, of_one, oracle, rng };
            tokio::spawn(writer.run(stop.clone()))
        };
        let clients = (0..clients).map(start).collect();
        Workload { stop, clients, oracle }
    }

    /// Waits for this many more acknowledged writes.
    pub async fn progress(&self, writes: usize) {
        let target = self.oracle.tally().acknowledged + writes;
        self.until(|| self.oracle.tally().acknowledged >= target).await;
    }

    /// Keeps the load running until the condition holds.
    pub async fn until(&self, happened: impl Fn() -> bool) {
        let deadline = Instant::now() + WAIT_TIMEOUT;
        while !happened() {
            assert!(Instant::now() < deadline, "the condition does not hold in time");
            assert!(self.clients.iter().all(|c| !c.is_finished()), "a client failed an assertion");
            sleep(RETRY_DELAY).await;
        }
    }

    /// Stops the clients after their requests in flight.
    pub async fn stop(self) -> Oracle {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.await.expect("a client failed an assertion");
        }
        self.oracle
    }
}

/// Attempts one put, and records its outcome.
pub async fn put(client: &Client, oracle: &Oracle, key: String) -> Outcome {
    workload::put(client, oracle, key, VALUE_BYTES).await
}

struct Writer {
    name: usize,
    /// Each starts with another member.
    of_all: Vec<Client>,
    of_one: Vec<Client>,
    oracle: Oracle,
    rng: Rng,
}

impl Writer {
    async fn run(mut self, stop: Arc<AtomicBool>) {
        while !stop.load(Ordering::Relaxed) {
            let key = self.key();
            let client = self.rng.below(self.of_all.len());
            let outcome = put(&self.of_all[client], &self.oracle, key.clone()).await;
            if !matches!(outcome, Outcome::Acknowledged(_)) {
                sleep(RETRY_DELAY).await;
            }
            if self.rng.below(4) == 0 {
                self.read(&key).await;
            }
        }
    }

    fn key(&mut self) -> String {
        let key = self.rng.below(SHARED_KEYS + OWN_KEYS);
        if key < SHARED_KEYS { format!("shared/{key}") } else { format!("own/{}/{key}", self.name) }
    }

    /// A linearizable read from one member sees every write acknowledged before it began.
    async fn read(&mut self, key: &str) {
        let floor = self.oracle.floor(key);
        let member = self.rng.below(self.of_one.len());
        match self.of_one[member].range(Get::new(key)).await {
            Ok(answer) => assert_linearizable(key, &answer, floor),
            Err(ClientError::Refused { code: tonic::Code::DataLoss, message }) => {
                panic!("member {member} has lost data: {message}")
            }
            Err(_) => sleep(RETRY_DELAY).await,
        }
    }
}

//! Clients that write and read for as long as they are let, whatever happens to the members.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use ordinal::{
    client::{Client, ClientError, Timeouts},
    proto::etcdserverpb::{PutRequest, RangeRequest},
};
use tokio::{
    task::JoinHandle,
    time::{Duration, Instant, sleep},
};

use crate::{
    cluster::Cluster,
    dice::Dice,
    oracle::{Attempt, Oracle, Outcome},
    process::PATIENCE,
};

/// Long enough for an election, so that few outcomes are unknown only for impatience.
const TIMEOUTS: Timeouts =
    Timeouts { dial: Duration::from_millis(500), command: Duration::from_secs(6) };
/// After an error: who failed at once would fail a thousand times a second.
const PAUSE: Duration = Duration::from_millis(20);
/// Keys all clients write to, and keys each has for itself.
const SHARED_KEYS: usize = 8;
const OWN_KEYS: usize = 4;
/// What a value is filled up to.
const VALUE_BYTES: usize = 200;

/// Running clients.
#[derive(Debug)]
pub(crate) struct Workload {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
    pub(crate) oracle: Oracle,
}

impl Workload {
    pub(crate) fn start(cluster: &Cluster, clients: usize, dice: &mut Dice) -> Workload {
        let oracle = Oracle::default();
        let stop = Arc::new(AtomicBool::new(false));
        let start = |name: usize| {
            let of_all = (0..cluster.members.len()).map(|i| cluster.client(i, TIMEOUTS)).collect();
            let of_one = cluster.members.iter().map(|member| member.client()).collect();
            let (oracle, dice) = (oracle.clone(), dice.split());
            let writer = Writer { name, of_all, of_one, oracle, dice };
            tokio::spawn(writer.run(stop.clone()))
        };
        let clients = (0..clients).map(start).collect();
        Workload { stop, clients, oracle }
    }

    /// Waits for so many more acknowledged writes.
    pub(crate) async fn progress(&self, writes: usize) {
        let target = self.oracle.tally().acknowledged + writes;
        self.until(|| self.oracle.tally().acknowledged >= target).await;
    }

    /// Goes on until this has happened.
    pub(crate) async fn until(&self, happened: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !happened() {
            assert!(Instant::now() < deadline, "what the load was to bring does not come");
            assert!(self.clients.iter().all(|c| !c.is_finished()), "a client saw what cannot be");
            sleep(PAUSE).await;
        }
    }

    /// Lets what is under way end.
    pub(crate) async fn stop(self) -> Oracle {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.await.expect("what a client saw cannot be");
        }
        self.oracle
    }
}

/// Tries one put of a value unlike any other, and notes what became of it.
pub(crate) async fn put(client: &Client, oracle: &Oracle, key: String) -> Outcome {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let value = format!("{:-<VALUE_BYTES$}", NEXT.fetch_add(1, Ordering::Relaxed));
    let began = Instant::now();
    let (request_key, request_value) = (key.clone().into(), value.clone().into());
    let request = PutRequest { key: request_key, value: request_value, ..Default::default() };
    let outcome = match client.put(request).await {
        Ok(done) => Outcome::Acknowledged(done.header.unwrap().revision),
        Err(error) if error.was_not_done() => Outcome::Refused,
        Err(_) => Outcome::Unknown,
    };
    oracle.note(Attempt { key, value, began, ended: Instant::now(), outcome });
    outcome
}

struct Writer {
    name: usize,
    /// Each begins with another member.
    of_all: Vec<Client>,
    of_one: Vec<Client>,
    oracle: Oracle,
    dice: Dice,
}

impl Writer {
    async fn run(mut self, stop: Arc<AtomicBool>) {
        while !stop.load(Ordering::Relaxed) {
            let key = self.key();
            let client = self.dice.below(self.of_all.len());
            let outcome = put(&self.of_all[client], &self.oracle, key.clone()).await;
            if !matches!(outcome, Outcome::Acknowledged(_)) {
                sleep(PAUSE).await;
            }
            if self.dice.below(4) == 0 {
                self.read(&key).await;
            }
        }
    }

    fn key(&mut self) -> String {
        let key = self.dice.below(SHARED_KEYS + OWN_KEYS);
        if key < SHARED_KEYS { format!("shared/{key}") } else { format!("own/{}/{key}", self.name) }
    }

    /// A linearizable read from one member sees all that was acknowledged before it began.
    async fn read(&mut self, key: &str) {
        let floor = self.oracle.floor(key);
        let member = self.dice.below(self.of_one.len());
        let request = RangeRequest { key: key.to_owned().into(), ..Default::default() };
        match self.of_one[member].range(request).await {
            Ok(answer) => {
                let revision = answer.header.unwrap().revision;
                let of_key = answer.kvs.first().map_or(0, |kv| kv.mod_revision);
                assert!(
                    revision >= floor.revision && of_key >= floor.of_key,
                    "member {member} answers a linearizable read of {key} at revision {revision}, \
                     key at {of_key}; acknowledged before it began: {floor:?}"
                );
            }
            Err(ClientError::Refused { code: tonic::Code::DataLoss, message }) => {
                panic!("member {member} has lost data: {message}")
            }
            Err(_) => sleep(PAUSE).await,
        }
    }
}

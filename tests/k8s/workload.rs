//! Clients of a store in Kubernetes: they write, read and watch, whatever happens to its pods, and
//! everything they are told is checked.
//!
//! Each client knows the ready pods, as a client that resolves a headless Service does, and begins
//! with another one; one writer goes through the Service's own address.

use std::{
    collections::BTreeMap,
    fmt, mem,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use ordinal::{
    client::{Client, Endpoint, Get, Put},
    clock::{Clock as _, SystemClock},
    proto::mvccpb::KeyValue,
};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Duration, Instant, sleep, timeout},
};

use crate::{
    follow::{Followed, Objects},
    kubectl::PATIENCE,
    oracle::{Attempt, Oracle, Outcome},
    store::{Store, client_of},
    watcher::Watching,
};

/// Through the pods; one more through the Service.
const WRITERS: usize = 4;
const READERS: usize = 2;
const CLIENTS: usize = WRITERS + READERS + 1;
/// How often a client looks up who is ready: names may be remembered for longer.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// So many answered reads show that reads go on.
const READS: usize = 10;
const KEYS: u64 = 16;
pub(crate) const PREFIX: &str = "w/";
/// Between two requests of a client: of all together, gaps are exact to a few milliseconds, and twenty
/// members on two processors have some left.
const PACE: Duration = Duration::from_millis(10);
const PAUSE: Duration = Duration::from_millis(20);
const VALUE_BYTES: usize = 100;

/// Running clients.
#[derive(Debug)]
pub(crate) struct Workload {
    stop: watch::Sender<bool>,
    clients: Vec<JoinHandle<()>>,
    watching: Watching,
    pub(crate) oracle: Oracle,
    writes: Arc<Successes>,
    reads: Arc<Successes>,
    _endpoints: Followed<Vec<Endpoint>>,
}

/// Where clients of the store go: those that a Service names as ready.
fn ready(slices: &Objects) -> Vec<Endpoint> {
    let endpoints = slices.values().filter_map(|slice| slice["endpoints"].as_array()).flatten();
    let ready = endpoints.filter(|endpoint| endpoint["conditions"]["ready"] == true);
    ready.filter_map(|ready| ready["addresses"][0].as_str()).map(crate::store::endpoint).collect()
}

/// What a workload saw.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) attempts: Vec<Attempt>,
    pub(crate) watched: Vec<KeyValue>,
    pub(crate) write_gap: Gap,
    pub(crate) read_gap: Gap,
    pub(crate) acknowledged: usize,
}

/// The longest time without a success, and when it ended: logs tell what happened then.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gap {
    pub(crate) lasted: Duration,
    /// Since 1970.
    ended: Duration,
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, millis) = (self.ended.as_secs() % 86_400, self.ended.subsec_millis());
        let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        let lasted = self.lasted;
        write!(f, "{lasted:.2?} until {hours:02}:{minutes:02}:{seconds:02}.{millis:03}Z")
    }
}

/// Successes of all clients together, and how many each has had.
#[derive(Debug)]
struct Successes(Mutex<Counted>);

#[derive(Debug)]
struct Counted {
    of_client: BTreeMap<usize, usize>,
    last: Instant,
    longest: Gap,
}

impl Successes {
    fn begin() -> Successes {
        let longest = Gap { lasted: Duration::ZERO, ended: SystemClock.now() };
        let of_client = BTreeMap::new();
        Successes(Mutex::new(Counted { of_client, last: Instant::now(), longest }))
    }

    fn note(&self, client: usize) {
        let counted = &mut *self.0.lock().unwrap();
        *counted.of_client.entry(client).or_default() += 1;
        counted.end_gap();
    }

    fn of_client(&self) -> BTreeMap<usize, usize> {
        self.0.lock().unwrap().of_client.clone()
    }

    /// Of those that ended, and the one that lasts until now.
    fn longest_gap(&self) -> Gap {
        let counted = &mut *self.0.lock().unwrap();
        counted.end_gap();
        counted.longest
    }
}

impl Counted {
    fn end_gap(&mut self) {
        let now = Instant::now();
        let lasted = now - mem::replace(&mut self.last, now);
        if lasted > self.longest.lasted {
            self.longest = Gap { lasted, ended: SystemClock.now() };
        }
    }
}

impl Workload {
    /// Starts once somebody is ready.
    pub(crate) async fn start(store: &Store) -> Workload {
        let slices = &["endpointslices", "--selector=kubernetes.io/service-name=kv-client"];
        let endpoints = Followed::begin(store.kubectl.clone(), slices, ready);
        let mut ready = endpoints.subscribe();
        let anybody = ready.wait_for(|ready| !ready.is_empty());
        timeout(PATIENCE, anybody)
            .await
            .expect("kubectl tells who is ready")
            .expect("its sender lives");
        let service = store.kubectl.get(&["service", "kv-client"]).await;
        let service = service["spec"]["clusterIP"].as_str().expect("it has an address").to_owned();
        let (_, service) = watch::channel(vec![crate::store::endpoint(&service)]);

        let oracle = Oracle::default();
        let (writes, reads) = (Arc::new(Successes::begin()), Arc::new(Successes::begin()));
        let (stop, stopped) = watch::channel(false);
        let mut clients = Vec::new();
        for number in 0..CLIENTS {
            let endpoints = if number == 0 { service.clone() } else { ready.clone() };
            let look_at = Instant::now() + LOOK_EVERY / CLIENTS as u32 * number as u32;
            let peer = Peer { endpoints, number, client: None, look_at };
            let (oracle, stopped) = (oracle.clone(), stopped.clone());
            clients.push(if number <= WRITERS {
                tokio::spawn(write(peer, oracle, writes.clone(), stopped))
            } else {
                tokio::spawn(read(peer, oracle, reads.clone(), stopped))
            });
        }
        let watching = Watching::start(ready).await;
        let load =
            Workload { stop, clients, watching, oracle, writes, reads, _endpoints: endpoints };
        load.progress(100).await;
        load
    }

    /// Waits for so many more acknowledged writes and some more reads, of each client at least one, and
    /// until all have looked who is ready now.
    pub(crate) async fn progress(&self, writes: usize) {
        self.go_on(writes, WRITERS + 1, READERS).await;
    }

    /// The same, where a client may sit on a member that cannot serve it: a Service keeps a connection
    /// where it is.
    pub(crate) async fn progress_of_some(&self, writes: usize) {
        self.go_on(writes, WRITERS, 1).await;
    }

    async fn go_on(&self, writes: usize, writers: usize, readers: usize) {
        let begun = Instant::now();
        let before = (self.writes.of_client(), self.reads.of_client());
        while begun.elapsed() < 2 * LOOK_EVERY
            || !went_on(&before.0, &self.writes.of_client(), writers, writes)
            || !went_on(&before.1, &self.reads.of_client(), readers, READS)
        {
            assert!(
                begun.elapsed() < PATIENCE,
                "clients wait: successes before {before:?}, now {:?}",
                (self.writes.of_client(), self.reads.of_client())
            );
            self.check_alive();
            sleep(PAUSE).await;
        }
    }

    fn check_alive(&self) {
        let finished = self.clients.iter().any(JoinHandle::is_finished);
        assert!(!finished && !self.watching.has_ended(), "a client saw what cannot be");
    }

    /// Lets what is under way end, and the watch come to where the store is.
    pub(crate) async fn stop(mut self, store: &Store) -> Seen {
        self.check_alive();
        let (write_gap, read_gap) = (self.writes.longest_gap(), self.reads.longest_gap());
        self.stop.send_replace(true);
        for client in mem::take(&mut self.clients) {
            client.await.expect("what a client saw cannot be");
        }
        let revision = crate::check::agreed_revision(store).await;
        let watched = self.watching.until(revision).await;
        let tally = self.oracle.tally();
        Seen {
            attempts: self.oracle.attempts(),
            watched,
            write_gap,
            read_gap,
            acknowledged: tally.acknowledged,
        }
    }
}

/// Whether all these clients had a success more, and so many together.
fn went_on(
    before: &BTreeMap<usize, usize>,
    now: &BTreeMap<usize, usize>,
    clients: usize,
    successes: usize,
) -> bool {
    let more = |(client, count): (&usize, &usize)| count - before.get(client).unwrap_or(&0);
    let advanced = now.iter().filter(|of| more(*of) > 0).count();
    advanced >= clients && now.iter().map(more).sum::<usize>() >= successes
}

/// After a failure nobody is to load the store of the next scenario.
impl Drop for Workload {
    fn drop(&mut self) {
        self.clients.iter().for_each(JoinHandle::abort);
    }
}

/// A client that follows the ready pods.
struct Peer {
    endpoints: watch::Receiver<Vec<Endpoint>>,
    number: usize,
    client: Option<Client>,
    look_at: Instant,
}

impl Peer {
    /// A client of who was ready when it looked last: all of them at once would be one gap of them all.
    fn client(&mut self) -> Client {
        let look = self.looks_now() && self.endpoints.has_changed().unwrap_or(false);
        if look || self.client.is_none() {
            let mut endpoints = self.endpoints.borrow_and_update().clone();
            if !endpoints.is_empty() {
                let first = self.number % endpoints.len();
                endpoints.rotate_left(first);
                self.client = Some(client_of(&endpoints));
            }
        }
        self.client.get_or_insert_with(|| client_of(&[])).clone()
    }

    /// Whom it knows may be gone: names are looked up again.
    fn failed(&mut self) {
        self.look_at = Instant::now();
    }

    fn looks_now(&mut self) -> bool {
        let now = Instant::now();
        let due = self.look_at <= now;
        while self.look_at <= now {
            self.look_at += LOOK_EVERY;
        }
        due
    }
}

async fn write(
    mut peer: Peer,
    oracle: Oracle,
    writes: Arc<Successes>,
    stop: watch::Receiver<bool>,
) {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    while !*stop.borrow() {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let key = format!("{PREFIX}{}", number % KEYS);
        let value = format!("{number:-<VALUE_BYTES$}");
        let began = Instant::now();
        let outcome = match peer.client().put(Put::new(&key, &value)).await {
            Ok(done) => {
                writes.note(peer.number);
                Outcome::Acknowledged(done.header.unwrap().revision)
            }
            Err(error) if error.was_not_done() => Outcome::Refused,
            Err(_) => Outcome::Unknown,
        };
        oracle.note(Attempt { key, value, began, ended: Instant::now(), outcome });
        let refused = !matches!(outcome, Outcome::Acknowledged(_));
        if refused {
            peer.failed();
        }
        sleep(if refused { PAUSE } else { PACE }).await;
    }
}

/// A linearizable read sees all that was acknowledged before it began.
async fn read(mut peer: Peer, oracle: Oracle, reads: Arc<Successes>, stop: watch::Receiver<bool>) {
    for number in 0_u64.. {
        if *stop.borrow() {
            break;
        }
        let key = format!("{PREFIX}{}", number % KEYS);
        let floor = oracle.floor(&key);
        let Ok(answer) = peer.client().range(Get::new(&key)).await else {
            peer.failed();
            sleep(PAUSE).await;
            continue;
        };
        reads.note(peer.number);
        let revision = answer.header.unwrap().revision;
        let of_key = answer.kvs.first().map_or(0, |kv| kv.mod_revision);
        assert!(
            revision >= floor.revision && of_key >= floor.of_key,
            "a linearizable read of {key} is answered at revision {revision}, key at {of_key}; \
             acknowledged before it began: {floor:?}"
        );
        sleep(PACE).await;
    }
}

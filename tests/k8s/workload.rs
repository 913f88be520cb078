//! Clients that write, read and watch a store in Kubernetes while its pods come and go, and check
//! every answer.
//!
//! Each client knows the ready pods, as a client that resolves a headless Service does, and starts
//! with a different one. One writer uses the Service's own address.

use std::{
    collections::BTreeMap,
    fmt, mem,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use ordinal::{
    client::{Client, Endpoint, Get},
    proto::mvccpb::KeyValue,
};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Duration, Instant, sleep, timeout},
};

use crate::{
    k8s::{
        follow::{Followed, Objects},
        kubectl::CHANGE_TIMEOUT,
        store::{Store, TIMEOUTS, client_of},
        watcher::Watching,
    },
    support::{
        oracle::{Attempt, Oracle, Outcome},
        workload::{self, assert_linearizable},
    },
};

/// Time since 1970-01-01 UTC.
#[expect(clippy::disallowed_methods, reason = "a test measures real time")]
fn unix_now() -> Duration {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap()
}

/// Writers through the pods; one more writes through the Service.
const WRITERS: usize = 4;
const READERS: usize = 2;
const CLIENTS: usize = WRITERS + READERS + 1;
/// Interval at which a client looks up the ready pods: real clients may cache names for longer.
const LOOKUP_INTERVAL: Duration = Duration::from_secs(1);
/// Answered reads that show that reads continue.
const READS: usize = 10;
const KEYS: u64 = 16;
pub const PREFIX: &str = "w/";
/// Pause between two requests of a client. Gaps of all clients together are exact to a few
/// milliseconds, and twenty members on two processors still get their share.
const REQUEST_INTERVAL: Duration = Duration::from_millis(10);
const RETRY_DELAY: Duration = Duration::from_millis(20);
const VALUE_BYTES: usize = 100;

/// The request to all clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Run,
    Pause,
    Stop,
}

/// Running clients.
#[derive(Debug)]
pub struct Workload {
    order: watch::Sender<Order>,
    clients: Vec<JoinHandle<()>>,
    watching: Watching,
    pub oracle: Oracle,
    writes: Arc<Successes>,
    reads: Arc<Successes>,
    _endpoints: Followed<Vec<Endpoint>>,
    _service: Followed<Vec<Endpoint>>,
}

/// The address of a Service. A Service that is applied again has another one.
fn address(services: &Objects) -> Vec<Endpoint> {
    let addresses = services.values().filter_map(|service| service["spec"]["clusterIP"].as_str());
    addresses.map(crate::k8s::store::endpoint).collect()
}

/// The endpoints that a Service lists as ready.
fn ready(slices: &Objects) -> Vec<Endpoint> {
    let endpoints = slices.values().filter_map(|slice| slice["endpoints"].as_array()).flatten();
    let ready = endpoints.filter(|endpoint| endpoint["conditions"]["ready"] == true);
    ready
        .filter_map(|ready| ready["addresses"][0].as_str())
        .map(crate::k8s::store::endpoint)
        .collect()
}

/// The observations of a workload.
#[derive(Debug)]
pub struct Seen {
    pub attempts: Vec<Attempt>,
    pub watched: Vec<KeyValue>,
    pub write_gap: Gap,
    pub read_gap: Gap,
    pub acknowledged: usize,
}

/// The longest time without a success, and its end, to find it in logs.
#[derive(Debug, Clone, Copy)]
pub struct Gap {
    pub lasted: Duration,
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

/// Successes of all clients together, and of each.
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
        let longest = Gap { lasted: Duration::ZERO, ended: unix_now() };
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

    /// The longest gap, including the present one.
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
            self.longest = Gap { lasted, ended: unix_now() };
        }
    }
}

impl Workload {
    /// Starts once a pod is ready.
    pub async fn start(store: &Store) -> Workload {
        let name = store.client_service();
        let slices = format!("--selector=kubernetes.io/service-name={name}");
        let kubectl = || store.kubectl.clone();
        let endpoints = Followed::begin(kubectl(), &["endpointslices", &slices], ready);
        let followed_service = Followed::begin(kubectl(), &["service", &name], address);
        let (mut ready, mut service) = (endpoints.subscribe(), followed_service.subscribe());
        for addresses in [&mut ready, &mut service] {
            let any = addresses.wait_for(|addresses| !addresses.is_empty());
            timeout(CHANGE_TIMEOUT, any).await.expect("an address").expect("its sender lives");
        }

        let oracle = Oracle::default();
        let (writes, reads) = (Arc::new(Successes::begin()), Arc::new(Successes::begin()));
        let (order, orders) = watch::channel(Order::Run);
        let mut clients = Vec::new();
        for number in 0..CLIENTS {
            let endpoints = if number == 0 { service.clone() } else { ready.clone() };
            let lookup_at = Instant::now() + LOOKUP_INTERVAL / CLIENTS as u32 * number as u32;
            let client = PodClient { endpoints, number, client: None, lookup_at };
            let (oracle, orders) = (oracle.clone(), orders.clone());
            clients.push(if number <= WRITERS {
                tokio::spawn(write(client, oracle, writes.clone(), orders))
            } else {
                tokio::spawn(read(client, oracle, reads.clone(), orders))
            });
        }
        let watching = Watching::start(ready).await;
        let load = Workload {
            order,
            clients,
            watching,
            oracle,
            writes,
            reads,
            _endpoints: endpoints,
            _service: followed_service,
        };
        load.progress(100).await;
        load
    }

    /// Waits for this many more acknowledged writes and some more reads, at least one of each
    /// client, and until all clients have looked up the ready pods again.
    pub async fn progress(&self, writes: usize) {
        self.wait_for_progress(writes, WRITERS + 1, READERS).await;
    }

    /// The same, but some clients may be connected to a member that cannot serve them: a Service
    /// does not move connections.
    pub async fn progress_of_some(&self, writes: usize) {
        self.wait_for_progress(writes, WRITERS, 1).await;
    }

    async fn wait_for_progress(&self, writes: usize, writers: usize, readers: usize) {
        let begun = Instant::now();
        let before = (self.writes.of_client(), self.reads.of_client());
        while begun.elapsed() < 2 * LOOKUP_INTERVAL
            || !progressed(&before.0, &self.writes.of_client(), writers, writes)
            || !progressed(&before.1, &self.reads.of_client(), readers, READS)
        {
            assert!(
                begun.elapsed() < CHANGE_TIMEOUT,
                "clients wait: successes before {before:?}, now {:?}",
                (self.writes.of_client(), self.reads.of_client())
            );
            self.check_alive();
            sleep(RETRY_DELAY).await;
        }
    }

    /// No request is in flight from now on, until the clients [resume](Self::resume). The pause counts
    /// as a gap.
    pub async fn pause(&self) {
        self.order.send_replace(Order::Pause);
        sleep(CLIENTS as u32 * TIMEOUTS.dial + TIMEOUTS.command).await;
    }

    pub fn resume(&self) {
        self.order.send_replace(Order::Run);
    }

    fn check_alive(&self) {
        let finished = self.clients.iter().any(JoinHandle::is_finished);
        assert!(!finished && !self.watching.has_ended(), "a client failed an assertion");
    }

    /// Stops the clients after their requests in flight, and waits until the watch has caught up.
    pub async fn stop(mut self, store: &Store) -> Seen {
        self.check_alive();
        let (write_gap, read_gap) = (self.writes.longest_gap(), self.reads.longest_gap());
        self.order.send_replace(Order::Stop);
        for client in mem::take(&mut self.clients) {
            client.await.expect("a client failed an assertion");
        }
        let revision = crate::k8s::check::agreed_revision(store).await;
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

/// Whether this many clients had further successes, and this many together.
fn progressed(
    before: &BTreeMap<usize, usize>,
    now: &BTreeMap<usize, usize>,
    clients: usize,
    successes: usize,
) -> bool {
    let more = |(client, count): (&usize, &usize)| count - before.get(client).unwrap_or(&0);
    let advanced = now.iter().filter(|of| more(*of) > 0).count();
    advanced >= clients && now.iter().map(more).sum::<usize>() >= successes
}

/// After a failure, no load remains for the next scenario.
impl Drop for Workload {
    fn drop(&mut self) {
        self.clients.iter().for_each(JoinHandle::abort);
    }
}

/// A client that follows the ready pods.
struct PodClient {
    endpoints: watch::Receiver<Vec<Endpoint>>,
    number: usize,
    client: Option<Client>,
    lookup_at: Instant,
}

impl PodClient {
    /// A client of the pods that were ready at its last look-up. The clients look up at different
    /// times, otherwise all gaps would coincide.
    fn client(&mut self) -> Client {
        let look = self.lookup_is_due() && self.endpoints.has_changed().unwrap_or(false);
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

    /// The known pods may be gone, so the next request looks them up again.
    fn failed(&mut self) {
        self.lookup_at = Instant::now();
    }

    fn lookup_is_due(&mut self) -> bool {
        let now = Instant::now();
        let due = self.lookup_at <= now;
        while self.lookup_at <= now {
            self.lookup_at += LOOKUP_INTERVAL;
        }
        due
    }
}

/// Waits while the clients pause.
async fn goes_on(orders: &mut watch::Receiver<Order>) -> bool {
    let order = orders.wait_for(|order| *order != Order::Pause).await;
    order.is_ok_and(|order| *order == Order::Run)
}

async fn write(
    mut client: PodClient,
    oracle: Oracle,
    writes: Arc<Successes>,
    mut orders: watch::Receiver<Order>,
) {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    while goes_on(&mut orders).await {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let key = format!("{PREFIX}{}", number % KEYS);
        let outcome = workload::put(&client.client(), &oracle, key, VALUE_BYTES).await;
        if matches!(outcome, Outcome::Acknowledged(_)) {
            writes.note(client.number);
            sleep(REQUEST_INTERVAL).await;
        } else {
            client.failed();
            sleep(RETRY_DELAY).await;
        }
    }
}

/// A linearizable read sees every write acknowledged before it began.
async fn read(
    mut client: PodClient,
    oracle: Oracle,
    reads: Arc<Successes>,
    mut orders: watch::Receiver<Order>,
) {
    for number in 0_u64.. {
        if !goes_on(&mut orders).await {
            break;
        }
        let key = format!("{PREFIX}{}", number % KEYS);
        let floor = oracle.floor(&key);
        let Ok(answer) = client.client().range(Get::new(&key)).await else {
            client.failed();
            sleep(RETRY_DELAY).await;
            continue;
        };
        reads.note(client.number);
        assert_linearizable(&key, &answer, floor);
        sleep(REQUEST_INTERVAL).await;
    }
}

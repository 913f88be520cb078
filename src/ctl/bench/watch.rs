//! The bench of watches: events to many watchers, on several streams.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{Instant, timeout},
};

use super::{
    load::Worker,
    report::BenchReport,
    rng::SeededRng,
    run::Run,
    settings::Settings,
    tally::{self, Tally},
};
use crate::{
    client::{Client, ClientError, Put, Watch, WatchStream},
    ctl::error::CtlError,
    proto::{etcdserverpb::WatchRequest, mvccpb::Event},
};

/// The time for outstanding deliveries after the last write.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(5);
/// The first bytes of a value are its send time.
const STAMP_BYTES: usize = 8;

#[derive(Debug, Clone, clap::Args)]
pub struct WatchBench {
    /// Number of watches
    #[arg(long, default_value_t = 100, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    watchers: u32,
    /// Number of streams, shared by the watches and spread over the endpoints
    #[arg(long, default_value_t = 1, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    streams: u32,
}

impl WatchBench {
    /// Each event goes to all watches of its key; with one key, to all watches.
    pub async fn run(&self, run: &mut Run<'_, '_>) -> Result<Option<BenchReport>, CtlError> {
        let settings = run.settings;
        let clients = settings.clients(run.config);
        let deliveries = Arc::new(Deliveries::new(run.tally.clone()));
        let mut readers = JoinSet::new();
        let opened = run.prepare(async {
            for stream in self.open(settings, &clients).await? {
                readers.spawn(read(stream, deliveries.clone()));
            }
            Ok(())
        });
        if !opened.await? {
            return Ok(None);
        }
        let worker = |n: u32| Writer {
            client: clients[n as usize % clients.len()].clone(),
            padding: SeededRng::new(settings.seed, n.into()).bytes(settings.value_size),
            settings: settings.clone(),
            watchers: self.watchers.into(),
            deliveries: deliveries.clone(),
        };
        let workers = (0..settings.clients).map(worker).collect();
        let started = Instant::now();
        let mut elapsed = run.drive(settings.pace(), workers).await;
        let complete = timeout(DELIVERY_TIMEOUT, deliveries.complete()).await.is_ok();
        if complete {
            elapsed.time = started.elapsed();
        }
        readers.shutdown().await;
        let mut report = run.report("watch", elapsed);
        report.extra.push(("watchers", self.watchers.into()));
        report.extra.push(("streams", self.streams.min(self.watchers).into()));
        report.extra.push(("missing_deliveries", deliveries.missing().into()));
        Ok(Some(report))
    }

    /// Returns once all watches are created.
    async fn open(
        &self,
        settings: &Settings,
        clients: &[Client],
    ) -> Result<Vec<WatchStream>, ClientError> {
        let keyspace = keyspace(settings);
        let mut streams: Vec<WatchStream> = Vec::new();
        for number in 0..self.watchers {
            let key = settings.key(u64::from(number) % keyspace);
            let request: WatchRequest = Watch::new(key).into();
            let at = (number % self.streams) as usize;
            match streams.get_mut(at) {
                Some(stream) => stream.add(request).await?,
                None => streams.push(clients[at % clients.len()].open_watch_stream(request).await?),
            }
        }
        Ok(streams)
    }
}

fn keyspace(settings: &Settings) -> u64 {
    settings.keyspace_or(1)
}

/// The deliveries of a run, shared by writers and readers.
#[derive(Debug)]
struct Deliveries {
    started: Instant,
    tally: Tally,
    /// Of all answered puts.
    expected: AtomicU64,
    delivered: AtomicU64,
    arrival: Notify,
}

impl Deliveries {
    fn new(tally: Tally) -> Deliveries {
        Deliveries {
            started: Instant::now(),
            tally,
            expected: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            arrival: Notify::new(),
        }
    }

    fn missing(&self) -> u64 {
        let delivered = self.delivered.load(Ordering::Relaxed);
        self.expected.load(Ordering::Relaxed).saturating_sub(delivered)
    }

    async fn complete(&self) {
        while self.missing() > 0 {
            self.arrival.notified().await;
        }
    }

    /// The send time, for the first bytes of a value.
    fn stamp(&self) -> [u8; STAMP_BYTES] {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX).to_be_bytes()
    }

    fn deliver(&self, events: &[Event]) {
        let now = self.started.elapsed();
        let values = events.iter().filter_map(|event| Some(&event.kv.as_ref()?.value));
        for stamp in values.filter_map(|value| value.first_chunk::<STAMP_BYTES>()) {
            let sent = Duration::from_nanos(u64::from_be_bytes(*stamp));
            self.tally.done("delivery", now.saturating_sub(sent));
            self.delivered.fetch_add(1, Ordering::Relaxed);
        }
        self.arrival.notify_one();
    }
}

/// Counts the events of a stream until it breaks.
async fn read(mut stream: WatchStream, deliveries: Arc<Deliveries>) {
    loop {
        match stream.response().await {
            Ok(answer) => deliveries.deliver(&answer.events),
            Err(error) => return deliveries.tally.failed("delivery", tally::kind(&error)),
        }
    }
}

/// Writes the keys in turn.
struct Writer {
    client: Client,
    settings: Settings,
    padding: Vec<u8>,
    watchers: u64,
    deliveries: Arc<Deliveries>,
}

impl Worker for Writer {
    async fn call(&mut self, number: u64, _: Instant) -> (&'static str, Result<(), ClientError>) {
        let keyspace = keyspace(&self.settings);
        let key = number % keyspace;
        let mut value = self.deliveries.stamp().to_vec();
        value.extend_from_slice(self.padding.get(STAMP_BYTES..).unwrap_or_default());
        let put = self.client.put(Put::new(self.settings.key(key), value)).await.map(drop);
        if put.is_ok() {
            let each = self.watchers / keyspace + u64::from(key < self.watchers % keyspace);
            self.deliveries.expected.fetch_add(each, Ordering::Relaxed);
        }
        ("put", put)
    }
}

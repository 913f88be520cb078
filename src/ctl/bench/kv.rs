//! Benches of single keys and of ranges.

use bytes::Bytes;
use tokio::time::Instant;

use super::{load::Worker, report::BenchReport, rng::SeededRng, run::Run, settings::Settings};
use crate::{
    client::{Client, ClientError, Get, Keys, Put, Txn},
    ctl::{context::ClientConfig, error::CtlError},
};

/// Limits of one transaction that fills the keyspace before a run.
const FILL_KEYS: u64 = 64;
const FILL_BYTES: usize = 512 << 10;

/// The kinds of requests.
#[derive(Debug, Clone, Copy)]
pub struct Mix {
    /// Percentage of reads; the other requests are puts.
    reads: u8,
    /// Keys of a range read. `None`: read single keys.
    limit: Option<u32>,
}

impl Mix {
    pub fn puts() -> Mix {
        Mix { reads: 0, limit: None }
    }

    pub fn gets() -> Mix {
        Mix { reads: 100, limit: None }
    }

    pub fn ranges(limit: u32) -> Mix {
        Mix { reads: 100, limit: Some(limit) }
    }

    pub fn mixed(reads: u8) -> Mix {
        Mix { reads, limit: None }
    }

    fn reads(self) -> bool {
        self.reads > 0
    }

    fn worker(self, settings: &Settings, clients: &[Client], number: u32) -> KvWorker {
        let rng = SeededRng::new(settings.seed, number.into());
        let client = clients[number as usize % clients.len()].clone();
        KvWorker { mix: self, client, rng, settings: settings.clone() }
    }
}

/// A client that chooses keys at random.
#[derive(Debug)]
struct KvWorker {
    mix: Mix,
    client: Client,
    rng: SeededRng,
    settings: Settings,
}

impl Worker for KvWorker {
    async fn call(&mut self, _: u64, _: Instant) -> (&'static str, Result<(), ClientError>) {
        let key = self.settings.key(self.rng.below(self.settings.keyspace()));
        if self.rng.below(100) >= self.mix.reads.into() {
            let put = Put::new(key, self.rng.bytes(self.settings.value_size));
            return ("put", self.client.put(put).await.map(drop));
        }
        let (name, get) = match self.mix.limit {
            None => ("get", Get::new(key)),
            Some(limit) => {
                let (_, end) = Keys::prefix(&self.settings.prefix).bounds();
                ("range", Get::new(Keys::range(key, end)).limit(limit))
            }
        };
        let get = if self.settings.serializable { get.serializable() } else { get };
        (name, self.client.range(get).await.map(drop))
    }
}

/// `None`: Ctrl-C before the run.
pub async fn run(
    run: &Run<'_, '_>,
    name: &'static str,
    mix: Mix,
) -> Result<Option<BenchReport>, CtlError> {
    let settings = run.settings;
    if mix.reads() && !run.prepare(fill(settings, run.config)).await? {
        return Ok(None);
    }
    let clients = settings.clients(run.config);
    let workers = (0..settings.clients).map(|n| mix.worker(settings, &clients, n)).collect();
    let elapsed = run.drive(settings.pace(), workers).await;
    Ok(Some(run.report(name, elapsed)))
}

/// Writes every key once, for the reads.
async fn fill(settings: &Settings, config: &ClientConfig) -> Result<(), CtlError> {
    let client = settings.setup_client(config);
    let value = Bytes::from(SeededRng::new(settings.seed, u64::MAX).bytes(settings.value_size));
    let room = (FILL_BYTES / (settings.value_size + settings.key_size)).max(1) as u64;
    let step = FILL_KEYS.min(room);
    let mut from = 0;
    while from < settings.keyspace() {
        let to = settings.keyspace().min(from + step);
        let puts = (from..to).map(|number| Put::new(settings.key(number), &value));
        client.txn(puts.fold(Txn::new(), Txn::then)).await?;
        from = to;
    }
    Ok(())
}

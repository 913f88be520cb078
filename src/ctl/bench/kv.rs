//! Benches of single keys and ranges.

use bytes::Bytes;
use tokio::time::Instant;

use super::{Settings, dice::Dice, load::Worker};
use crate::{
    client::{Client, ClientError, Get, Keys, Put, Txn},
    ctl::{CtlError, request::Connection},
};

/// Keys that are written at once before a run, so many or so many bytes of them.
const FILL_KEYS: u64 = 64;
const FILL_BYTES: usize = 512 << 10;

/// How many of a hundred requests are what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mix {
    reads: u8,
    /// Keys of a read; one: the key itself.
    limit: Option<u32>,
}

impl Mix {
    pub(super) fn puts() -> Mix {
        Mix { reads: 0, limit: None }
    }

    pub(super) fn gets() -> Mix {
        Mix { reads: 100, limit: None }
    }

    pub(super) fn ranges(limit: u32) -> Mix {
        Mix { reads: 100, limit: Some(limit) }
    }

    pub(super) fn mixed(reads: u8) -> Mix {
        Mix { reads, limit: None }
    }

    pub(super) fn reads(self) -> bool {
        self.reads > 0
    }

    pub(super) fn worker(self, settings: &Settings, clients: &[Client], number: u32) -> KvWorker {
        let dice = Dice::new(settings.seed, number.into());
        let client = clients[number as usize % clients.len()].clone();
        KvWorker { mix: self, client, dice, settings: settings.clone() }
    }
}

/// A client that chooses keys by chance.
#[derive(Debug)]
pub(super) struct KvWorker {
    mix: Mix,
    client: Client,
    dice: Dice,
    settings: Settings,
}

impl Worker for KvWorker {
    async fn ask(&mut self, _: u64, _: Instant) -> (&'static str, Result<(), ClientError>) {
        let key = self.settings.key(self.dice.below(self.settings.keyspace()));
        if self.dice.below(100) >= self.mix.reads.into() {
            let put = Put::new(key, self.dice.bytes(self.settings.value_size));
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

/// Writes every key once, for the reads.
pub(super) async fn fill(settings: &Settings, connection: &Connection) -> Result<(), CtlError> {
    let client = settings.patient(connection);
    let value = Bytes::from(Dice::new(settings.seed, u64::MAX).bytes(settings.value_size));
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

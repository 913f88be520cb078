//! What every bench is told.

use std::time::Duration;

use super::load::{Length, Pace};
use crate::{
    client::{Client, Timeouts},
    ctl::{CtlError, gotext::parse_duration, request::Connection},
};

/// Where benches write unless they are told otherwise: what is there is theirs.
const OWN_PREFIX: &str = "bench/";
/// Requests of a run that is not told how long it is.
const TOTAL: u64 = 10_000;
/// For what may take long: filling, and deleting all of it.
const PATIENCE: Duration = Duration::from_secs(60);
/// Values as etcd takes them, with room for the rest of the request.
const VALUE_BYTES_MAX: usize = 1 << 20;

#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Bench options")]
pub(crate) struct Settings {
    /// Requests at a time: each client waits for its answer
    #[arg(long, global = true, default_value_t = 32, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(super) clients: u32,
    /// Connections that the clients share, spread over the endpoints [default: one for 8 clients]
    #[arg(long, global = true, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(super) conns: Option<u32>,
    /// How many requests [default: 10000]
    #[arg(long, global = true, value_name = "N", conflicts_with = "duration",
          value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) total: Option<u64>,
    /// How long, instead of how many requests
    #[arg(long, global = true, value_parser = parse_duration, value_name = "TIME")]
    pub(super) duration: Option<Duration>,
    /// Requests a second, all clients together [default: as fast as they are answered]
    #[arg(long, global = true, value_name = "N", value_parser = parse_rate)]
    pub(super) rate: Option<f64>,
    /// Bytes of a key, the prefix included
    #[arg(long, global = true, default_value_t = 32, value_name = "BYTES")]
    pub(super) key_size: usize,
    /// Bytes of a value
    #[arg(long, global = true, default_value_t = 256, value_name = "BYTES")]
    pub(super) value_size: usize,
    /// How many different keys [default: 10000; for watch 1]
    #[arg(long, global = true, value_name = "N",
          value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    keyspace: Option<u64>,
    /// Read what the asked member has, be it behind
    #[arg(long, global = true)]
    pub(super) serializable: bool,
    /// What chooses keys and values: the same seed, the same requests
    #[arg(long, global = true, default_value_t = 1, value_name = "N")]
    pub(super) seed: u64,
    /// Write only below this prefix
    #[arg(long, global = true, default_value = OWN_PREFIX, value_name = "KEY")]
    pub(super) prefix: String,
    /// Leave what was written
    #[arg(long, global = true)]
    pub(super) keep: bool,
    /// Print the result as JSON, as -w json does
    #[arg(long, global = true)]
    pub(super) json: bool,
}

impl Settings {
    /// Refuses what cannot be run.
    pub(super) fn check(&self) -> Result<(), CtlError> {
        let bad = |text: String| Err(CtlError::BadArguments(text));
        if self.prefix.is_empty() {
            return bad("an empty --prefix is the whole store, and would be deleted".into());
        }
        let needed = self.prefix.len() + self.digits();
        if self.key_size < needed {
            return bad(format!(
                "--key-size {} is too small for the prefix {} and {} different keys: {needed} \
                 bytes are needed",
                self.key_size,
                self.prefix,
                self.keyspace()
            ));
        }
        if self.value_size > VALUE_BYTES_MAX {
            return bad(format!("--value-size is at most {VALUE_BYTES_MAX}"));
        }
        Ok(())
    }

    pub(super) fn keyspace(&self) -> u64 {
        self.keyspace_or(10_000)
    }

    pub(super) fn keyspace_or(&self, default: u64) -> u64 {
        self.keyspace.unwrap_or(default)
    }

    fn digits(&self) -> usize {
        (self.keyspace() - 1).max(1).ilog10() as usize + 1
    }

    /// The key with this number, as many bytes as all others.
    pub(super) fn key(&self, number: u64) -> String {
        let width = self.key_size.saturating_sub(self.prefix.len());
        format!("{}{number:0width$}", self.prefix)
    }

    pub(super) fn is_own_prefix(&self) -> bool {
        self.prefix == OWN_PREFIX
    }

    pub(super) fn pace(&self) -> Pace {
        let length = match (self.total, self.duration) {
            (_, Some(duration)) => Length::Time(duration),
            (total, None) => Length::Requests(total.unwrap_or(TOTAL)),
        };
        Pace { length, rate: self.rate }
    }

    pub(super) fn conns(&self) -> u32 {
        self.conns.unwrap_or(self.clients.div_ceil(8)).min(self.clients)
    }

    /// The client that one of the bench's clients asks with: several share a connection, and
    /// connections are spread over the endpoints.
    pub(super) fn clients(&self, connection: &Connection) -> Vec<Client> {
        (0..self.conns() as usize)
            .map(|at| {
                let mut endpoints = connection.endpoints.clone();
                let count = endpoints.len();
                endpoints.rotate_left(at % count);
                Client::new(endpoints, connection.timeouts)
            })
            .collect()
    }

    /// For what is not measured.
    pub(super) fn patient(&self, connection: &Connection) -> Client {
        let command = connection.timeouts.command.max(PATIENCE);
        Client::new(connection.endpoints.clone(), Timeouts { command, ..connection.timeouts })
    }
}

fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if rate > 0.0 && rate <= 1e7 => Ok(rate),
        _ => Err(format!("{text:?} is no rate: write requests a second, as in 500")),
    }
}

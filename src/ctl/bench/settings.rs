//! The flags of every bench.

use std::time::Duration;

use super::pace::{Pace, RunLength};
use crate::{
    client::{Client, Timeouts},
    ctl::{context::ClientConfig, error::CtlError, gotext::parse_duration},
};

/// The default prefix: all keys below it belong to benches.
const OWN_PREFIX: &str = "bench/";
/// The length of a run without --total and --duration.
const REQUESTS_DEFAULT: u64 = 10_000;
/// The time limit of filling and deleting the keyspace.
const SETUP_TIMEOUT: Duration = Duration::from_secs(60);
/// etcd's limit of a request, less the rest of the request.
const VALUE_BYTES_MAX: usize = 1 << 20;

#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Bench options")]
pub struct Settings {
    /// Concurrent clients: each waits for its response before it sends again
    #[arg(long, global = true, default_value_t = 32, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub clients: u32,
    /// Connections, shared by the clients and spread over the endpoints [default: one per 8 clients]
    #[arg(long, global = true, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub conns: Option<u32>,
    /// Number of requests [default: 10000]
    #[arg(long, global = true, value_name = "N", conflicts_with = "duration",
          value_parser = clap::value_parser!(u64).range(1..))]
    pub total: Option<u64>,
    /// Length of the run, instead of a number of requests
    #[arg(long, global = true, value_parser = parse_duration, value_name = "TIME")]
    pub duration: Option<Duration>,
    /// Requests per second of all clients together [default: unlimited]
    #[arg(long, global = true, value_name = "N", value_parser = parse_rate)]
    pub rate: Option<f64>,
    /// Size of a key, including the prefix
    #[arg(long, global = true, default_value_t = 32, value_name = "BYTES")]
    pub key_size: usize,
    /// Size of a value
    #[arg(long, global = true, default_value_t = 256, value_name = "BYTES")]
    pub value_size: usize,
    /// Number of different keys [default: 10000; for watch 1]
    #[arg(long, global = true, value_name = "N",
          value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    keyspace: Option<u64>,
    /// Serializable reads: from the called member, possibly stale
    #[arg(long, global = true)]
    pub serializable: bool,
    /// Seed of keys and values: the same seed sends the same requests
    #[arg(long, global = true, default_value_t = 1, value_name = "N")]
    pub seed: u64,
    /// Prefix of all keys that are written
    #[arg(long, global = true, default_value = OWN_PREFIX, value_name = "KEY")]
    pub prefix: String,
    /// Keep the written keys
    #[arg(long, global = true)]
    pub keep: bool,
    /// Print the result as JSON, as -w json does
    #[arg(long, global = true)]
    pub json: bool,
}

impl Settings {
    /// Refuses contradicting flags.
    pub fn check(&self) -> Result<(), CtlError> {
        let bad = |text: String| Err(CtlError::BadArguments(text));
        if self.prefix.is_empty() {
            return bad("an empty --prefix covers all keys, which would be deleted".into());
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

    pub fn keyspace(&self) -> u64 {
        self.keyspace_or(10_000)
    }

    pub fn keyspace_or(&self, default: u64) -> u64 {
        self.keyspace.unwrap_or(default)
    }

    fn digits(&self) -> usize {
        (self.keyspace() - 1).max(1).ilog10() as usize + 1
    }

    /// The key with this number. All keys have the same length.
    pub fn key(&self, number: u64) -> String {
        let width = self.key_size.saturating_sub(self.prefix.len());
        format!("{}{number:0width$}", self.prefix)
    }

    pub fn is_own_prefix(&self) -> bool {
        self.prefix == OWN_PREFIX
    }

    pub fn pace(&self) -> Pace {
        let length = match (self.total, self.duration) {
            (_, Some(duration)) => RunLength::Time(duration),
            (total, None) => RunLength::Requests(total.unwrap_or(REQUESTS_DEFAULT)),
        };
        Pace { length, rate: self.rate }
    }

    pub fn conns(&self) -> u32 {
        self.conns.unwrap_or(self.clients.div_ceil(8)).min(self.clients)
    }

    /// One client for each connection; connections are spread over the endpoints.
    pub fn clients(&self, config: &ClientConfig) -> Vec<Client> {
        (0..self.conns() as usize)
            .map(|at| {
                let mut endpoints = config.endpoints.clone();
                let count = endpoints.len();
                endpoints.rotate_left(at % count);
                Client::new(endpoints, config.timeouts)
            })
            .collect()
    }

    /// A client with a long time limit, for calls that are not measured.
    pub fn setup_client(&self, config: &ClientConfig) -> Client {
        let command = config.timeouts.command.max(SETUP_TIMEOUT);
        Client::new(config.endpoints.clone(), Timeouts { command, ..config.timeouts })
    }
}

fn parse_rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if rate > 0.0 && rate <= 1e7 => Ok(rate),
        _ => Err(format!("{text:?} is not a rate: write requests per second, as in 500")),
    }
}

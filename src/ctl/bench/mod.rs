//! `kvctl bench`: throughput and latency of a cluster.
//!
//! Clients are tasks that send one request after another. A run is a number of requests or a length of
//! time, with or without a rate. At a rate, latency counts from the time a request was *due*, so the
//! requests that a stalled cluster delays are not hidden. Keys and leases of a run are deleted at its
//! end.

mod kv;
mod lease;
mod load;
mod pace;
mod progress;
mod report;
mod rng;
mod run;
mod settings;
mod tally;
mod watch;

use clap::Subcommand;

use self::{
    lease::LeaseBench, progress::Progress, run::Run, settings::Settings, tally::Tally,
    watch::WatchBench,
};
use super::{
    context::ClientConfig,
    error::{CtlError, exit},
    output::{Output, interrupted},
    print::Format,
};
use crate::client::{Client, Delete, Get, Keys};

/// Measures throughput and latency of a cluster.
#[derive(Debug, Clone, clap::Args)]
#[command(arg_required_else_help = true)]
pub struct BenchArgs {
    #[command(subcommand)]
    verb: BenchVerb,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Debug, Clone, Subcommand)]
enum BenchVerb {
    /// Writes single keys.
    #[command(after_help = "Example:\n  kvctl bench put --clients 64 --total 100000")]
    Put,
    /// Reads single keys.
    #[command(after_help = "Example:\n  kvctl bench get --duration 10s --serializable")]
    Get,
    /// Reads ranges of keys.
    #[command(after_help = "Example:\n  kvctl bench range --limit 100 --duration 10s")]
    Range {
        /// Keys in each response
        #[arg(long, default_value_t = 100, value_name = "N")]
        limit: u32,
    },
    /// Reads and writes single keys.
    #[command(after_help = "Example:\n  kvctl bench mixed --reads 90 --rate 2000 --duration 30s")]
    Mixed {
        /// Percentage of reads
        #[arg(long, default_value_t = 80, value_name = "PERCENT",
              value_parser = clap::value_parser!(u8).range(0..=100))]
        reads: u8,
    },
    /// Delivers events to watchers; latency counts from the time of the put.
    #[command(
        after_help = "Example:\n  kvctl bench watch --watchers 1000 --streams 10 --rate 100 --duration 10s"
    )]
    Watch(WatchBench),
    /// Grants leases, or renews them.
    #[command(after_help = "Example:\n  kvctl bench lease keepalive --leases 1000 --duration 10s")]
    Lease(LeaseBench),
}

impl BenchArgs {
    pub fn check(&self) -> Result<(), CtlError> {
        self.settings.check()
    }

    /// Runs, prints the report, also after Ctrl-C, and deletes the written keys.
    pub async fn run(
        self,
        config: &ClientConfig,
        interactive: bool,
        output: &mut Output<'_>,
    ) -> Result<u8, CtlError> {
        let mut settings = self.settings;
        settings.json |= output.format == Format::Json;
        let progress = Progress::new(interactive && !settings.json);
        let tally = Tally::default();
        let setup_client = settings.setup_client(config);
        check_prefix(&settings, &setup_client).await?;
        let mut run = Run { settings: &settings, config, tally, progress, output };
        let measured = match &self.verb {
            BenchVerb::Put => kv::run(&run, "put", kv::Mix::puts()).await,
            BenchVerb::Get => kv::run(&run, "get", kv::Mix::gets()).await,
            BenchVerb::Range { limit } => kv::run(&run, "range", kv::Mix::ranges(*limit)).await,
            BenchVerb::Mixed { reads } => kv::run(&run, "mixed", kv::Mix::mixed(*reads)).await,
            BenchVerb::Watch(bench) => bench.run(&mut run).await,
            BenchVerb::Lease(bench) => bench.run(&mut run, &setup_client).await,
        };
        run.progress.finish();
        if let Ok(Some(report)) = &measured {
            let text = if settings.json { report.json() } else { report.table() };
            run.output.stdout.write_all(text.as_bytes())?;
            run.output.stdout.flush()?;
        }
        delete_keys(&settings, &setup_client, output).await?;
        Ok(match measured? {
            Some(report) if !report.interrupted => exit::OK,
            _ => exit::BY_CTRL_C,
        })
    }
}

/// Refuses a prefix with keys that are not a bench's, because the end of a run deletes all of them.
async fn check_prefix(settings: &Settings, client: &Client) -> Result<(), CtlError> {
    let keys = Keys::prefix(&settings.prefix);
    let existing = client.range(Get::new(keys).count_only()).await?.count;
    if existing > 0 && !settings.keep && !settings.is_own_prefix() {
        let (keys, they) = if existing == 1 {
            ("is 1 key".to_string(), "it")
        } else {
            (format!("are {existing} keys"), "they")
        };
        return Err(CtlError::BadArguments(format!(
            "there {keys} below {} already, and {they} would be deleted at the end: choose another \
             --prefix, or pass --keep",
            settings.prefix
        )));
    }
    Ok(())
}

/// Deletes the keys of a run. A second Ctrl-C leaves them.
async fn delete_keys(
    settings: &Settings,
    client: &Client,
    output: &mut Output<'_>,
) -> Result<(), CtlError> {
    if settings.keep {
        return Ok(());
    }
    let deleted = tokio::select! {
        deleted = client.delete_range(Delete::new(Keys::prefix(&settings.prefix))) => deleted,
        () = interrupted() => return Ok(()),
    };
    if let Err(error) = deleted {
        output.print_error(&format!(
            "the keys below {} are still there ({error}): delete them with kvctl del --prefix {}",
            settings.prefix, settings.prefix
        ))?;
    }
    Ok(())
}

//! `kvctl bench`: how many requests a cluster answers, and how quickly.
//!
//! Clients are tasks that ask one request after the other; a run is a number of requests or a length
//! of time, as fast as they are answered or at a rate. At a rate, latency counts from when a request
//! was *due*: a cluster that stalls does not hide the requests that had to wait. What a run wrote is
//! deleted after it.

mod dice;
mod kv;
mod lease;
mod load;
mod progress;
mod report;
mod settings;
mod tally;
mod watch;

use std::future::Future;

use clap::Subcommand;

pub(crate) use self::settings::Settings;
use self::{
    lease::LeaseBench,
    load::{Elapsed, Pace},
    progress::Progress,
    report::Report,
    tally::Tally,
    watch::WatchBench,
};
use super::{
    CtlError,
    error::exit,
    request::Connection,
    screen::{Screen, interrupted},
};
use crate::client::{Client, Delete, Get, Keys};

/// Measures a cluster: how many requests it answers, and how quickly.
#[derive(Debug, Clone, clap::Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct BenchArgs {
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
    /// Reads many keys at once.
    #[command(after_help = "Example:\n  kvctl bench range --limit 100 --duration 10s")]
    Range {
        /// Keys in each answer
        #[arg(long, default_value_t = 100, value_name = "N")]
        limit: u32,
    },
    /// Reads and writes single keys.
    #[command(after_help = "Example:\n  kvctl bench mixed --reads 90 --rate 2000 --duration 30s")]
    Mixed {
        /// How many of a hundred requests are reads
        #[arg(long, default_value_t = 80, value_name = "PERCENT",
              value_parser = clap::value_parser!(u8).range(0..=100))]
        reads: u8,
    },
    /// Delivers events to watchers: how many, and how long after their put was sent.
    #[command(
        after_help = "Example:\n  kvctl bench watch --watchers 1000 --streams 10 --rate 100 --duration 10s"
    )]
    Watch(WatchBench),
    /// Grants leases, or renews them.
    #[command(after_help = "Example:\n  kvctl bench lease keepalive --leases 1000 --duration 10s")]
    Lease(LeaseBench),
}

/// A run that is set up.
struct Run<'a, 'b> {
    settings: &'a Settings,
    connection: &'a Connection,
    tally: Tally,
    progress: Progress,
    screen: &'a mut Screen<'b>,
}

impl BenchArgs {
    pub(crate) fn check(&self) -> Result<(), CtlError> {
        self.settings.check()
    }

    /// Runs, prints what was measured, also if Ctrl-C ended it, and deletes what it wrote.
    pub(crate) async fn run(
        self,
        connection: &Connection,
        interactive: bool,
        screen: &mut Screen<'_>,
    ) -> Result<u8, CtlError> {
        let mut settings = self.settings;
        settings.json |= screen.format == super::cli::Format::Json;
        let progress = Progress::new(interactive && !settings.json);
        let tally = Tally::default();
        let patient = settings.patient(connection);
        before(&settings, &patient).await?;
        let mut run = Run { settings: &settings, connection, tally, progress, screen };
        let measured = match &self.verb {
            BenchVerb::Put => run.kv("put", kv::Mix::puts()).await,
            BenchVerb::Get => run.kv("get", kv::Mix::gets()).await,
            BenchVerb::Range { limit } => run.kv("range", kv::Mix::ranges(*limit)).await,
            BenchVerb::Mixed { reads } => run.kv("mixed", kv::Mix::mixed(*reads)).await,
            BenchVerb::Watch(bench) => bench.run(&mut run).await,
            BenchVerb::Lease(bench) => bench.run(&mut run, &patient).await,
        };
        run.progress.finish();
        if let Ok(Some(report)) = &measured {
            let text = if settings.json { report.json() } else { report.table() };
            run.screen.stdout.write_all(text.as_bytes())?;
            run.screen.stdout.flush()?;
        }
        after(&settings, &patient, screen).await?;
        Ok(match measured? {
            Some(report) if !report.interrupted => exit::OK,
            _ => exit::BY_CTRL_C,
        })
    }
}

impl Run<'_, '_> {
    /// `None`: Ctrl-C before anything was measured.
    async fn kv(&mut self, name: &'static str, mix: kv::Mix) -> Result<Option<Report>, CtlError> {
        let settings = self.settings;
        if mix.reads() && !self.prepare(kv::fill(settings, self.connection)).await? {
            return Ok(None);
        }
        let clients = settings.clients(self.connection);
        let workers = (0..settings.clients).map(|n| mix.worker(settings, &clients, n)).collect();
        let elapsed = self.drive(settings.pace(), workers).await;
        Ok(Some(self.report(name, elapsed)))
    }

    /// Does what a run needs before it; false: Ctrl-C came first.
    async fn prepare(
        &self,
        work: impl Future<Output = Result<(), CtlError>>,
    ) -> Result<bool, CtlError> {
        self.progress.prepare("preparing");
        tokio::select! {
            done = work => done.map(|()| true),
            () = interrupted() => Ok(false),
        }
    }

    async fn drive<W: load::Worker>(&self, pace: Pace, workers: Vec<W>) -> Elapsed {
        load::drive(pace, workers, &self.tally, &self.progress).await
    }

    fn report(&self, bench: &'static str, elapsed: Elapsed) -> Report {
        Report::new(bench, self.settings, self.connection, &self.tally, elapsed)
    }
}

/// Refuses to begin where the end would delete what is not ours.
async fn before(settings: &Settings, client: &Client) -> Result<(), CtlError> {
    let keys = Keys::prefix(&settings.prefix);
    let there = client.range(Get::new(keys).count_only()).await?.count;
    if there > 0 && !settings.keep && !settings.is_own_prefix() {
        let (keys, they) = if there == 1 {
            ("is 1 key".to_string(), "it")
        } else {
            (format!("are {there} keys"), "they")
        };
        return Err(CtlError::BadArguments(format!(
            "there {keys} below {} already, and {they} would be deleted at the end: choose another \
             --prefix, or say --keep",
            settings.prefix
        )));
    }
    Ok(())
}

/// Deletes what the run wrote. A second Ctrl-C leaves it.
async fn after(
    settings: &Settings,
    client: &Client,
    screen: &mut Screen<'_>,
) -> Result<(), CtlError> {
    if settings.keep {
        return Ok(());
    }
    let deleted = tokio::select! {
        deleted = client.delete_range(Delete::new(Keys::prefix(&settings.prefix))) => deleted,
        () = interrupted() => return Ok(()),
    };
    if let Err(error) = deleted {
        screen.complain(&format!(
            "the keys below {} are still there ({error}): delete them with kvctl del --prefix {}",
            settings.prefix, settings.prefix
        ))?;
    }
    Ok(())
}

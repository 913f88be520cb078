//! Benches of leases.

use clap::ValueEnum;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::time::Instant;

use super::{load::Worker, report::BenchReport, run::Run};
use crate::{
    client::{Client, ClientError, RenewalStream},
    ctl::{error::CtlError, output::interrupted},
    proto::etcdserverpb::LeaseGrantRequest,
};

/// Concurrent grants and revocations, before and after a run.
const CONCURRENCY: usize = 64;

#[derive(Debug, Clone, clap::Args)]
pub struct LeaseBench {
    /// Grant leases, or renew leases that were granted before the run
    #[arg(value_enum, default_value = "grant", value_name = "grant|keepalive")]
    operation: LeaseOperation,
    /// Number of leases to renew
    #[arg(long, default_value_t = 1000, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    leases: u32,
    /// TTL of each lease, in seconds
    #[arg(long, default_value_t = 300, value_name = "SECONDS",
          value_parser = clap::value_parser!(u32).range(1..))]
    ttl: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LeaseOperation {
    Grant,
    Keepalive,
}

impl LeaseBench {
    /// Revokes all leases of the run at the end, unless --keep is given.
    pub async fn run(
        &self,
        run: &mut Run<'_, '_>,
        setup_client: &Client,
    ) -> Result<Option<BenchReport>, CtlError> {
        // The client chooses the ids, so it can revoke leases whose grant was not answered.
        let first = first_id(run.settings.seed);
        let (report, granted) = match self.operation {
            LeaseOperation::Grant => {
                let report = self.grant(run, first).await;
                let requested = run.tally.total();
                (Some(report), requested)
            }
            LeaseOperation::Keepalive => {
                (self.keep_alive(run, setup_client, first).await?, self.leases.into())
            }
        };
        if !run.settings.keep {
            run.progress.set_stage("revoking");
            tokio::select! {
                () = revoke(setup_client, first, granted) => {}
                // They expire.
                () = interrupted() => {}
            }
        }
        Ok(report)
    }

    async fn grant(&self, run: &Run<'_, '_>, first: i64) -> BenchReport {
        let clients = run.settings.clients(run.config);
        let worker = |n| Granter {
            client: clients[n as usize % clients.len()].clone(),
            ttl: self.ttl.into(),
            first,
        };
        let workers = (0..run.settings.clients).map(worker).collect();
        let elapsed = run.drive(run.settings.pace(), workers).await;
        run.report("lease grant", elapsed)
    }

    async fn keep_alive(
        &self,
        run: &Run<'_, '_>,
        setup_client: &Client,
        first: i64,
    ) -> Result<Option<BenchReport>, CtlError> {
        if !run.prepare(grant_all(setup_client, first, self.leases, self.ttl)).await? {
            return Ok(None);
        }
        let clients = run.settings.clients(run.config);
        let worker = |n| Renewer {
            client: clients[n as usize % clients.len()].clone(),
            stream: None,
            first,
            leases: self.leases.into(),
        };
        let workers = (0..run.settings.clients).map(worker).collect();
        let elapsed = run.drive(run.settings.pace(), workers).await;
        Ok(Some(run.report("lease keepalive", elapsed)))
    }
}

/// Runs with different seeds have different ids, in a range that applications hardly use.
fn first_id(seed: u64) -> i64 {
    0x0be2_c400_0000_0000 | ((seed & 0xffff) << 24) as i64
}

struct Granter {
    client: Client,
    ttl: i64,
    first: i64,
}

impl Worker for Granter {
    async fn call(&mut self, number: u64, _: Instant) -> (&'static str, Result<(), ClientError>) {
        let request = LeaseGrantRequest { ttl: self.ttl, id: self.first + number as i64 };
        ("grant", self.client.lease_grant(request).await.map(drop))
    }
}

/// Renews on one stream, one lease after another.
struct Renewer {
    client: Client,
    stream: Option<RenewalStream>,
    first: i64,
    leases: u64,
}

impl Worker for Renewer {
    async fn call(&mut self, number: u64, _: Instant) -> (&'static str, Result<(), ClientError>) {
        let id = self.first + (number % self.leases) as i64;
        let renewed = match &mut self.stream {
            Some(stream) => stream.renew(&self.client, id).await,
            None => self.client.renewal_stream(id).await.map(|stream| self.stream = Some(stream)),
        };
        if renewed.is_err() {
            self.stream = None;
        }
        ("keepalive", renewed)
    }
}

async fn grant_all(client: &Client, first: i64, leases: u32, ttl: u32) -> Result<(), CtlError> {
    let grants = (0..i64::from(leases))
        .map(|n| client.lease_grant(LeaseGrantRequest { ttl: ttl.into(), id: first + n }));
    let done = stream::iter(grants).buffer_unordered(CONCURRENCY);
    Ok(done.try_for_each(|_| async { Ok(()) }).await?)
}

/// Ignores errors: a lease may not have been granted, or may have expired.
async fn revoke(client: &Client, first: i64, leases: u64) {
    let revocations = (0..leases as i64).map(|n| client.lease_revoke(first + n));
    stream::iter(revocations).buffer_unordered(CONCURRENCY).for_each(|_| async {}).await;
}

//! Benches of leases.

use clap::ValueEnum;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::time::Instant;

use super::{Run, load::Worker, report::Report};
use crate::{
    client::{Client, ClientError, RenewalStream},
    ctl::{CtlError, screen::interrupted},
    proto::etcdserverpb::LeaseGrantRequest,
};

/// Leases that are granted or revoked at a time, before and after a run.
const AT_A_TIME: usize = 64;

#[derive(Debug, Clone, clap::Args)]
pub(super) struct LeaseBench {
    /// Grant leases, or renew those that were granted before
    #[arg(value_enum, default_value = "grant", value_name = "grant|keepalive")]
    what: What,
    /// How many leases are renewed
    #[arg(long, default_value_t = 1000, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    leases: u32,
    /// How long each lives, in seconds
    #[arg(long, default_value_t = 300, value_name = "SECONDS",
          value_parser = clap::value_parser!(u32).range(1..))]
    ttl: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    Grant,
    Keepalive,
}

impl LeaseBench {
    /// Afterwards all leases of the run are revoked, unless they shall be kept.
    pub(super) async fn run(
        &self,
        run: &mut Run<'_, '_>,
        patient: &Client,
    ) -> Result<Option<Report>, CtlError> {
        // Ids of our own choice: what was granted can be revoked whatever becomes of the answers.
        let first = first_id(run.settings.seed);
        let (report, granted) = match self.what {
            What::Grant => {
                let report = self.grant(run, first).await;
                let asked = run.tally.total();
                (Some(report), asked)
            }
            What::Keepalive => (self.keep_alive(run, patient, first).await?, self.leases.into()),
        };
        if !run.settings.keep {
            run.progress.prepare("revoking");
            tokio::select! {
                () = revoke(patient, first, granted) => {}
                // They end by themselves.
                () = interrupted() => {}
            }
        }
        Ok(report)
    }

    async fn grant(&self, run: &Run<'_, '_>, first: i64) -> Report {
        let clients = run.settings.clients(run.connection);
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
        patient: &Client,
        first: i64,
    ) -> Result<Option<Report>, CtlError> {
        if !run.prepare(grant_all(patient, first, self.leases, self.ttl)).await? {
            return Ok(None);
        }
        let clients = run.settings.clients(run.connection);
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

/// Another run with another seed has other leases, and no application's are likely to be here.
fn first_id(seed: u64) -> i64 {
    0x0be2_c400_0000_0000 | ((seed & 0xffff) << 24) as i64
}

struct Granter {
    client: Client,
    ttl: i64,
    first: i64,
}

impl Worker for Granter {
    async fn ask(&mut self, number: u64, _: Instant) -> (&'static str, Result<(), ClientError>) {
        let request = LeaseGrantRequest { ttl: self.ttl, id: self.first + number as i64 };
        ("grant", self.client.lease_grant(request).await.map(drop))
    }
}

/// Renews on one stream, one after the other.
struct Renewer {
    client: Client,
    stream: Option<RenewalStream>,
    first: i64,
    leases: u64,
}

impl Worker for Renewer {
    async fn ask(&mut self, number: u64, _: Instant) -> (&'static str, Result<(), ClientError>) {
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
    let done = stream::iter(grants).buffer_unordered(AT_A_TIME);
    Ok(done.try_for_each(|_| async { Ok(()) }).await?)
}

/// Those that were never granted, or are gone, are no loss.
async fn revoke(client: &Client, first: i64, leases: u64) {
    let revocations = (0..leases as i64).map(|n| client.lease_revoke(first + n));
    stream::iter(revocations).buffer_unordered(AT_A_TIME).for_each(|_| async {}).await;
}

//! A bench that is set up: its settings, counters and output.

use std::future::Future;

use super::{
    load,
    pace::{Elapsed, Pace},
    progress::Progress,
    report::BenchReport,
    settings::Settings,
    tally::Tally,
};
use crate::ctl::{
    context::ClientConfig,
    error::CtlError,
    output::{Output, interrupted},
};

pub struct Run<'a, 'b> {
    pub settings: &'a Settings,
    pub config: &'a ClientConfig,
    pub tally: Tally,
    pub progress: Progress,
    pub output: &'a mut Output<'b>,
}

impl Run<'_, '_> {
    /// Does the work before a run. False: Ctrl-C.
    pub async fn prepare(
        &self,
        work: impl Future<Output = Result<(), CtlError>>,
    ) -> Result<bool, CtlError> {
        self.progress.set_stage("preparing");
        tokio::select! {
            done = work => done.map(|()| true),
            () = interrupted() => Ok(false),
        }
    }

    pub async fn drive<W: load::Worker>(&self, pace: Pace, workers: Vec<W>) -> Elapsed {
        load::drive(pace, workers, &self.tally, &self.progress).await
    }

    pub fn report(&self, bench: &'static str, elapsed: Elapsed) -> BenchReport {
        BenchReport::new(bench, self.settings, self.config, &self.tally, elapsed)
    }
}

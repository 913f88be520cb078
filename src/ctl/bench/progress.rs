//! The bar that somebody at a terminal sees while a bench runs.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{load::Length, tally::Tally};
use crate::ctl::gotext;

const LOOK: &str = "{prefix:>10} [{bar:30}] {percent:>3}%  {msg}";

/// On standard error, or nowhere.
#[derive(Debug)]
pub(super) struct Progress(ProgressBar);

impl Progress {
    pub(super) fn new(shown: bool) -> Progress {
        let target =
            if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(1000), target);
        let style = ProgressStyle::with_template(LOOK).expect("the template is well formed");
        bar.set_style(style.progress_chars("=> "));
        Progress(bar)
    }

    pub(super) fn prepare(&self, what: &'static str) {
        self.0.set_prefix(what);
        self.0.tick();
    }

    /// How far a run has come.
    pub(super) fn show(&self, length: Length, elapsed: Duration, tally: &Tally) {
        if self.0.is_hidden() {
            return;
        }
        let counts = tally.counts();
        let done = tally.total();
        let part = match length {
            Length::Requests(total) => done as f64 / total as f64,
            Length::Time(time) => elapsed.as_secs_f64() / time.as_secs_f64().max(0.001),
        };
        self.0.set_prefix("running");
        self.0.set_position((part * 1000.0).min(1000.0) as u64);
        let rate = done as f64 / elapsed.as_secs_f64().max(0.001);
        let p99 = counts.rows.first().map_or(0, |row| row.latency_us.value_at_quantile(0.99));
        let errors: u64 = counts.errors.values().sum();
        let errors = if errors > 0 { format!(", {errors} errors") } else { String::new() };
        let p99 = gotext::duration(Duration::from_micros(p99));
        self.0.set_message(format!("{done} done, {rate:.0}/s, p99 {p99}{errors}"));
    }

    pub(super) fn finish(&self) {
        self.0.finish_and_clear();
    }
}

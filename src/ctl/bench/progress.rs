//! The progress bar of a bench, at a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{pace::RunLength, tally::Tally};
use crate::ctl::gotext;

const BAR_TEMPLATE: &str = "{prefix:>10} [{bar:30}] {percent:>3}%  {msg}";

/// On standard error, or nowhere.
#[derive(Debug)]
pub struct Progress(ProgressBar);

impl Progress {
    pub fn new(visible: bool) -> Progress {
        let target =
            if visible { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(1000), target);
        let style =
            ProgressStyle::with_template(BAR_TEMPLATE).expect("the template is well formed");
        bar.set_style(style.progress_chars("=> "));
        Progress(bar)
    }

    pub fn set_stage(&self, stage: &'static str) {
        self.0.set_prefix(stage);
        self.0.tick();
    }

    pub fn show(&self, length: RunLength, elapsed: Duration, tally: &Tally) {
        if self.0.is_hidden() {
            return;
        }
        let counts = tally.counts();
        let done = tally.total();
        let part = match length {
            RunLength::Requests(total) => done as f64 / total as f64,
            RunLength::Time(time) => elapsed.as_secs_f64() / time.as_secs_f64().max(0.001),
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

    pub fn finish(&self) {
        self.0.finish_and_clear();
    }
}

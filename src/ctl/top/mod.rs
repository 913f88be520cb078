//! `kvctl top`: a live view of the members of a cluster.
//!
//! [`sampler`] calls the members and fetches their metrics pages, [`view`] compares two samples, and
//! [`draw`] turns the result into a frame. The last two are pure; `--once` prints the same frame as
//! text.

mod draw;
mod pages;
mod sampler;
mod samples;
mod terminal;
#[cfg(test)]
mod tests;
mod view;

use std::{
    io::{IsTerminal as _, stdout},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use self::{
    draw::TopState,
    pages::MetricsAddress,
    sampler::Sampler,
    terminal::{KeyPresses, Press},
};
use super::{
    context::ClientConfig,
    error::{CtlError, exit},
    gotext::parse_duration,
    output::Output,
};

/// The width of a frame of --once without the variable COLUMNS.
const FRAME_WIDTH_DEFAULT: u16 = 150;
const INTERVAL_MIN: Duration = Duration::from_millis(250);
const INTERVAL_MAX: Duration = Duration::from_secs(64);

/// Shows the members of a cluster, live: role, term, log, lag, size, rates, watches, leases.
///
/// Keys: q quits, the arrows and tab select a member, + and - change the interval.
///
/// Rates and watches come from the members' metrics pages: on the client port (etcd), on port 2381
/// (kvd serve), or on the ports of kvd dev.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example:\n  kvctl top --endpoints kv-0:2379,kv-1:2379 --interval 2s")]
pub struct TopArgs {
    /// Print one frame as text, and exit
    #[arg(long)]
    once: bool,
    /// Time between two samples
    #[arg(long, default_value = "1s", value_parser = parse_duration, value_name = "TIME")]
    interval: Duration,
    /// Metrics pages: a port of all members, or the pages of the members in the order of their names
    #[arg(long, value_delimiter = ',', value_name = "PORT|URL,…")]
    metrics: Vec<MetricsAddress>,
}

impl TopArgs {
    pub fn check(&self) -> Result<(), CtlError> {
        if !self.once && !stdout().is_terminal() {
            return Err(CtlError::BadArguments(
                "kvctl top needs a terminal; kvctl top --once prints one frame as text".into(),
            ));
        }
        Ok(())
    }

    pub async fn run(
        self,
        config: &ClientConfig,
        columns: Option<u16>,
        output: &mut Output<'_>,
    ) -> Result<u8, CtlError> {
        let interval = self.interval.clamp(INTERVAL_MIN, INTERVAL_MAX);
        let mut sampler = Sampler::new(config, self.metrics);
        let first = sampler.sample().await;
        if self.once {
            // Without an answer there is nothing to compare.
            let answered = first.members.iter().any(|member| member.status.is_ok());
            if let Some(error) = first.unreachable() {
                return Err(CtlError::Client(error));
            }
            sleep(if answered { interval } else { Duration::ZERO }).await;
            let second = sampler.sample().await;
            let state =
                TopState { view: view::of(Some(&first), &second), selected: None, interval };
            output
                .stdout
                .write_all(draw::text(&state, columns.unwrap_or(FRAME_WIDTH_DEFAULT)).as_bytes())?;
            return Ok(exit::OK);
        }
        live(sampler, first, interval).await
    }
}

/// Draws until the user quits.
async fn live(
    mut sampler: Sampler,
    first: samples::Sample,
    interval: Duration,
) -> Result<u8, CtlError> {
    let mut terminal = terminal::Terminal::enter()?;
    let mut keys = KeyPresses::listen();
    let view = view::of(None, &first);
    let mut state = TopState { view, selected: Some(0), interval };
    let mut last = first;
    let mut due = Instant::now() + interval;
    loop {
        terminal.draw(|frame| draw::draw(frame, &state))?;
        let press = tokio::select! {
            press = keys.press() => press?,
            next = sampler.sample_at(due) => {
                state.view = view::of(Some(&last), &next);
                last = next;
                due = Instant::now() + state.interval;
                continue;
            }
        };
        match press {
            Press::Quit => return Ok(exit::OK),
            Press::Next => state.select(1),
            Press::Previous => state.select(-1),
            Press::Slower => state.interval = (state.interval * 2).min(INTERVAL_MAX),
            Press::Faster => state.interval = (state.interval / 2).max(INTERVAL_MIN),
            Press::Redraw => {}
        }
        due = due.min(Instant::now() + state.interval);
    }
}

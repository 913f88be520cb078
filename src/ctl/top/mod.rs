//! `kvctl top`: what the members of a cluster are doing, live.
//!
//! [`gather`] asks the members and their metrics pages, [`view`] compares two samples, and [`draw`]
//! turns that into a frame. The last two are pure; `--once` prints the same frame as text.

mod draw;
mod gather;
mod pages;
mod samples;
mod screen;
#[cfg(test)]
mod tests;
mod view;

use std::{
    io::{IsTerminal as _, stdout},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use self::{
    draw::Shown,
    gather::Gatherer,
    pages::Whereabouts,
    screen::{Keys, Press},
};
use super::{CtlError, error::exit, gotext::parse_duration, request::Connection, screen::Screen};

/// How wide a frame of --once is where COLUMNS does not say it.
const WIDTH: u16 = 150;
const INTERVAL_MIN: Duration = Duration::from_millis(250);
const INTERVAL_MAX: Duration = Duration::from_secs(64);

/// Shows the members of a cluster, live: role, term, log, lag, size, rates, watches, leases.
///
/// Keys: q quits, the arrows and tab select a member, + and - change the interval.
///
/// Rates and watches come from the members' metrics pages. They are looked for on the client's port
/// (etcd), on port 2381 (kvd serve) and where kvd dev has them.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example:\n  kvctl top --endpoints kv-0:2379,kv-1:2379 --interval 2s")]
pub(crate) struct TopArgs {
    /// Print one frame as text, and exit
    #[arg(long)]
    once: bool,
    /// How long from one look to the next
    #[arg(long, default_value = "1s", value_parser = parse_duration, value_name = "TIME")]
    interval: Duration,
    /// Where the metrics are: a port that all members have, or the pages of the members in order of
    /// their names
    #[arg(long, value_delimiter = ',', value_name = "PORT|URL,…")]
    metrics: Vec<Whereabouts>,
}

impl TopArgs {
    pub(crate) fn check(&self) -> Result<(), CtlError> {
        if !self.once && !stdout().is_terminal() {
            return Err(CtlError::BadArguments(
                "kvctl top needs a terminal; kvctl top --once prints one frame as text".into(),
            ));
        }
        Ok(())
    }

    pub(crate) async fn run(
        self,
        connection: &Connection,
        columns: Option<u16>,
        screen: &mut Screen<'_>,
    ) -> Result<u8, CtlError> {
        let interval = self.interval.clamp(INTERVAL_MIN, INTERVAL_MAX);
        let mut gatherer = Gatherer::new(connection, self.metrics);
        let first = gatherer.sample().await;
        if self.once {
            // Of members that do not answer there is nothing to compare.
            let answered = first.members.iter().any(|member| member.status.is_ok());
            if let Some(error) = first.unreachable() {
                return Err(CtlError::Client(error));
            }
            sleep(if answered { interval } else { Duration::ZERO }).await;
            let second = gatherer.sample().await;
            let shown = Shown { view: view::of(Some(&first), &second), selected: None, interval };
            screen.stdout.write_all(draw::text(&shown, columns.unwrap_or(WIDTH)).as_bytes())?;
            return Ok(exit::OK);
        }
        live(gatherer, first, interval).await
    }
}

/// Draws until somebody quits.
async fn live(
    mut gatherer: Gatherer,
    first: samples::Sample,
    interval: Duration,
) -> Result<u8, CtlError> {
    let mut terminal = screen::Terminal::enter()?;
    let mut keys = Keys::listen();
    let view = view::of(None, &first);
    let mut shown = Shown { view, selected: Some(0), interval };
    let mut last = first;
    let mut due = Instant::now() + interval;
    loop {
        terminal.draw(|frame| draw::draw(frame, &shown))?;
        let press = tokio::select! {
            press = keys.press() => press?,
            next = gatherer.sample_at(due) => {
                shown.view = view::of(Some(&last), &next);
                last = next;
                due = Instant::now() + shown.interval;
                continue;
            }
        };
        match press {
            Press::Quit => return Ok(exit::OK),
            Press::Next => shown.select(1),
            Press::Previous => shown.select(-1),
            Press::Slower => shown.interval = (shown.interval * 2).min(INTERVAL_MAX),
            Press::Faster => shown.interval = (shown.interval / 2).max(INTERVAL_MIN),
            Press::Redraw => {}
        }
        due = due.min(Instant::now() + shown.interval);
    }
}

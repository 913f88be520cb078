//! Watches and leases while members come and go: what a watcher that resumes has seen in the end is
//! the history, all of it and once; and a lease lives as long as it was promised.
//!
//! The watchers here are written on the bare protocol: each reads one stream, notes what comes, and
//! when the stream breaks opens another one on another member from the revision after the last it
//! saw, as etcd's clients do.

mod changes;
mod history;
mod leases;
mod watcher;

use std::env;

use ordinal::client::Timeouts;
use tokio::time::{Duration, Instant, sleep};

use crate::{
    cluster::{Cluster, LITTLE_LOG},
    dice::Dice,
};
use changes::Changes;
use history::History;
use watcher::{Watched, Watcher};

const CLIENTS: usize = 6;
const TIMEOUTS: Timeouts =
    Timeouts { dial: Duration::from_millis(500), command: Duration::from_secs(6) };

/// Members are killed `kills` times, one after another, while clients write, watchers watch and
/// leases come and go.
async fn watch_through(kills: usize) {
    let (mut dice, started) = (Dice::from_env(), Instant::now());
    let mut cluster = Cluster::start(3, &LITTLE_LOG).await;
    let changes = Changes::start(&cluster, CLIENTS, &mut dice);
    let leases = leases::Leases::start(&cluster, &mut dice);
    let watchers: Vec<Watcher> = Watched::of_every_kind()
        .into_iter()
        .map(|what| Watcher::start(&cluster, what, &mut dice))
        .collect();
    for kill in 0..kills {
        changes.progress(20).await;
        // One after another, the leader every other time.
        let victim = if kill % 2 == 0 { cluster.leader().await } else { dice.below(3) };
        cluster.members[victim].kill();
        leases.disturbed();
        sleep(Duration::from_millis(dice.below(600) as u64)).await;
        cluster.members[victim].start();
        cluster.members[victim].wait_ready().await;
        leases.disturbed();
    }
    changes.progress(20).await;
    let written = changes.stop().await;
    let lived = leases.stop().await;
    let end = final_revision(&cluster).await;

    let history = History::read(&cluster, end, &mut dice).await;
    history.check_against(&written);
    let (mut events, mut resumed) = (0, 0);
    for watcher in watchers {
        let seen = watcher.until(end).await;
        history.check_watcher(&seen);
        events += seen.events.len();
        resumed += seen.resumed;
    }
    println!(
        "{kills} kills in {:.0?}: {} revisions, {} acknowledged; {events} events seen, watchers \
         resumed {resumed} times; {lived}",
        started.elapsed(),
        end - 1,
        written.len(),
    );
}

/// The revision of a store that nobody writes to any more.
async fn final_revision(cluster: &Cluster) -> i64 {
    changes::put(&cluster.client(0, TIMEOUTS), "end", "of the history").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_that_resume_miss_and_repeat_nothing_through_kill_9() {
    watch_through(6).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes: `just crash`"]
async fn watch_crash_long() {
    let wanted: usize = env::var("KVD_CRASH_KILLS").map_or(100, |n| n.parse().unwrap());
    // A new cluster every so often keeps the history, which is compared whole, short.
    for done in (0..wanted).step_by(25) {
        watch_through((wanted - done).min(25)).await;
    }
}

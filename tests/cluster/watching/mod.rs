//! Watches and leases while members come and go: a watcher that resumes sees the whole history
//! once, and a lease lives as long as its TTL.
//!
//! The watchers use the bare protocol. Each reads one stream and records its events. When the
//! stream breaks, the watcher opens another one on another member, from the revision after the last
//! event, as etcd's clients do.

mod changes;
mod history;
mod leases;
mod watcher;

use std::env;

use ordinal::client::Timeouts;
use tokio::time::{Duration, Instant, sleep};

use crate::{
    cluster::harness::{Cluster, FREQUENT_SNAPSHOTS},
    support::{retry::with_retry, rng::Rng},
};
use changes::Changes;
use history::History;
use watcher::{Watched, Watcher};

const CLIENTS: usize = 6;
const TIMEOUTS: Timeouts =
    Timeouts { dial: Duration::from_millis(500), command: Duration::from_secs(6) };

/// Members are killed `kills` times, one after another, while clients write, watchers watch and
/// leases come and go.
async fn watch_through_kills(kills: usize) {
    let (mut rng, started) = (Rng::from_env(), Instant::now());
    let mut cluster = Cluster::start(3, &FREQUENT_SNAPSHOTS).await;
    let changes = Changes::start(&cluster, CLIENTS, &mut rng);
    let leases = leases::Leases::start(&cluster, &mut rng);
    let watchers: Vec<Watcher> = Watched::all_kinds()
        .into_iter()
        .map(|what| Watcher::start(&cluster, what, &mut rng))
        .collect();
    for kill in 0..kills {
        changes.progress(20).await;
        // The leader is the victim every other time.
        let victim = if kill % 2 == 0 { cluster.leader().await } else { rng.below(3) };
        cluster.members[victim].kill();
        leases.disturbed();
        sleep(Duration::from_millis(rng.below(600) as u64)).await;
        cluster.members[victim].start();
        cluster.members[victim].wait_ready().await;
        leases.disturbed();
    }
    changes.progress(20).await;
    let written = changes.stop().await;
    let lived = leases.stop().await;
    let end = final_revision(&cluster).await;

    let history = History::read(&cluster, end, &mut rng).await;
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

/// The revision of a store without writers.
async fn final_revision(cluster: &Cluster) -> i64 {
    changes::put(&cluster.client(0, TIMEOUTS), "end", "of the history").await
}

#[test]
fn watches_that_resume_miss_and_repeat_nothing_through_kill_9() {
    with_retry(async || {
        watch_through_kills(6).await;
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes: `just crash`"]
async fn watch_crash_long() {
    let wanted: usize = env::var("KVD_CRASH_KILLS").map_or(100, |n| n.parse().unwrap());
    // A new cluster every 25 kills keeps the history short, which is compared as a whole.
    for done in (0..wanted).step_by(25) {
        watch_through_kills((wanted - done).min(25)).await;
    }
}

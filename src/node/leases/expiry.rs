//! The task that ends leases, while this member leads.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{lessor::Lessor, timers::Due};
use crate::{
    proto::convert,
    raft::{LeadershipWatch, Raft},
    stop::Stopping,
    types::{Command, Term},
};

/// Between two entries of expiry and checkpoints: what is due meanwhile shares the next one, and a
/// hundred thousand leases that end at once leave room for writes.
const PACE: Duration = Duration::from_millis(50);

/// Runs until told to stop, or Raft has stopped.
pub(in crate::node) async fn run(raft: Raft, lessor: Arc<Lessor>, mut stopping: Stopping) {
    let mut leadership = raft.watch_leadership();
    loop {
        let now = leadership.now();
        if now.is_mine() {
            tokio::select! {
                () = stopping.wait() => break,
                goes_on = deposed(&mut leadership, now.term) => if !goes_on { break },
                () = lead(&raft, &lessor, now.term) => {}
            }
            lessor.end();
        } else {
            tokio::select! {
                () = stopping.wait() => break,
                changed = leadership.changed() => if changed.is_none() { break },
            }
        }
    }
    lessor.end();
}

/// Waits until this member does not lead `term` any more. False: nor anything else, ever.
async fn deposed(leadership: &mut LeadershipWatch, term: Term) -> bool {
    while let Some(now) = leadership.changed().await {
        if !now.is_mine() || now.term != term {
            return true;
        }
    }
    false
}

/// Returns only if the lessor has lost its leases.
async fn lead(raft: &Raft, lessor: &Lessor, term: Term) {
    catch_up(raft).await;
    lessor.begin(term, raft.view());
    while lessor.leads(term) {
        match lessor.next_alarm() {
            Some(alarm) if alarm <= Instant::now() => {}
            Some(alarm) => tokio::select! {
                () = sleep_until(alarm) => {}
                () = lessor.moved() => continue,
            },
            None => {
                lessor.moved().await;
                continue;
            }
        }
        let woken = Instant::now();
        catch_up(raft).await;
        if woken.elapsed() > PACE {
            // Renewals have waited for that, too: they go first.
            sleep(PACE).await;
        }
        // Behind, this member would only fall further behind.
        if !raft.is_full() {
            let due = lessor.due(Instant::now(), |id| raft.view().lease_key_count(id));
            if !due.is_empty() {
                propose(raft, term, due).await;
            }
        }
        sleep(PACE).await;
    }
}

/// Waits until this member has proved that it leads, and has applied all that was committed before.
/// Sooner it does not know which leases there are, what is left of them, and who has renewed them.
async fn catch_up(raft: &Raft) {
    loop {
        if let Ok(index) = raft.read_index().await
            && raft.applied_at_least(index).await.is_ok()
        {
            return;
        }
        sleep(PACE).await;
    }
}

/// Whatever the outcome: what became of the leases, the lessor is told by the state. What is still
/// there is due again in a while.
async fn propose(raft: &Raft, term: Term, Due { ended, checkpoints }: Due) {
    tracing::debug!(ended = ended.len(), checkpoints = checkpoints.len(), "leases are due");
    let mut commands = Vec::new();
    if !ended.is_empty() {
        commands.push(Command::LeaseExpire { term, leases: ended });
    }
    if !checkpoints.is_empty() {
        commands.push(Command::LeaseCheckpoint { term, checkpoints });
    }
    let proposed = raft.propose(convert::encode_commands(commands));
    match timeout(raft.timing().request_timeout(), proposed).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::debug!(%error, "leases that are due were not ended"),
        Err(_) => tracing::debug!("leases that are due were not ended in time"),
    }
}

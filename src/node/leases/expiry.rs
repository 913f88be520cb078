//! The task that proposes the end of due leases, while this member leads.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{lessor::Lessor, timers::Due};
use crate::{
    proto::convert,
    raft::{LeadershipWatch, Raft},
    shutdown::ShutdownSignal,
    types::{Command, Term},
};

/// Interval between two entries of expiry and checkpoints. Leases that become due meanwhile share the
/// next entry, and a hundred thousand leases that end at once leave room for writes.
const EXPIRY_INTERVAL: Duration = Duration::from_millis(50);

/// Runs until shutdown, or until Raft has stopped.
pub async fn run(raft: Raft, lessor: Arc<Lessor>, mut shutdown: ShutdownSignal) {
    let mut leadership = raft.watch_leadership();
    loop {
        let now = leadership.now();
        if now.is_mine() {
            tokio::select! {
                () = shutdown.wait() => break,
                goes_on = deposed(&mut leadership, now.term) => if !goes_on { break },
                () = lead(&raft, &lessor, now.term) => {}
            }
            lessor.stop_leading();
        } else {
            tokio::select! {
                () = shutdown.wait() => break,
                changed = leadership.changed() => if changed.is_none() { break },
            }
        }
    }
    lessor.stop_leading();
}

/// Waits until this member no longer leads `term`. False: Raft has stopped.
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
    lessor.start_leading(term, raft.view());
    while lessor.leads(term) {
        match lessor.next_check() {
            Some(check) if check <= Instant::now() => {}
            Some(check) => tokio::select! {
                () = sleep_until(check) => {}
                () = lessor.next_check_changed() => continue,
            },
            None => {
                lessor.next_check_changed().await;
                continue;
            }
        }
        let woken = Instant::now();
        catch_up(raft).await;
        if woken.elapsed() > EXPIRY_INTERVAL {
            // Renewals have waited for the read index, too: they go first.
            sleep(EXPIRY_INTERVAL).await;
        }
        // More entries would only put a member that is behind further behind.
        if !raft.is_write_buffer_full() {
            let due = lessor.due(Instant::now(), |id| raft.view().lease_key_count(id));
            if !due.is_empty() {
                propose(raft, term, due).await;
            }
        }
        sleep(EXPIRY_INTERVAL).await;
    }
}

/// Waits until this member has confirmed that it leads, and has applied all that was committed before.
/// Until then it does not know which leases exist, how long they live, and which were renewed.
async fn catch_up(raft: &Raft) {
    loop {
        if let Ok(index) = raft.read_index().await
            && raft.wait_applied(index).await.is_ok()
        {
            return;
        }
        sleep(EXPIRY_INTERVAL).await;
    }
}

/// The lessor learns the outcome from the state. A lease that is not ended is due again later.
async fn propose(raft: &Raft, term: Term, Due { ended, checkpoints }: Due) {
    tracing::debug!(ended = ended.len(), checkpoints = checkpoints.len(), "leases due");
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
        Ok(Err(error)) => tracing::debug!(%error, "lease expiry not applied"),
        Err(_) => tracing::debug!("lease expiry timed out"),
    }
}

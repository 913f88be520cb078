//! Replay: applies the committed part of the log before Raft runs.

use super::{convert, error::StartError, state_machine::StateMachineAdapter};
use crate::wal::Log;

/// Approximate bytes of log per read.
const REPLAY_READ_BYTES: usize = 4 << 20;

/// Applies every entry up to the commit mark of the log.
pub async fn replay(log: &Log, machine: &StateMachineAdapter) -> Result<(), StartError> {
    let failed = |e: &dyn std::fmt::Display| StartError::Replay(e.to_string());
    let Some(committed) = log.hard_state().committed else { return Ok(()) };
    let mut next = machine.view.applied().map_or(0, |p| p.index + 1);
    if next <= committed.index {
        tracing::info!(from = next, to = committed.index, "replaying the log");
    }
    while next <= committed.index {
        let entries =
            log.read(next..committed.index + 1, REPLAY_READ_BYTES).await.map_err(|e| failed(&e))?;
        if entries.is_empty() {
            return Err(StartError::Replay(format!("log entry {next} is missing")));
        }
        next += entries.len() as u64;
        let entries = entries
            .into_iter()
            .map(|e| convert::entry_from_domain(e).map(|e| (e, None)))
            .collect::<Result<_, _>>()
            .map_err(|e| failed(&e))?;
        machine.apply_chunk(entries).await.map_err(|e| failed(&e))?;
    }
    Ok(())
}

//! The signals that end a process: SIGINT (Ctrl-C) and SIGTERM (Kubernetes).

use std::io;

use tokio::signal::unix::{SignalKind, signal};

/// Resolves on the first of them. The second one ends the process at once, for the impatient.
pub(super) fn termination() -> io::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => tracing::info!("interrupted: stopping"),
            _ = terminate.recv() => tracing::info!("asked to terminate: stopping"),
        }
        tokio::spawn(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            tracing::warn!("asked again: ending at once");
            std::process::exit(130);
        });
    })
}

//! The signals that end a process: SIGINT (Ctrl-C) and SIGTERM (Kubernetes).

use std::io;

use tokio::signal::unix::{SignalKind, signal};

/// Resolves at the first signal. The second one ends the process at once.
pub fn termination() -> io::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => tracing::info!("SIGINT received: stopping"),
            _ = terminate.recv() => tracing::info!("SIGTERM received: stopping"),
        }
        tokio::spawn(async move {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            tracing::warn!("second signal received: exiting at once");
            std::process::exit(130);
        });
    })
}

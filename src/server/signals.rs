//! The signals that end a process: SIGINT (Ctrl-C) and SIGTERM (Kubernetes).
//!
//! The first signal begins the shutdown. A SIGTERM after it does not end the process: the shutdown is bounded
//! without it, and etcd ignores it too. (The kubelet may send one when it shortens the grace period.) A
//! SIGINT after it does: a person who presses Ctrl-C twice does not want to wait.

use std::io;

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};

/// Exit code of a process that SIGINT ends.
const INTERRUPTED: i32 = 128 + 2;

/// A future that resolves at the first signal, and the number of SIGTERMs after it.
pub fn termination() -> io::Result<(impl Future<Output = ()>, watch::Receiver<u32>)> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let (repeated, repetitions) = watch::channel(0);
    let first = async move {
        tokio::select! {
            _ = interrupt.recv() => tracing::info!("SIGINT received: stopping"),
            _ = terminate.recv() => tracing::info!("SIGTERM received: stopping"),
        }
        tokio::spawn(later_signals(interrupt, terminate, repeated));
    };
    Ok((first, repetitions))
}

/// Runs until the process ends.
async fn later_signals(mut interrupt: Signal, mut terminate: Signal, repeated: watch::Sender<u32>) {
    loop {
        tokio::select! {
            Some(()) = interrupt.recv() => {
                tracing::warn!("SIGINT received while stopping: exiting at once");
                std::process::exit(INTERRUPTED);
            }
            Some(()) = terminate.recv() => {
                tracing::info!("SIGTERM received again: already stopping");
                repeated.send_modify(|count| *count += 1);
            }
            else => return,
        }
    }
}

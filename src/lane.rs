//! Lanes: loops that may block (fsync, sled, apply), each with one owner.
//!
//! In production a lane is an OS thread. In a simulation the same loop is a task on the simulator's
//! runtime, which decides the interleaving. A lane passes all messages in its queue to its handler in
//! one batch, and ends when all senders are gone.
//!
//! Invariants: a handler never waits for another lane (in a simulation they share one thread); the
//! senders of a lane bound their messages in flight, and so its queue; the owner of a lane joins it.

use std::{io, thread};

use tokio::sync::mpsc;

/// The execution of lanes: in production threads, in simulations tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lanes {
    /// One OS thread per lane.
    Threads,
    /// One task per lane, on the current runtime.
    #[cfg_attr(not(test), expect(dead_code, reason = "simulations run in tests"))]
    Tasks,
}

/// A running lane. Its owner must join it.
#[derive(Debug)]
pub struct Lane(Running);

#[derive(Debug)]
enum Running {
    Thread(tokio::sync::oneshot::Receiver<()>, thread::JoinHandle<()>),
    Task(tokio::task::JoinHandle<()>),
}

/// Bound on messages per batch.
const BATCH_MESSAGES_MAX: usize = 4096;

impl Lanes {
    /// Starts a lane that passes the messages of `inbox` to `handle` in batches.
    #[expect(clippy::disallowed_methods, reason = "lanes are the place where threads are made")]
    pub fn start<T: Send + 'static>(
        self,
        name: &str,
        mut inbox: mpsc::UnboundedReceiver<T>,
        mut handle: impl FnMut(&mut Vec<T>) + Send + 'static,
    ) -> io::Result<Lane> {
        let mut batch = Vec::new();
        Ok(Lane(match self {
            Lanes::Threads => {
                let (ended, end) = tokio::sync::oneshot::channel();
                let body = move || {
                    while inbox.blocking_recv_many(&mut batch, BATCH_MESSAGES_MAX) > 0 {
                        handle(&mut batch);
                        batch.clear();
                    }
                    drop(handle);
                    drop(ended);
                };
                Running::Thread(end, thread::Builder::new().name(name.into()).spawn(body)?)
            }
            Lanes::Tasks => Running::Task(tokio::spawn(async move {
                while inbox.recv_many(&mut batch, BATCH_MESSAGES_MAX).await > 0 {
                    handle(&mut batch);
                    batch.clear();
                }
            })),
        }))
    }
}

impl Lanes {
    /// Runs work that may block, and returns its result; `None` if it panicked.
    #[expect(clippy::disallowed_methods, reason = "lanes are the place where threads are made")]
    pub async fn run<R: Send + 'static>(
        self,
        name: &str,
        work: impl FnOnce() -> R + Send + 'static,
    ) -> io::Result<Option<R>> {
        match self {
            Lanes::Threads => {
                let (done, result) = tokio::sync::oneshot::channel();
                let body = move || {
                    // The caller may be gone.
                    let _ = done.send(work());
                };
                thread::Builder::new().name(name.into()).spawn(body)?;
                Ok(result.await.ok())
            }
            Lanes::Tasks => Ok(Some(work())),
        }
    }
}

impl Lane {
    /// Waits until the lane has handled all messages and ended. Its senders must be dropped, now or
    /// soon.
    pub async fn join(self) {
        match self.0 {
            Running::Thread(end, thread) => {
                // The lane only ever drops the sender: an error means that it has ended.
                let _ = end.await;
                if thread.join().is_err() {
                    tracing::error!("lane panicked");
                }
            }
            Running::Task(task) => {
                if task.await.is_err() {
                    tracing::error!("lane panicked");
                }
            }
        }
    }
}

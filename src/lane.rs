//! Lanes: the loops that may block (fsync, sled, applying), each with one owner.
//!
//! In production a lane is an OS thread; in a simulation the same loop is a task on the one
//! runtime, so that its interleaving is the simulator's to choose. A lane takes *everything* that
//! waits in its queue at once, hands it to its handler, and ends when all senders are gone.
//!
//! Invariants: a handler never waits for another lane (in a simulation they share one thread);
//! a lane's queue is bounded by what its senders may have in flight; its owner joins it.

use std::{io, thread};

use tokio::sync::mpsc;

/// How lanes run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lanes {
    /// An OS thread each.
    Threads,
    /// A task each, on the current runtime.
    Tasks,
}

/// A running lane. Whoever holds it joins it.
#[derive(Debug)]
pub struct Lane(Running);

#[derive(Debug)]
enum Running {
    Thread(tokio::sync::oneshot::Receiver<()>, thread::JoinHandle<()>),
    Task(tokio::task::JoinHandle<()>),
}

/// At most so many messages are handed over at once.
const BATCH_MAX: usize = 4096;

impl Lanes {
    /// Starts a lane that gives `handle` all that waits in `inbox`, again and again.
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
                    while inbox.blocking_recv_many(&mut batch, BATCH_MAX) > 0 {
                        handle(&mut batch);
                        batch.clear();
                    }
                    drop(handle);
                    drop(ended);
                };
                Running::Thread(end, thread::Builder::new().name(name.into()).spawn(body)?)
            }
            Lanes::Tasks => Running::Task(tokio::spawn(async move {
                while inbox.recv_many(&mut batch, BATCH_MAX).await > 0 {
                    handle(&mut batch);
                    batch.clear();
                }
            })),
        }))
    }
}

impl Lanes {
    /// Runs one piece of work that may block, and gives what it returned; `None` if it panicked.
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
                    // Nobody waits any more: then nobody wants the result.
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
    /// Waits until the lane has handled everything and ended. Its senders must be gone or going.
    pub async fn join(self) {
        match self.0 {
            Running::Thread(end, thread) => {
                // The sender side is only ever dropped: an error here is the end.
                let _ = end.await;
                if thread.join().is_err() {
                    tracing::error!("a lane panicked");
                }
            }
            Running::Task(task) => {
                if task.await.is_err() {
                    tracing::error!("a lane panicked");
                }
            }
        }
    }
}

//! Requests to the state-writer lane.

use std::sync::{Arc, Mutex};

use tokio::sync::{mpsc, oneshot};

use crate::{
    storage::{
        error::StoreError, incoming::IncomingFiles, recovered_state::RecoveredState,
        snapshot::SnapshotRef, waker::WakeWriter,
    },
    types::LogPosition,
};

pub type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// A request to the lane. Its inbox is bounded by its senders: each waits for the reply, and
/// [`WriterMessage::Wake`] is sent only if none is queued (see [`Pending`]).
///
/// [`Pending`]: crate::storage::pending::Pending
#[derive(Debug)]
pub enum WriterMessage {
    /// There may be work.
    Wake,
    Flush(Reply<Option<LogPosition>>),
    Snapshot(Reply<SnapshotRef>),
    Install(Arc<Mutex<IncomingFiles>>, Reply<RecoveredState>),
    Close(Reply<()>),
}

/// Weak, so that the lane ends when the store's handle drops its sender.
#[derive(Debug)]
pub struct WriterWaker(pub mpsc::WeakUnboundedSender<WriterMessage>);

impl WakeWriter for WriterWaker {
    fn wake(&self) {
        if let Some(writer) = self.0.upgrade() {
            // A lane that has ended has nothing left to write.
            let _ = writer.send(WriterMessage::Wake);
        }
    }
}

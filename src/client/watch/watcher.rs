//! The caller's end of a watch.

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::{
    sync::{Notify, mpsc},
    task::JoinHandle,
};

use super::{
    super::core::Client,
    request::Watch,
    task::{UpdateResult, WatchTask},
    update::{EventBatch, WatchError, WatchUpdate},
};
use crate::proto::etcdserverpb::ResponseHeader;

/// Updates that wait for a slow caller. Beyond, updates wait in the connection, and then at the member.
const QUEUED_UPDATES_MAX: usize = 16;

/// A watch. Dropping it cancels the watch.
#[derive(Debug)]
pub struct Watcher {
    created: ResponseHeader,
    updates: mpsc::Receiver<UpdateResult>,
    progress_request: Arc<Notify>,
    /// The error that ended the watch.
    end: Option<WatchError>,
    task: JoinHandle<()>,
}

impl Client {
    /// Watches keys: a [`Watch`], or just [`Keys`](super::super::Keys). Returns when a member has created
    /// the watch; from then on, the watch misses no event.
    ///
    /// # Errors
    /// If no endpoint accepts the watch, or one refuses it, for instance because the start revision is
    /// compacted.
    pub async fn watch(&self, watch: impl Into<Watch>) -> Result<Watcher, WatchError> {
        let (sender, updates) = mpsc::channel(QUEUED_UPDATES_MAX);
        let progress_request = Arc::new(Notify::new());
        let started =
            WatchTask::start(self.clone(), watch.into(), sender, progress_request.clone()).await;
        let (task, stream, created) = started?;
        let task = tokio::spawn(task.run(stream));
        Ok(Watcher { created, updates, progress_request, end: None, task })
    }
}

impl Watcher {
    /// The header of the member's response when it created the watch. Without a start revision, events
    /// start after this header's revision.
    pub fn created(&self) -> &ResponseHeader {
        &self.created
    }

    /// The next events. Cancel-safe.
    ///
    /// # Errors
    /// Once the watch has ended: the same error from then on.
    pub async fn next(&mut self) -> Result<EventBatch, WatchError> {
        loop {
            if let WatchUpdate::Events(batch) = self.next_update().await? {
                return Ok(batch);
            }
        }
    }

    /// As [`next`](Self::next), but also returns progress and interruptions.
    ///
    /// # Errors
    /// Once the watch has ended: the same error from then on.
    pub async fn next_update(&mut self) -> Result<WatchUpdate, WatchError> {
        poll_fn(|context| self.poll_update(context)).await
    }

    /// As [`next_update`](Self::next_update), for callers that poll many watches.
    pub fn poll_update(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<WatchUpdate, WatchError>> {
        if let Some(error) = &self.end {
            return Poll::Ready(Err(error.clone()));
        }
        let update = ready!(self.updates.poll_recv(context)).unwrap_or_else(|| {
            // The task ends without an error only if it panicked.
            let reason = "the watch stopped by itself".into();
            Err(WatchError::Canceled { header: self.created, reason })
        });
        if let Err(error) = &update {
            self.end = Some(error.clone());
        }
        Poll::Ready(update)
    }

    /// Requests the progress of the watch; the answer is a [`WatchUpdate::Progress`].
    pub fn request_progress(&self) {
        self.progress_request.notify_one();
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

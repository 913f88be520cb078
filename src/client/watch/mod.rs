//! Watches that outlive connections and members.
//!
//! A [`Watcher`] gives each event of its keys once, in the order of revisions, a revision whole.
//! When the connection breaks, or the member has no leader any more, it goes on at the next
//! endpoint from where it was; only a compaction of that place, or a refusal, ends it.

mod assembly;
mod follow;
mod request;
mod stream;
#[cfg(test)]
mod tests;

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::{
    sync::{Notify, mpsc},
    task::JoinHandle,
};

use self::follow::{Follower, Told};
pub use self::request::Watch;
pub(crate) use self::stream::WatchStream;
use super::{Client, ClientError};
use crate::proto::{
    etcdserverpb::{ResponseHeader, WatchResponse},
    mvccpb::Event,
};

/// Batches that wait for a caller who is busy. When they are so many, the rest waits in the
/// connection, and then at the member.
const WAITING_MAX: usize = 16;

/// A watch. Dropping it ends it.
#[derive(Debug)]
pub struct Watcher {
    created: ResponseHeader,
    told: mpsc::Receiver<Told>,
    progress: Arc<Notify>,
    /// What ended it.
    ended: Option<WatchError>,
    follower: JoinHandle<()>,
}

/// Events of one or several whole revisions, in their order.
#[derive(Debug, Clone, PartialEq)]
pub struct EventBatch {
    /// Its revision may be ahead of the events': they may be of long ago.
    pub header: ResponseHeader,
    /// At least one.
    pub events: Vec<Event>,
}

/// All that can be told of a watch.
#[derive(Debug, Clone)]
pub enum Notice {
    Events(EventBatch),
    /// Everything up to the revision of this header was told.
    Progress(ResponseHeader),
    /// The stream broke; the watch goes on by itself from this revision as soon as a member
    /// answers.
    Interrupted {
        error: ClientError,
        from: i64,
    },
    /// The watch goes on, at this endpoint.
    Resumed {
        endpoint: String,
    },
}

/// Why a watch cannot go on.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WatchError {
    /// Events that the watch has not seen are gone.
    #[error(
        "etcdserver: mvcc: required revision has been compacted: the watch needs revision {from}, \
         and the oldest that there is is {compact_revision}"
    )]
    Compacted {
        header: ResponseHeader,
        /// The first revision that was not seen.
        from: i64,
        /// The first that can still be watched.
        compact_revision: i64,
    },
    /// A member ended it, and says why.
    #[error("{reason}")]
    Canceled { header: ResponseHeader, reason: String },
    /// No member takes it, or all refuse it.
    #[error(transparent)]
    Client(#[from] ClientError),
}

impl Client {
    /// Watches keys: a [`Watch`], or just [`Keys`](super::Keys). Answers when a member has taken
    /// the watch; from then on nothing that happens is missed.
    ///
    /// # Errors
    /// If no endpoint takes it, or one refuses it, for instance because its history is compacted.
    pub async fn watch(&self, watch: impl Into<Watch>) -> Result<Watcher, WatchError> {
        let (tx, told) = mpsc::channel(WAITING_MAX);
        let progress = Arc::new(Notify::new());
        let begun = Follower::begin(self.clone(), watch.into(), tx, progress.clone()).await;
        let (follower, stream, created) = begun?;
        let follower = tokio::spawn(follower.run(stream));
        Ok(Watcher { created, told, progress, ended: None, follower })
    }
}

impl Watcher {
    /// What the member said when it took the watch. Without a start revision, events begin after
    /// this header's revision.
    pub fn created(&self) -> &ResponseHeader {
        &self.created
    }

    /// The next events. May be dropped while it waits, and called again.
    ///
    /// # Errors
    /// Once the watch has ended: always the same.
    pub async fn next(&mut self) -> Result<EventBatch, WatchError> {
        loop {
            if let Notice::Events(batch) = self.notice().await? {
                return Ok(batch);
            }
        }
    }

    /// As [`next`](Self::next), but tells also of progress and interruptions.
    ///
    /// # Errors
    /// Once the watch has ended: always the same.
    pub async fn notice(&mut self) -> Result<Notice, WatchError> {
        poll_fn(|context| self.poll_notice(context)).await
    }

    /// As [`notice`](Self::notice), for whoever has many watches and waits for all of them.
    pub fn poll_notice(&mut self, context: &mut Context<'_>) -> Poll<Result<Notice, WatchError>> {
        if let Some(error) = &self.ended {
            return Poll::Ready(Err(error.clone()));
        }
        let told = ready!(self.told.poll_recv(context)).unwrap_or_else(|| {
            // Only a panic of the task ends it without a last word.
            let reason = "the watch stopped by itself".into();
            Err(WatchError::Canceled { header: self.created, reason })
        });
        if let Err(error) = &told {
            self.ended = Some(error.clone());
        }
        Poll::Ready(told)
    }

    /// Asks how far the watch has come; the answer is a [`Notice::Progress`].
    pub fn request_progress(&self) {
        self.progress.notify_one();
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

impl WatchError {
    /// Why a member canceled a watch that needs revision `from` next.
    fn of(answer: WatchResponse, from: i64) -> WatchError {
        let header = answer.header.unwrap_or_default();
        if answer.compact_revision > 0 {
            return WatchError::Compacted {
                header,
                from,
                compact_revision: answer.compact_revision,
            };
        }
        let reason = match answer.cancel_reason.as_str() {
            "" => "the member canceled the watch and does not say why".into(),
            _ => answer.cancel_reason,
        };
        WatchError::Canceled { header, reason }
    }
}

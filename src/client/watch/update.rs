//! The updates of a watch, and the errors that end it.

use super::super::error::ClientError;
use crate::proto::{
    etcdserverpb::{ResponseHeader, WatchResponse},
    mvccpb::Event,
};

/// The events of one or several whole revisions, in order.
#[derive(Debug, Clone, PartialEq)]
pub struct EventBatch {
    /// Its revision may be later than those of the events: events may come from the history.
    pub header: ResponseHeader,
    /// At least one.
    pub events: Vec<Event>,
}

#[derive(Debug, Clone)]
pub enum WatchUpdate {
    Events(EventBatch),
    /// The watch has returned all events up to the revision of this header.
    Progress(ResponseHeader),
    /// The stream broke. The watch resumes from this revision as soon as a member accepts it.
    Interrupted {
        error: ClientError,
        from: i64,
    },
    /// The watch has resumed at this endpoint.
    Resumed {
        endpoint: String,
    },
}

/// Why a watch ended.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WatchError {
    /// A compaction removed events that the watch has not returned.
    #[error(
        "etcdserver: mvcc: required revision has been compacted: the watch needs revision {from}, \
         the oldest available is {compact_revision}"
    )]
    Compacted {
        header: ResponseHeader,
        /// The first revision that the watch has not returned.
        from: i64,
        /// The first revision at which a watch can start.
        compact_revision: i64,
    },
    /// A member canceled the watch.
    #[error("{reason}")]
    Canceled { header: ResponseHeader, reason: String },
    /// A member refuses the watch, or none accepts it.
    #[error(transparent)]
    Client(#[from] ClientError),
}

impl WatchError {
    /// The error for a canceled response to a watch whose next revision is `from`.
    pub(super) fn of_canceled(response: WatchResponse, from: i64) -> WatchError {
        let header = response.header.unwrap_or_default();
        if response.compact_revision > 0 {
            return WatchError::Compacted {
                header,
                from,
                compact_revision: response.compact_revision,
            };
        }
        let reason = match response.cancel_reason.as_str() {
            "" => "the member canceled the watch without a reason".into(),
            _ => response.cancel_reason,
        };
        WatchError::Canceled { header, reason }
    }
}

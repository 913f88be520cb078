//! The request for a watch.

use crate::{
    client::keys::Keys,
    proto::etcdserverpb::{
        WatchCreateRequest, WatchRequest, watch_create_request::FilterType,
        watch_request::RequestUnion,
    },
};

/// The keys of a watch, its start revision, and its options. By default: all events from now on.
///
/// ```
/// use ordinal::client::{Keys, Watch};
/// let since = Watch::new(Keys::prefix("config/")).from_revision(42).with_prev_kv();
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Watch(WatchCreateRequest);

impl Watch {
    pub fn new(keys: impl Into<Keys>) -> Watch {
        let (key, range_end) = keys.into().bounds();
        // The assembler joins fragments, so large revisions may be fragmented.
        Watch(WatchCreateRequest { key, range_end, fragment: true, ..Default::default() })
    }

    /// Starts with this revision. Zero: with the next revision after the creation of the watch.
    pub fn from_revision(mut self, revision: i64) -> Watch {
        self.0.start_revision = revision;
        self
    }

    /// Each event has the previous value in `prev_kv`.
    pub fn with_prev_kv(mut self) -> Watch {
        self.0.prev_kv = true;
        self
    }

    /// Filters deletions out.
    pub fn only_puts(mut self) -> Watch {
        self.0.filters.push(FilterType::Nodelete.into());
        self
    }

    /// Filters puts out.
    pub fn only_deletes(mut self) -> Watch {
        self.0.filters.push(FilterType::Noput.into());
        self
    }

    /// The member sends progress notifications while the watch is idle. They advance the revision from
    /// which the watch would resume, so that a compaction does not overtake it.
    pub fn with_progress(mut self) -> Watch {
        self.0.progress_notify = true;
        self
    }

    pub(super) fn start_revision(&self) -> i64 {
        self.0.start_revision
    }

    pub(super) fn create(&self) -> WatchRequest {
        let create = RequestUnion::CreateRequest(self.0.clone());
        WatchRequest { request_union: Some(create) }
    }
}

impl From<Watch> for WatchRequest {
    fn from(watch: Watch) -> WatchRequest {
        watch.create()
    }
}

impl<K: Into<Keys>> From<K> for Watch {
    fn from(keys: K) -> Watch {
        Watch::new(keys)
    }
}

//! What to watch.

use crate::{
    client::keys::Keys,
    proto::etcdserverpb::{
        WatchCreateRequest, WatchRequest, watch_create_request::FilterType,
        watch_request::RequestUnion,
    },
};

/// What to hear of, and from when on. Keys alone are a watch of all that happens to them from now
/// on.
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
        // What is too large for one message may come in several: a batch is whole again.
        Watch(WatchCreateRequest { key, range_end, fragment: true, ..Default::default() })
    }

    /// Events of this revision, and all after it. Zero: those after the watch was made.
    pub fn from_revision(mut self, revision: i64) -> Watch {
        self.0.start_revision = revision;
        self
    }

    /// Each event tells what was there before.
    pub fn with_prev_kv(mut self) -> Watch {
        self.0.prev_kv = true;
        self
    }

    /// Without the deletions.
    pub fn only_puts(mut self) -> Watch {
        self.0.filters.push(FilterType::Nodelete.into());
        self
    }

    /// Without the puts.
    pub fn only_deletes(mut self) -> Watch {
        self.0.filters.push(FilterType::Noput.into());
        self
    }

    /// The member says now and then how far the watch has come, also if nothing happens. A watch
    /// that is resumed then starts from there: its place is not compacted so soon.
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

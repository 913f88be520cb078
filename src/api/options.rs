//! Bounds on requests and messages.

use std::time::Duration;

/// Bounds on a request; the defaults are etcd's.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// The maximum size of an encoded write request, in bytes.
    pub max_request_bytes: usize,
    /// The maximum number of operations on the longest path through a transaction. Each level counts the
    /// longest of its three lists (compare, success, failure), and nested transactions add theirs.
    pub max_txn_ops: usize,
    /// Interval between progress notifications on idle watches.
    pub watch_progress_interval: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            max_request_bytes: 1536 * 1024,
            max_txn_ops: 128,
            watch_progress_interval: Duration::from_secs(600),
        }
    }
}

/// etcd's allowance for the parts of a message other than keys and values. Between the two bounds, the
/// service refuses a request, with a text; beyond, the transport does.
const MESSAGE_OVERHEAD_BYTES: usize = 512 * 1024;

/// The maximum message on long-lived streams. The decoder's buffer stays as large as the largest message,
/// and there may be thousands of streams. A lease is a number. A watch names two keys; only keys in
/// uncompressed messages may be longer.
pub const STREAM_MESSAGE_BYTES_MAX: usize = 16 * 1024;

/// The maximum message for a given maximum request. Also the size of watch fragments.
pub fn message_bytes_max(max_request_bytes: usize) -> usize {
    max_request_bytes.saturating_add(MESSAGE_OVERHEAD_BYTES)
}

//! Counts the bytes that the transport has taken from a stream and not sent yet.
//!
//! HTTP/2 holds these bytes in memory while the client does not read, so they count like the bytes
//! queued in the stream's outbox. A stream hands over only a little at a time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use futures_util::task::AtomicWaker;

use super::counters::Counters;
use crate::metrics::ByteAccount;

/// With more in flight, a stream hands nothing over until the transport has sent some. Large enough
/// that the transport does not run dry while the stream's task wakes up.
const INFLIGHT_BYTES_MAX: usize = 256 << 10;
/// The bytes that a stream assembles at once. Smaller while the streams' common bound is nearly reached.
const ASSEMBLE_BYTES: std::ops::RangeInclusive<usize> = 1 << 10..=16 << 10;

/// The bytes in flight of one stream.
#[derive(Debug)]
pub struct InflightBytes {
    bytes: AtomicUsize,
    sent: AtomicWaker,
    counters: Arc<Counters>,
}

impl InflightBytes {
    pub fn new(counters: Arc<Counters>) -> InflightBytes {
        InflightBytes { bytes: AtomicUsize::new(0), sent: AtomicWaker::new(), counters }
    }

    /// Ready with the number of bytes that the stream may assemble now. With nothing in flight always
    /// ready, however small the stream's share: otherwise the stream would never continue.
    pub fn poll_capacity(&self, share: usize, cx: &mut Context<'_>) -> Poll<usize> {
        let bytes = share.clamp(*ASSEMBLE_BYTES.start(), *ASSEMBLE_BYTES.end());
        if self.has_capacity(share) {
            return Poll::Ready(bytes);
        }
        self.sent.register(cx.waker());
        // The transport may have sent some before the waker was registered.
        if self.has_capacity(share) { Poll::Ready(bytes) } else { Poll::Pending }
    }

    fn has_capacity(&self, share: usize) -> bool {
        let bytes = self.bytes.load(Ordering::Acquire);
        bytes == 0 || bytes < share.min(INFLIGHT_BYTES_MAX)
    }
}

/// Bytes count as in flight until the last reference to them is dropped.
impl ByteAccount for InflightBytes {
    fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
        self.counters.queued_bytes.add(bytes as u64);
    }

    fn release(&self, bytes: usize) {
        self.counters.queued_bytes.sub(bytes as u64);
        self.bytes.fetch_sub(bytes, Ordering::AcqRel);
        self.sent.wake();
    }
}

//! What of a stream its transport has taken and not sent yet.
//!
//! A client that does not read holds back what HTTP/2 was given. That is memory as what waits in the
//! [`Outbox`] is, so it counts with it; and a stream hands out only a little at
//! a time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::task::AtomicWaker;

use super::outbox::Outbox;

/// A stream that has handed out more hands out nothing before some of it is sent. Enough that the
/// transport never runs dry while the stream is woken.
const HANDED_OUT_MAX: usize = 256 << 10;
/// What a stream puts together at once: less, while little is left of what all share.
const AT_ONCE: std::ops::RangeInclusive<usize> = 1 << 10..=16 << 10;

/// Counts what one stream has handed out.
#[derive(Debug, Default)]
pub(super) struct HandedOut {
    bytes: AtomicUsize,
    sent: AtomicWaker,
}

impl HandedOut {
    /// Ready with how much may be put together now. Whatever the stream's share of all, it may have
    /// one piece out: else it would never go on.
    pub(super) fn poll_room(&self, share: usize, cx: &mut Context<'_>) -> Poll<usize> {
        let at_once = share.clamp(*AT_ONCE.start(), *AT_ONCE.end());
        if self.has_room(share) {
            return Poll::Ready(at_once);
        }
        self.sent.register(cx.waker());
        // Some may have been sent in between.
        if self.has_room(share) { Poll::Ready(at_once) } else { Poll::Pending }
    }

    fn has_room(&self, share: usize) -> bool {
        let bytes = self.bytes.load(Ordering::Acquire);
        bytes == 0 || bytes < share.min(HANDED_OUT_MAX)
    }
}

/// Bytes that count for as long as somebody has any of them.
struct Counted<T> {
    bytes: T,
    counts: usize,
    outbox: Arc<Outbox>,
}

/// `bytes`, which take up `counts` bytes of memory.
pub(super) fn hand_out<T>(outbox: &Arc<Outbox>, bytes: T, counts: usize) -> Bytes
where
    T: AsRef<[u8]> + Send + 'static,
{
    outbox.handed_out().bytes.fetch_add(counts, Ordering::AcqRel);
    outbox.counters().queued_bytes.add(counts as u64);
    Bytes::from_owner(Counted { bytes, counts, outbox: outbox.clone() })
}

impl<T: AsRef<[u8]>> AsRef<[u8]> for Counted<T> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

impl<T> Drop for Counted<T> {
    fn drop(&mut self) {
        self.outbox.counters().queued_bytes.sub(self.counts as u64);
        self.outbox.handed_out().bytes.fetch_sub(self.counts, Ordering::AcqRel);
        self.outbox.handed_out().sent.wake();
    }
}

//! How much memory watching may take, all in one place.

/// Bounds in bytes, each with what happens beyond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Keys and values that were published and that the watch lane did not take yet; mostly they are
    /// in memory anyway. Beyond: synced watches read them from the history.
    pub feed_bytes: usize,
    /// Keys and values that are passed on at once: what a watch gets in one message when the lane is
    /// behind.
    pub pass_bytes: usize,
    /// Keys and values of the newest changes, kept for watches that are a little behind. Beyond, they
    /// read history.
    pub recent_bytes: usize,
    /// Keys and values that are read of the history at once, with what was there before if that is
    /// wanted. One revision may be larger. The watch lane itself looks up so much of the latter.
    pub read_bytes: usize,
    /// Events that wait on one stream. Beyond: its watches go on from the history once it has room.
    /// A stream on which nothing waits takes one delivery of any size.
    pub stream_bytes: usize,
    /// Events that wait on all streams together (what they share is counted for each of them), and
    /// what the transport has of them and did not send. A stream may take an eighth of what the others leave: so those that do not read have less the
    /// more of them there are, and some is left for those that do.
    pub all_streams_bytes: usize,
    /// All watches, with their keys. Beyond: further ones are refused.
    pub watches_bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            feed_bytes: 16 << 20,
            pass_bytes: 256 << 10,
            recent_bytes: 1 << 20,
            read_bytes: 1 << 20,
            stream_bytes: 1 << 20,
            all_streams_bytes: 64 << 20,
            watches_bytes: 512 << 20,
        }
    }
}

impl Limits {
    /// What may wait on one stream while so much waits on all.
    pub(super) fn stream_share(&self, queued_bytes: usize) -> usize {
        let free = self.all_streams_bytes.saturating_sub(queued_bytes);
        self.stream_bytes.min(free / 8)
    }
}

//! Configuration: where the lanes run, and how much memory watches may take.

use crate::lane::Lanes;

#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Fragments of a larger revision have about this size, for watches that allow fragments.
    pub fragment_bytes: usize,
    pub limits: Limits,
    pub lanes: Lanes,
}

/// Memory bounds in bytes, each with its consequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Published keys and values that the watch lane has not taken yet; most are in memory anyway.
    /// Beyond: the feed drops them, and synced watches read them from the history.
    pub feed_bytes: usize,
    /// Keys and values that the hub delivers in one batch: the content of one message to a watch while
    /// the hub is behind.
    pub batch_bytes: usize,
    /// Keys and values of the newest changes, kept for watches that are slightly behind. Beyond: those
    /// watches read the history.
    pub recent_bytes: usize,
    /// Keys and values of one read of the history, including previous values if a watch asks for them.
    /// A single revision may be larger. Also bounds the previous values that the watch lane itself looks
    /// up in one batch.
    pub read_bytes: usize,
    /// Events queued on one stream. Beyond: its watches become victims and continue from the history. An
    /// empty queue takes one delivery of any size.
    pub stream_bytes: usize,
    /// Events queued on all streams together, counted once per stream, plus the bytes that the transport
    /// holds unsent. One stream may take an eighth of the free rest: the more streams do not read, the
    /// less each of them gets, and the streams that do read always get some.
    pub all_streams_bytes: usize,
    /// All watches with their keys. Beyond: the hub refuses new watches.
    pub watches_bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            feed_bytes: 16 << 20,
            batch_bytes: 256 << 10,
            recent_bytes: 1 << 20,
            read_bytes: 1 << 20,
            stream_bytes: 1 << 20,
            all_streams_bytes: 64 << 20,
            watches_bytes: 512 << 20,
        }
    }
}

impl Limits {
    /// The bytes that one stream may queue while all streams together hold `queued_bytes`.
    pub fn stream_share(&self, queued_bytes: usize) -> usize {
        let free = self.all_streams_bytes.saturating_sub(queued_bytes);
        self.stream_bytes.min(free / 8)
    }
}

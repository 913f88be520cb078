//! The traffic between this member and each other member, in both directions of connecting.
//!
//! Bytes are those of messages, without the overhead of gRPC and HTTP/2.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use prost::Message;

use crate::{
    metrics::{Counter, Labelled},
    types::MemberId,
};

/// One member's traffic with all others since it started.
pub type PeerMetrics = Labelled<MemberId, PeerTraffic>;

/// The traffic with one other member.
#[derive(Debug, Default)]
pub struct PeerTraffic {
    pub sent_bytes: Counter,
    pub received_bytes: Counter,
    /// The peer's streams that broke.
    pub receive_failures: Counter,
    /// Transitions from some open stream to none.
    pub disconnects: Counter,
    streams: AtomicUsize,
}

impl PeerTraffic {
    pub fn sent(&self, message: &impl Message) {
        self.sent_bytes.add(message.encoded_len() as u64);
    }

    pub fn received(&self, message: &impl Message) {
        self.received_bytes.add(message.encoded_len() as u64);
    }

    /// Whether any stream between the two members is open.
    pub fn is_connected(&self) -> bool {
        self.streams.load(Relaxed) > 0
    }

    /// Counts a stream as open until the guard is dropped.
    pub fn open(self: &Arc<Self>) -> OpenStream {
        self.streams.fetch_add(1, Relaxed);
        OpenStream(self.clone())
    }
}

#[derive(Debug)]
pub struct OpenStream(Arc<PeerTraffic>);

impl Drop for OpenStream {
    fn drop(&mut self) {
        if self.0.streams.fetch_sub(1, Relaxed) == 1 {
            self.0.disconnects.increment();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_stream_that_ends_is_a_disconnect() {
        let traffic = PeerMetrics::default().of(MemberId(7));
        let (one, other) = (traffic.open(), traffic.open());
        drop(one);
        assert!(traffic.is_connected());
        assert_eq!(traffic.disconnects.get(), 0);
        drop(other);
        assert!(!traffic.is_connected());
        assert_eq!(traffic.disconnects.get(), 1);
    }
}

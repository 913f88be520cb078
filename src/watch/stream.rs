//! One client's watch stream, as the API holds it.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{
    messages::{HubMessage, NewWatch, StreamId},
    outbox::Outbox,
    response::Response,
};
use crate::metrics::track_bytes;

/// A stream of watches. The hub handles its requests in order; [`WatchStream::poll_next`] returns the
/// responses in order with the events.
#[derive(Debug)]
pub struct WatchStream {
    pub id: StreamId,
    pub outbox: Arc<Outbox>,
    pub hub: mpsc::WeakUnboundedSender<HubMessage>,
}

impl WatchStream {
    /// Ready when the stream may accept another request. Pending while too many responses are unread by
    /// the client. Uses the same waker as [`WatchStream::poll_next`].
    pub fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.outbox.poll_ready(cx)
    }

    pub fn create(&self, watch: NewWatch) {
        self.request(HubMessage::Create(self.id, Box::new(watch)));
    }

    /// Cancels a watch. Without such a watch, there is no response.
    pub fn cancel(&self, watch_id: i64) {
        self.request(HubMessage::Cancel(self.id, watch_id));
    }

    /// Requests the progress of all watches of the stream. The response follows once all of them are
    /// synced; without watches there is none.
    pub fn progress(&self) {
        self.request(HubMessage::Progress(self.id));
    }

    /// Sends a progress message for each watch with `progress_notify` that delivered nothing since the
    /// last tick.
    pub fn tick(&self) {
        self.send(HubMessage::Tick(self.id));
    }

    /// A part of `max` that differs between streams, so that the ticks of many streams do not coincide.
    pub fn jitter(&self, max: Duration) -> Duration {
        // Multiples of the golden ratio spread successive IDs evenly.
        let part = self.id.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        max.mul_f64(part as f64 / (1u64 << 24) as f64)
    }

    /// Ready with the number of bytes that the caller may assemble and [hand to the
    /// transport](WatchStream::track_inflight) now. Pending while too many bytes are in flight.
    pub fn poll_capacity(&self, cx: &mut Context<'_>) -> Poll<usize> {
        self.outbox.inflight().poll_capacity(self.outbox.share(), cx)
    }

    /// Wraps bytes for the transport. They count as in flight, with `memory_bytes`, until the transport
    /// has dropped the last of them.
    pub fn track_inflight(
        &self,
        bytes: impl AsRef<[u8]> + Send + 'static,
        memory_bytes: usize,
    ) -> Bytes {
        track_bytes(bytes, memory_bytes, self.outbox.inflight())
    }

    /// The next messages: about `bytes_max`, at least one. `None`: the watch lane has stopped.
    pub fn poll_next(
        &mut self,
        bytes_max: usize,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Vec<Response>>> {
        self.outbox.poll_take(bytes_max, cx).map(|taken| {
            let taken = taken?;
            if taken.drained {
                self.send(HubMessage::Drained(self.id));
            }
            Some(taken.responses)
        })
    }

    fn request(&self, request: HubMessage) {
        self.outbox.add_request();
        self.send(request);
    }

    fn send(&self, message: HubMessage) {
        if let Some(hub) = self.hub.upgrade() {
            // Fails only if the hub has stopped; then it has closed the outbox, which ends the stream.
            let _ = hub.send(message);
        }
    }
}

impl Drop for WatchStream {
    fn drop(&mut self) {
        self.outbox.abandon();
        self.send(HubMessage::Close(self.id));
    }
}

//! One client's stream of watches, as the API holds it.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{
    events::Wants, handed_out::hand_out, hub::Command, outbox::Outbox, response::Response,
};
use crate::types::{KeyRange, Revision};

/// Names a stream; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct StreamId(pub(super) u64);

/// A watch that a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewWatch {
    /// Zero: the next one that is free.
    pub watch_id: i64,
    pub keys: KeyRange,
    /// The first revision to hear of. Zero: the next one.
    pub start: Revision,
    pub wants: Wants,
    /// Tell how far it has come when nothing else was told between two
    /// [ticks](WatchStream::tick).
    pub progress: bool,
}

/// A stream of watches. Requests are handled in order, and answered through [`WatchStream::poll_next`]
/// in order with the events.
#[derive(Debug)]
pub struct WatchStream {
    pub(super) id: StreamId,
    pub(super) outbox: Arc<Outbox>,
    pub(super) lane: mpsc::WeakUnboundedSender<Command>,
}

impl WatchStream {
    /// Ready when another request may be handed on: a client that does not read its answers waits.
    /// Uses the same waker as [`WatchStream::poll_next`].
    pub fn poll_ask(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.outbox.poll_ask(cx)
    }

    pub fn create(&self, watch: NewWatch) {
        self.ask(Command::Create(self.id, Box::new(watch)));
    }

    /// Ends a watch. Not answered if there is no such watch.
    pub fn cancel(&self, watch_id: i64) {
        self.ask(Command::Cancel(self.id, watch_id));
    }

    /// Asks how far all watches of the stream have come. Answered when they all have come as far as
    /// the store; not answered if there are none.
    pub fn progress(&self) {
        self.ask(Command::Progress(self.id));
    }

    /// Tells how far those watches have come that asked for it, and heard nothing since the last tick.
    pub fn tick(&self) {
        self.send(Command::Tick(self.id));
    }

    /// Some part of `most`, another one for each stream: so that ticks of many do not coincide.
    pub fn jitter(&self, most: Duration) -> Duration {
        // The golden ratio spreads successive numbers evenly.
        let part = self.id.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        most.mul_f64(part as f64 / (1u64 << 24) as f64)
    }

    /// Ready with how many bytes may be put together and [handed out](WatchStream::hand_out) now: not
    /// while too many that were handed out are in memory.
    pub fn poll_hand_out(&self, cx: &mut Context<'_>) -> Poll<usize> {
        self.outbox.handed_out().poll_room(self.outbox.share(), cx)
    }

    /// Bytes for the transport, which count as this stream's until it has dropped the last of them.
    /// They keep `counts` bytes in memory.
    pub fn hand_out(&self, bytes: impl AsRef<[u8]> + Send + 'static, counts: usize) -> Bytes {
        hand_out(&self.outbox, bytes, counts)
    }

    /// The next messages: one at least, and no more once they come to `bytes_max`. `None`: this member
    /// has stopped watching.
    pub fn poll_next(
        &mut self,
        bytes_max: usize,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Vec<Response>>> {
        self.outbox.poll_take(bytes_max, cx).map(|taken| {
            let taken = taken?;
            if taken.makes_room {
                self.send(Command::Room(self.id));
            }
            Some(taken.responses)
        })
    }

    fn ask(&self, request: Command) {
        self.outbox.ask();
        self.send(request);
    }

    fn send(&self, command: Command) {
        if let Some(lane) = self.lane.upgrade() {
            // A lane that is gone has closed the outbox, which ends this.
            let _ = lane.send(command);
        }
    }
}

impl Drop for WatchStream {
    fn drop(&mut self) {
        self.outbox.abandon();
        self.send(Command::Close(self.id));
    }
}

//! The outbox: the queue of messages to be sent on one stream. The hub fills it, the stream's task
//! empties it.
//!
//! Queued events are bounded by bytes ([`Limits::stream_bytes`]). Responses to requests are always
//! queued, but a stream accepts no further request while [`OUTSTANDING_REQUESTS_MAX`] are outstanding.
//! Beyond that, each watch adds at most one last message.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use super::{
    counters::Counters,
    events::EncodedEvents,
    inflight_bytes::InflightBytes,
    options::Limits,
    response::{Response, ResponseKind},
};
use crate::types::Revision;

/// Requests of a stream that the hub has not handled, or whose responses are not sent.
const OUTSTANDING_REQUESTS_MAX: usize = 128;
/// The memory of a delivery in addition to its events, and of each further watch.
const DELIVERY_BYTES: usize = 128;
const WATCH_ID_BYTES: usize = 16;
/// The approximate size of a message without its events.
const MESSAGE_BYTES: usize = 48;

/// The same events for one or several watches of a stream.
#[derive(Debug)]
pub struct Delivery {
    events: EncodedEvents,
    revision: Revision,
    first_watch: i64,
    other_watches: Vec<i64>,
}

impl Delivery {
    pub fn new(events: EncodedEvents, revision: Revision, watch_id: i64) -> Delivery {
        Delivery { events, revision, first_watch: watch_id, other_watches: Vec::new() }
    }

    /// Adds a watch if it delivers the same events. Returns the bytes that this costs.
    pub fn share(
        &mut self,
        events: &EncodedEvents,
        revision: Revision,
        watch_id: i64,
    ) -> Option<usize> {
        if self.revision != revision || !self.events.is_same(events) {
            return None;
        }
        self.other_watches.push(watch_id);
        Some(WATCH_ID_BYTES)
    }

    pub fn bytes(&self) -> usize {
        DELIVERY_BYTES + self.events.bytes() + self.other_watches.len() * WATCH_ID_BYTES
    }

    /// Counted once for each watch.
    fn event_count(&self) -> u64 {
        u64::from(self.events.count) * (1 + self.other_watches.len() as u64)
    }

    /// The message at the cursor. Advances the cursor.
    fn message(&self, cursor: &mut Cursor) -> Response {
        let other = cursor.watch.checked_sub(1);
        let watch_id = other.map_or(self.first_watch, |other| self.other_watches[other]);
        let (encoded, fragment) = self.events.fragment(cursor.fragment);
        *cursor = match fragment {
            true => Cursor { fragment: cursor.fragment + 1, ..*cursor },
            false => Cursor { watch: cursor.watch + 1, fragment: 0 },
        };
        let kind = ResponseKind::Events { encoded, fragment };
        Response { watch_id, revision: self.revision, kind }
    }
}

/// The next message of a delivery. All fragments of one watch precede those of the next.
#[derive(Debug, Clone, Copy, Default)]
struct Cursor {
    watch: usize,
    fragment: usize,
}

#[derive(Debug)]
enum Item {
    Delivery(Delivery),
    Response {
        response: Response,
        /// It responds to a request, which is then no longer outstanding.
        to_request: bool,
    },
}

/// The queue of one stream.
#[derive(Debug)]
pub struct Outbox {
    queue: Mutex<Queue>,
    inflight: Arc<InflightBytes>,
    limits: Limits,
    counters: Arc<Counters>,
}

#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<Item>,
    /// The bytes of the queued deliveries.
    bytes: usize,
    /// Within the delivery at the front.
    cursor: Cursor,
    outstanding_requests: usize,
    /// The hub must learn when no delivery is queued any more.
    report_drained: bool,
    closed: bool,
    waker: Option<Waker>,
}

/// Messages that the stream's task took out.
#[derive(Debug, Default)]
pub struct Taken {
    pub responses: Vec<Response>,
    /// The task must report to the hub that the queue has drained.
    pub drained: bool,
}

impl Outbox {
    pub fn new(limits: Limits, counters: Arc<Counters>) -> Outbox {
        let inflight = Arc::new(InflightBytes::new(counters.clone()));
        Outbox { queue: Mutex::default(), inflight, limits, counters }
    }

    pub fn inflight(&self) -> &Arc<InflightBytes> {
        &self.inflight
    }

    /// The stream's current share of the bound on all streams.
    pub fn share(&self) -> usize {
        self.limits.stream_share(self.counters.queued_bytes.get() as usize)
    }

    /// The bytes of queued events, and their bound. Whatever the bound, an empty queue takes one
    /// delivery: otherwise a large one could never be sent.
    pub fn queued_bytes_and_max(&self) -> (usize, usize) {
        (self.queue().bytes, self.share())
    }

    pub fn deliver(&self, deliveries: impl Iterator<Item = Delivery>) {
        let mut queue = self.queue();
        if queue.closed {
            return;
        }
        for delivery in deliveries {
            queue.bytes += delivery.bytes();
            self.counters.queued_bytes.add(delivery.bytes() as u64);
            self.counters.pending_events.add(delivery.event_count());
            queue.items.push_back(Item::Delivery(delivery));
        }
        wake(queue);
    }

    pub fn respond(&self, response: Response, to_request: bool) {
        let mut queue = self.queue();
        if !queue.closed {
            queue.items.push_back(Item::Response { response, to_request });
            wake(queue);
        }
    }

    /// A request was handled and gets no response.
    pub fn complete_request(&self) {
        let mut queue = self.queue();
        queue.outstanding_requests = queue.outstanding_requests.saturating_sub(1);
        wake(queue);
    }

    /// Asks the stream's task to report when no delivery is queued any more. False: none is queued now.
    pub fn report_drained(&self) -> bool {
        let mut queue = self.queue();
        queue.report_drained = queue.bytes > 0;
        queue.report_drained
    }

    /// The hub has stopped: the stream ends after the queued messages.
    pub fn close(&self) {
        let mut queue = self.queue();
        queue.closed = true;
        wake(queue);
    }

    /// The stream has ended: discards the queued messages.
    pub fn abandon(&self) {
        let mut queue = self.queue();
        queue.closed = true;
        for item in std::mem::take(&mut queue.items) {
            if let Item::Delivery(delivery) = item {
                self.counters.queued_bytes.sub(delivery.bytes() as u64);
                self.counters.pending_events.sub(delivery.event_count());
            }
        }
    }

    /// Ready when the stream may accept another request.
    pub fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut queue = self.queue();
        if queue.outstanding_requests < OUTSTANDING_REQUESTS_MAX {
            return Poll::Ready(());
        }
        queue.register(cx);
        Poll::Pending
    }

    pub fn add_request(&self) {
        self.queue().outstanding_requests += 1;
    }

    /// The next messages: about `bytes_max`, at least one. `None`: no message will follow.
    pub fn poll_take(&self, bytes_max: usize, cx: &mut Context<'_>) -> Poll<Option<Taken>> {
        let mut queue = self.queue();
        if queue.items.is_empty() {
            if queue.closed {
                return Poll::Ready(None);
            }
            queue.register(cx);
            return Poll::Pending;
        }
        let (mut taken, mut bytes) = (Taken::default(), 0);
        while let Some(response) = self.take(&mut queue, &mut taken.drained) {
            bytes += MESSAGE_BYTES + response.events_bytes();
            taken.responses.push(response);
            if bytes >= bytes_max {
                break;
            }
        }
        Poll::Ready(Some(taken))
    }

    /// The next message.
    fn take(&self, queue: &mut Queue, drained: &mut bool) -> Option<Response> {
        let Queue { items, cursor, .. } = queue;
        match items.front()? {
            Item::Response { response, to_request } => {
                let (response, requests) = (response.clone(), usize::from(*to_request));
                items.pop_front();
                queue.outstanding_requests = queue.outstanding_requests.saturating_sub(requests);
                Some(response)
            }
            Item::Delivery(delivery) => {
                let response = delivery.message(cursor);
                if cursor.watch > delivery.other_watches.len() {
                    *drained |= self.pop_sent(queue);
                }
                Some(response)
            }
        }
    }

    /// Removes the delivery at the front, which is sent. True: the hub must learn that the queue has
    /// drained.
    fn pop_sent(&self, queue: &mut Queue) -> bool {
        queue.cursor = Cursor::default();
        if let Some(Item::Delivery(delivery)) = queue.items.pop_front() {
            queue.bytes -= delivery.bytes();
            self.counters.queued_bytes.sub(delivery.bytes() as u64);
            self.counters.pending_events.sub(delivery.event_count());
            self.counters.events_total.add(delivery.event_count());
        }
        queue.bytes == 0 && std::mem::take(&mut queue.report_drained)
    }

    // No code panics while the queue is inconsistent, so a poisoned lock is usable.
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn register(&mut self, cx: &Context<'_>) {
        match &mut self.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => self.waker = Some(cx.waker().clone()),
        }
    }
}

/// Wakes the stream's task after releasing the lock.
fn wake(mut queue: MutexGuard<'_, Queue>) {
    let waker = queue.waker.take();
    drop(queue);
    if let Some(waker) = waker {
        waker.wake();
    }
}

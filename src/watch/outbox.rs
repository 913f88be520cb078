//! What waits to be sent on one stream: the lane puts it in, the stream's task takes it out.
//!
//! Events are bounded by bytes ([`Limits::stream_bytes`]). Answers to requests are taken in always, but a
//! stream hands on no further request while [`UNSENT_ANSWERS_MAX`] are outstanding; what else may come in is
//! one last message for each watch.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use super::{
    counters::Counters,
    events::Events,
    handed_out::HandedOut,
    limits::Limits,
    response::{Kind, Response},
};
use crate::types::Revision;

/// Requests of a stream that are not handled yet, or whose answers are not sent.
const UNSENT_ANSWERS_MAX: usize = 128;
/// What a delivery costs beside its events, and with each watcher.
const DELIVERY_BYTES: usize = 128;
const WATCHER_BYTES: usize = 16;
/// What a message has beside its events, about.
const MESSAGE_BYTES: usize = 48;

/// The same events for some watchers of a stream.
#[derive(Debug)]
pub(super) struct Delivery {
    events: Events,
    revision: Revision,
    first: i64,
    others: Vec<i64>,
}

impl Delivery {
    pub(super) fn new(events: Events, revision: Revision, watch_id: i64) -> Delivery {
        Delivery { events, revision, first: watch_id, others: Vec::new() }
    }

    /// Adds a watcher if it gets the same. Says what that costs.
    pub(super) fn share(
        &mut self,
        events: &Events,
        revision: Revision,
        watch_id: i64,
    ) -> Option<usize> {
        if self.revision != revision || !self.events.is_same(events) {
            return None;
        }
        self.others.push(watch_id);
        Some(WATCHER_BYTES)
    }

    pub(super) fn bytes(&self) -> usize {
        DELIVERY_BYTES + self.events.bytes() + self.others.len() * WATCHER_BYTES
    }

    /// Counted once for each watcher.
    fn events(&self) -> u64 {
        u64::from(self.events.count) * (1 + self.others.len() as u64)
    }

    /// The message at `next`, which moves on.
    fn message(&self, next: &mut Place) -> Response {
        let other = next.watcher.checked_sub(1);
        let watch_id = other.map_or(self.first, |other| self.others[other]);
        let (encoded, more) = self.events.part(next.part);
        *next = match more {
            true => Place { part: next.part + 1, ..*next },
            false => Place { watcher: next.watcher + 1, part: 0 },
        };
        Response { watch_id, revision: self.revision, kind: Kind::Events { encoded, more } }
    }
}

/// A message of a delivery: first all of one watcher, then of the next.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    watcher: usize,
    part: usize,
}

#[derive(Debug)]
enum Item {
    Delivery(Delivery),
    Response {
        response: Response,
        /// A request of this stream asked for it.
        is_answer: bool,
    },
}

/// The queue of one stream.
#[derive(Debug)]
pub(super) struct Outbox {
    queue: Mutex<Queue>,
    handed_out: HandedOut,
    limits: Limits,
    counters: Arc<Counters>,
}

#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<Item>,
    /// Of deliveries.
    bytes: usize,
    /// How far the delivery in front is sent.
    next: Place,
    unsent_answers: usize,
    /// The lane wants to be told once there is room.
    awaited: bool,
    closed: bool,
    waker: Option<Waker>,
}

/// What a stream takes out.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) responses: Vec<Response>,
    /// The lane waited for this: there is room.
    pub(super) makes_room: bool,
}

impl Outbox {
    pub(super) fn new(limits: Limits, counters: Arc<Counters>) -> Outbox {
        Outbox { queue: Mutex::default(), handed_out: HandedOut::default(), limits, counters }
    }

    pub(super) fn handed_out(&self) -> &HandedOut {
        &self.handed_out
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// How much the stream may have of what all share, now.
    pub(super) fn share(&self) -> usize {
        self.limits.stream_share(self.counters.queued_bytes.get() as usize)
    }

    /// Bytes of events that wait, and how many may. Whatever they are, an empty queue has room for
    /// one delivery: else a large one would never be sent.
    pub(super) fn room(&self) -> (usize, usize) {
        (self.queue().bytes, self.share())
    }

    pub(super) fn deliver(&self, deliveries: impl Iterator<Item = Delivery>) {
        let mut queue = self.queue();
        if queue.closed {
            return;
        }
        for delivery in deliveries {
            queue.bytes += delivery.bytes();
            self.counters.queued_bytes.add(delivery.bytes() as u64);
            self.counters.pending_events.add(delivery.events());
            queue.items.push_back(Item::Delivery(delivery));
        }
        wake(queue);
    }

    pub(super) fn respond(&self, response: Response, is_answer: bool) {
        let mut queue = self.queue();
        if !queue.closed {
            queue.items.push_back(Item::Response { response, is_answer });
            wake(queue);
        }
    }

    /// A request was handled and gets no answer.
    pub(super) fn no_answer(&self) {
        let mut queue = self.queue();
        queue.unsent_answers = queue.unsent_answers.saturating_sub(1);
        wake(queue);
    }

    /// Asks to be told once there is room. False: there is.
    pub(super) fn await_room(&self) -> bool {
        let mut queue = self.queue();
        queue.awaited = queue.bytes > 0;
        queue.awaited
    }

    /// The stream ends once it has sent what is in here: the lane is gone.
    pub(super) fn close(&self) {
        let mut queue = self.queue();
        queue.closed = true;
        wake(queue);
    }

    /// The stream is gone: nothing is taken out any more.
    pub(super) fn abandon(&self) {
        let mut queue = self.queue();
        queue.closed = true;
        for item in std::mem::take(&mut queue.items) {
            if let Item::Delivery(delivery) = item {
                self.counters.queued_bytes.sub(delivery.bytes() as u64);
                self.counters.pending_events.sub(delivery.events());
            }
        }
    }

    /// Ready when the stream may hand on another request.
    pub(super) fn poll_ask(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut queue = self.queue();
        if queue.unsent_answers < UNSENT_ANSWERS_MAX {
            return Poll::Ready(());
        }
        queue.wait(cx);
        Poll::Pending
    }

    pub(super) fn ask(&self) {
        self.queue().unsent_answers += 1;
    }

    /// The next messages: about `bytes_max`, and one at least. `None`: there will be no more.
    pub(super) fn poll_take(&self, bytes_max: usize, cx: &mut Context<'_>) -> Poll<Option<Taken>> {
        let mut queue = self.queue();
        if queue.items.is_empty() {
            if queue.closed {
                return Poll::Ready(None);
            }
            queue.wait(cx);
            return Poll::Pending;
        }
        let (mut taken, mut bytes) = (Taken::default(), 0);
        while let Some(response) = self.take(&mut queue, &mut taken.makes_room) {
            bytes += MESSAGE_BYTES + response.events_bytes();
            taken.responses.push(response);
            if bytes >= bytes_max {
                break;
            }
        }
        Poll::Ready(Some(taken))
    }

    /// The next message.
    fn take(&self, queue: &mut Queue, makes_room: &mut bool) -> Option<Response> {
        let Queue { items, next, .. } = queue;
        match items.front()? {
            Item::Response { response, is_answer } => {
                let (response, answers) = (response.clone(), usize::from(*is_answer));
                items.pop_front();
                queue.unsent_answers = queue.unsent_answers.saturating_sub(answers);
                Some(response)
            }
            Item::Delivery(delivery) => {
                let response = delivery.message(next);
                if next.watcher > delivery.others.len() {
                    *makes_room |= self.sent(queue);
                }
                Some(response)
            }
        }
    }

    /// The delivery in front was sent whole. Whether that makes room that the lane waits for.
    fn sent(&self, queue: &mut Queue) -> bool {
        queue.next = Place::default();
        if let Some(Item::Delivery(delivery)) = queue.items.pop_front() {
            queue.bytes -= delivery.bytes();
            self.counters.queued_bytes.sub(delivery.bytes() as u64);
            self.counters.pending_events.sub(delivery.events());
            self.counters.events_total.add(delivery.events());
        }
        queue.bytes == 0 && std::mem::take(&mut queue.awaited)
    }

    // Nothing can panic between two changes that belong together.
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn wait(&mut self, cx: &Context<'_>) {
        match &mut self.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => self.waker = Some(cx.waker().clone()),
        }
    }
}

/// Wakes the stream's task, without the lock.
fn wake(mut queue: MutexGuard<'_, Queue>) {
    let waker = queue.waker.take();
    drop(queue);
    if let Some(waker) = waker {
        waker.wake();
    }
}

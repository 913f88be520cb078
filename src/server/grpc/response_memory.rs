//! Bounds the responses that one connection's client has requested and not read.
//!
//! HTTP/2 lets a client hold its responses back, so they wait in the memory of this member. Each class of
//! methods has [`UNREAD_RESPONSE_BYTES_MAX`] on each connection:
//!
//! - *Large responses.* A request starts, and its response is encoded, only while there is room. A client
//!   that does not read gets no further responses; other clients are not affected. The memory may exceed
//!   the bound by one response for each worker thread, and by the values that the
//!   [`CONCURRENT_REQUESTS_MAX`] requests started before have read from disk (values in the cache are
//!   shared).
//! - *Large streams* have a budget of their own: a client that sends a request for each key of a stream,
//!   and reads on once it is answered, must not wait for itself.
//! - *All others.* The call runs, and its response is encoded only while there is room.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker, ready},
};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::{HeaderMap, Response};
use tokio::sync::{Notify, Semaphore, SemaphorePermit, futures::OwnedNotified};

use crate::metrics::{ByteAccount, track_bytes};

/// With more unread bytes, no further response is encoded. One response may be larger.
const UNREAD_RESPONSE_BYTES_MAX: usize = 16 << 20;
/// Requests of one connection with possibly large responses that run at once.
const CONCURRENT_REQUESTS_MAX: usize = 256;

/// Methods whose single response may be large. Each request starts only while there is room.
const LARGE: [&str; 3] =
    ["/etcdserverpb.KV/Range", "/etcdserverpb.KV/Txn", "/etcdserverpb.KV/DeleteRange"];
/// The method that streams a large response.
const LARGE_STREAM: &str = "/etcdserverpb.KV/RangeStream";
/// Bounded by its service: the watches of a stream share a bound on queued bytes.
const WATCH: &str = "/etcdserverpb.Watch/Watch";

/// The unread bytes of one connection. Clones are the same connection.
#[derive(Debug, Clone, Default)]
pub struct ResponseBudgets {
    large: Arc<ResponseBudget>,
    large_streams: Arc<ResponseBudget>,
    /// All others: a put's response may hold the previous value, and streams respond without end.
    others: Arc<ResponseBudget>,
}

/// How the responses of a method are bounded.
#[derive(Debug, Clone)]
pub enum ResponseBound {
    /// The request waits until there is room for its response.
    BeforeCall(Arc<ResponseBudget>),
    /// The response is encoded once there is room for it.
    BeforeEncoding(Arc<ResponseBudget>),
    /// By the service itself.
    ByService,
}

impl ResponseBudgets {
    pub fn bound_of(&self, path: &str) -> ResponseBound {
        match path {
            WATCH => ResponseBound::ByService,
            LARGE_STREAM => ResponseBound::BeforeCall(self.large_streams.clone()),
            large if LARGE.contains(&large) => ResponseBound::BeforeCall(self.large.clone()),
            _ => ResponseBound::BeforeEncoding(self.others.clone()),
        }
    }
}

/// The unread bytes of one class of methods.
#[derive(Debug)]
pub struct ResponseBudget {
    unread_bytes: AtomicUsize,
    /// Notified when the client has read some bytes.
    read: Arc<Notify>,
    requests: Semaphore,
}

impl Default for ResponseBudget {
    fn default() -> ResponseBudget {
        ResponseBudget {
            unread_bytes: AtomicUsize::new(0),
            read: Arc::default(),
            requests: Semaphore::new(CONCURRENT_REQUESTS_MAX),
        }
    }
}

/// Bytes count until they were sent, or their stream was given up.
impl ByteAccount for ResponseBudget {
    fn add(&self, bytes: usize) {
        self.unread_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn release(&self, bytes: usize) {
        self.unread_bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.read.notify_waiters();
    }
}

impl ResponseBudget {
    /// A permit for a request that may run at once. It counts as running until the permit is dropped.
    pub fn try_start_request(&self) -> Option<SemaphorePermit<'_>> {
        if self.has_room() { self.requests.try_acquire().ok() } else { None }
    }

    fn has_room(&self) -> bool {
        self.unread_bytes.load(Ordering::Relaxed) < UNREAD_RESPONSE_BYTES_MAX
    }

    /// Waits until fewer requests run. The request counts as running until the permit is dropped.
    pub async fn start_request(&self) -> SemaphorePermit<'_> {
        let Ok(permit) = self.requests.acquire().await else {
            unreachable!("the semaphore is never closed")
        };
        permit
    }

    /// Waits until there is room for another response.
    pub async fn room(&self) {
        loop {
            let read = self.read.notified();
            if self.has_room() {
                return;
            }
            read.await;
        }
    }
}

/// Encodes the first frame of a response: of a unary call, all of it. So it is counted before another
/// request checks for room.
pub fn encode_now(
    response: Response<Body>,
    budget: &Arc<ResponseBudget>,
) -> Response<BudgetedBody> {
    let (mut head, body) = response.into_parts();
    let mut body = BudgetedBody { budget: Some(budget.clone()), ..BudgetedBody::unbudgeted(body) };
    // A refusal has no frames, and must not get any.
    if !body.is_end_stream() {
        let mut no_waker = Context::from_waker(Waker::noop());
        // If the body is pending, its sender polls it again, with a waker.
        if let Poll::Ready(first) = body.poll_inner(&mut no_waker) {
            (body.ended, body.first) = (first.is_none(), first);
        }
    }
    // A stream that is refused before its first message: the refusal must be one frame, too.
    if let Some(trailers) = body.take_trailers() {
        head.headers.extend(trailers);
        body.ended = true;
    }
    Response::from_parts(head, body)
}

/// A body whose bytes count as unread from the time when they are encoded.
pub struct BudgetedBody {
    body: Body,
    /// The first frame, if it is encoded already.
    first: Option<Result<Frame<Bytes>, axum::Error>>,
    /// Nothing comes after `first`.
    ended: bool,
    budget: Option<Arc<ResponseBudget>>,
    /// Encodes nothing while there is no room.
    waits: bool,
    /// Present while the body waits for room.
    read: Option<Pin<Box<OwnedNotified>>>,
}

impl BudgetedBody {
    /// A body without bytes, or with bytes that are bounded elsewhere.
    pub fn unbudgeted(body: Body) -> BudgetedBody {
        BudgetedBody { body, first: None, ended: false, budget: None, waits: false, read: None }
    }

    /// A body whose bytes are encoded once there is room.
    pub fn encoded_later(body: Body, budget: Arc<ResponseBudget>) -> BudgetedBody {
        BudgetedBody { budget: Some(budget), waits: true, ..BudgetedBody::unbudgeted(body) }
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(budget) = &self.budget else { return Poll::Ready(()) };
        loop {
            if budget.has_room() {
                self.read = None;
                return Poll::Ready(());
            }
            match &mut self.read {
                Some(read) => {
                    ready!(read.as_mut().poll(cx));
                    self.read = None;
                }
                // The loop checks once more before it waits: the client may have read just now.
                None => self.read = Some(Box::pin(budget.read.clone().notified_owned())),
            }
        }
    }

    fn poll_inner(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        let Some(budget) = &self.budget else { return Poll::Ready(frame) };
        let track = |bytes: Bytes| {
            let memory_bytes = bytes.len();
            track_bytes(bytes, memory_bytes, budget)
        };
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(track))))
    }

    fn take_trailers(&mut self) -> Option<HeaderMap> {
        let is_trailers = matches!(&self.first, Some(Ok(frame)) if frame.is_trailers());
        let first = if is_trailers { self.first.take() } else { None };
        first?.ok()?.into_trailers().ok()
    }
}

impl HttpBody for BudgetedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(first));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        if self.waits {
            ready!(self.poll_room(cx));
        }
        self.poll_inner(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && (self.ended || self.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.first, self.ended) {
            (None, true) => SizeHint::with_exact(0),
            (None, false) => self.body.size_hint(),
            // The body's own hint no longer includes the encoded frame.
            (Some(_), _) => SizeHint::default(),
        }
    }
}

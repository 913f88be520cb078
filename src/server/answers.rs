//! A bound on what one connection's client has asked for and not read.
//!
//! HTTP/2 lets a client hold its answers back, so they wait in our memory. A request whose answer may
//! be large begins, and is answered, only while the unread answers of its connection come to less
//! than [`UNREAD_BYTES_MAX`]: who does not read gets nothing more, and nobody else is the worse for it.
//! What may exceed the bound is one answer for each worker thread, and of the [`REQUESTS_MAX`] requests
//! that were let in before it was reached, what they have read from disk (values in the cache are
//! shared).
//!
//! Streams are counted apart from single answers: whoever asks something for each key of a stream, and
//! reads on once it is answered, must not wait for themselves.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
};

use axum::{body::Body, extract::Request, middleware::Next, response::Response};
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::{Notify, Semaphore};

use crate::api::ClientAddress;

/// More than this is not answered before some of it is read. One answer may be larger.
const UNREAD_BYTES_MAX: usize = 16 << 20;
/// Requests of one connection that are worked on at once, of those whose answers may be large.
const REQUESTS_MAX: usize = 256;

/// Methods that answer with as much as is asked for, at once or piece by piece.
const SINGLE: [&str; 3] =
    ["/etcdserverpb.KV/Range", "/etcdserverpb.KV/Txn", "/etcdserverpb.KV/DeleteRange"];
const STREAM: &str = "/etcdserverpb.KV/RangeStream";

/// Bounded by themselves, and named by their client where one is cut off.
const WATCH: &str = "/etcdserverpb.Watch/Watch";

/// What waits to be read on one connection. Clones are the same connection.
#[derive(Debug, Clone)]
pub(super) struct Answers {
    client: SocketAddr,
    single: Arc<Unread>,
    streams: Arc<Unread>,
}

impl Answers {
    pub(super) fn to(client: SocketAddr) -> Answers {
        Answers { client, single: Arc::default(), streams: Arc::default() }
    }

    fn of(&self, method: &str) -> Option<&Arc<Unread>> {
        match method {
            STREAM => Some(&self.streams),
            single if SINGLE.contains(&single) => Some(&self.single),
            _ => None,
        }
    }
}

/// Around each call of the client API: bounds what the request's connection does not read.
pub(super) async fn bound(mut request: Request, next: Next) -> Response {
    let answers = request.extensions().get::<Answers>();
    if let Some(Answers { client, .. }) = answers
        && request.uri().path() == WATCH
    {
        let client = ClientAddress(*client);
        request.extensions_mut().insert(client);
        return next.run(request).await;
    }
    let Some(unread) = answers.and_then(|a| a.of(request.uri().path())).cloned() else {
        return next.run(request).await;
    };
    let Ok(_working) = unread.requests.acquire().await else {
        unreachable!("nobody closes the semaphore")
    };
    unread.room().await;
    let response = next.run(request).await;
    // Others may have been answered meanwhile, and this one is encoded only when it is sent.
    unread.room().await;
    response.map(|body| Body::new(Counted::new(body, unread.clone())))
}

#[derive(Debug)]
struct Unread {
    bytes: AtomicUsize,
    read: Notify,
    requests: Semaphore,
}

impl Default for Unread {
    fn default() -> Unread {
        Unread {
            bytes: AtomicUsize::new(0),
            read: Notify::new(),
            requests: Semaphore::new(REQUESTS_MAX),
        }
    }
}

impl Unread {
    /// Waits until there is room for another answer.
    async fn room(&self) {
        loop {
            let read = self.read.notified();
            if self.bytes.load(Ordering::Relaxed) < UNREAD_BYTES_MAX {
                return;
            }
            read.await;
        }
    }
}

/// Bytes that are counted for as long as they are in memory: until they were sent, or their stream
/// was given up.
struct Held {
    bytes: Bytes,
    unread: Arc<Unread>,
}

impl Held {
    fn count(bytes: Bytes, unread: &Arc<Unread>) -> Bytes {
        unread.bytes.fetch_add(bytes.len(), Ordering::Relaxed);
        Bytes::from_owner(Held { bytes, unread: unread.clone() })
    }
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.unread.bytes.fetch_sub(self.bytes.len(), Ordering::Relaxed);
        self.unread.read.notify_waiters();
    }
}

/// A body whose bytes are counted from when they are encoded.
struct Counted {
    body: Body,
    /// Its first frame, encoded already.
    first: Option<Polled>,
    unread: Arc<Unread>,
}

impl Counted {
    /// Encodes what is there: the whole of a single answer. So it is counted before another request
    /// looks for room.
    fn new(mut body: Body, unread: Arc<Unread>) -> Counted {
        let mut nobody = Context::from_waker(std::task::Waker::noop());
        let first = match Pin::new(&mut body).poll_frame(&mut nobody) {
            Poll::Ready(frame) => Some(count(frame, &unread)),
            // Whoever sends the body will ask again, and be woken.
            Poll::Pending => None,
        };
        Counted { body, first, unread }
    }
}

type Polled = Option<Result<Frame<Bytes>, axum::Error>>;

fn count(frame: Polled, unread: &Arc<Unread>) -> Polled {
    frame.map(|frame| frame.map(|f| f.map_data(|bytes| Held::count(bytes, unread))))
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Polled> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(first);
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        Poll::Ready(count(frame, &self.unread))
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // What is encoded already is no longer in the body's own hint.
        SizeHint::default()
    }
}

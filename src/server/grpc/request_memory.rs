//! Bounds the memory that one connection's incomplete requests occupy.
//!
//! HTTP/2 bounds the number of streams, not their memory. Headers count from the start of a request until
//! its response. The bytes of a message count until the message is complete; then they belong to the
//! service that decodes it. Beyond a bound, a call is refused with `ResourceExhausted`, and its memory is
//! freed. Each connection has its own bounds.

use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::{HeaderMap, Request};
use tonic::Status;

use super::{calls::ReceivedCounters, message_scanner::MessageScanner};
use crate::{api, node::NodeError};

/// Headers of all open requests of one connection, counted as HTTP/2 counts them.
const HEADER_BYTES_MAX: usize = 16 << 20;
/// Bytes that HTTP/2 counts for each header in addition to its name and value (RFC 9113, 6.5.2).
const HEADER_OVERHEAD_BYTES: usize = 32;
/// Bytes of one connection's incomplete messages: the same as a member's bound on proposals in flight.
const PARTIAL_MESSAGE_BYTES_MAX: usize = 64 << 20;
/// Memory of the buffer that collects a message, whatever the length of its first part.
const PARTIAL_OVERHEAD_BYTES: usize = 8 << 10;

/// The memory of one connection's open requests.
#[derive(Debug, Default)]
pub struct RequestMemory {
    header_bytes: AtomicUsize,
    partial_bytes: AtomicUsize,
}

/// A bound would be exceeded.
#[derive(Debug)]
pub struct LimitExceeded;

/// The status of a call that exceeds a bound, with etcd's text.
pub fn limit_exceeded() -> Status {
    Status::resource_exhausted(NodeError::TooManyRequests.to_string())
}

impl RequestMemory {
    /// Counts the headers of a request until the permit is dropped.
    pub fn admit_headers(
        self: &Arc<Self>,
        headers: &HeaderMap,
    ) -> Result<HeaderPermit, LimitExceeded> {
        let field = |(name, value): (&hyper::header::HeaderName, &hyper::header::HeaderValue)| {
            name.as_str().len() + value.len() + HEADER_OVERHEAD_BYTES
        };
        let bytes = headers.iter().map(field).sum();
        let permit = HeaderPermit { memory: self.clone(), bytes };
        let before = self.header_bytes.fetch_add(bytes, Ordering::Relaxed);
        if before + bytes > HEADER_BYTES_MAX { Err(LimitExceeded) } else { Ok(permit) }
    }
}

/// The headers of one request, counted while this lives.
#[derive(Debug)]
pub struct HeaderPermit {
    memory: Arc<RequestMemory>,
    bytes: usize,
}

impl Drop for HeaderPermit {
    fn drop(&mut self) {
        self.memory.header_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The body of a request, as a service reads it.
pub struct RequestBody<B> {
    body: B,
    scanner: MessageScanner,
    counters: Option<ReceivedCounters>,
    partial: PartialMessage,
    /// Count all received bytes, those of complete messages, too.
    count_all: bool,
    received_bytes: usize,
}

impl<B> RequestBody<B> {
    pub fn new(
        body: B,
        memory: Arc<RequestMemory>,
        counters: Option<ReceivedCounters>,
    ) -> RequestBody<B> {
        let partial = PartialMessage { memory, bytes: 0 };
        let scanner = MessageScanner::default();
        RequestBody { body, scanner, counters, partial, count_all: false, received_bytes: 0 }
    }

    fn note_data(&mut self, bytes: &Bytes) -> Result<(), LimitExceeded> {
        let scanned = self.scanner.scan(bytes);
        if let Some(counters) = &self.counters {
            counters.count(scanned);
        }
        self.received_bytes += bytes.len();
        let waiting =
            if self.count_all { self.received_bytes } else { self.scanner.unfinished_bytes() };
        let bytes = match waiting {
            0 => 0,
            bytes => bytes + PARTIAL_OVERHEAD_BYTES,
        };
        self.partial.set(bytes)
    }
}

impl<B: HttpBody<Data = Bytes, Error: Into<axum::BoxError>> + Unpin> HttpBody for RequestBody<B> {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Err(_)) = frame {
            return Poll::Ready(Some(Err(api::request_aborted().into())));
        }
        if let Some(bytes) = frame.as_ref().and_then(|f| f.as_ref().ok()).and_then(Frame::data_ref)
            && self.note_data(bytes).is_err()
        {
            return Poll::Ready(Some(Err(limit_exceeded().into())));
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Reads a request to its end. All of it counts as one incomplete message until the returned body is
/// dropped.
///
/// # Errors
/// The status of the refused call, if the request breaks off or exceeds a bound.
pub async fn read_to_end<B>(
    request: Request<RequestBody<B>>,
) -> Result<Request<BufferedBody>, Status>
where
    B: HttpBody<Data = Bytes, Error: Into<axum::BoxError>> + Unpin,
{
    let (head, mut body) = request.into_parts();
    body.count_all = true;
    let mut frames = VecDeque::new();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        // gRPC requests have no trailers.
        if let Ok(data) = frame.map_err(Status::from_error)?.into_data() {
            frames.push_back(data);
        }
    }
    Ok(Request::from_parts(head, BufferedBody { frames, _partial: body.partial }))
}

/// A request that was read to its end.
pub struct BufferedBody {
    frames: VecDeque<Bytes>,
    _partial: PartialMessage,
}

impl HttpBody for BufferedBody {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        Poll::Ready(self.frames.pop_front().map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty()
    }
}

/// The bytes of one incomplete message.
#[derive(Debug)]
struct PartialMessage {
    memory: Arc<RequestMemory>,
    bytes: usize,
}

impl PartialMessage {
    fn set(&mut self, bytes: usize) -> Result<(), LimitExceeded> {
        let before = std::mem::replace(&mut self.bytes, bytes);
        let all = &self.memory.partial_bytes;
        if bytes <= before {
            // Most messages arrive as a whole, and nothing changes.
            if bytes < before {
                all.fetch_sub(before - bytes, Ordering::Relaxed);
            }
            return Ok(());
        }
        let more = bytes - before;
        let sum = all.fetch_add(more, Ordering::Relaxed) + more;
        if sum > PARTIAL_MESSAGE_BYTES_MAX { Err(LimitExceeded) } else { Ok(()) }
    }
}

impl Drop for PartialMessage {
    fn drop(&mut self) {
        self.memory.partial_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use futures_util::{StreamExt, stream};
    use tonic::Code;

    use super::*;

    fn headers(bytes: usize) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("x", "v".repeat(bytes - 33).parse().unwrap());
        headers
    }

    #[test]
    fn headers_count_until_the_request_is_answered() {
        let memory = Arc::<RequestMemory>::default();
        let half = headers(HEADER_BYTES_MAX / 2);
        let (first, _second) =
            (memory.admit_headers(&half).unwrap(), memory.admit_headers(&half).unwrap());
        assert!(memory.admit_headers(&headers(34)).is_err());
        drop(first);
        assert!(memory.admit_headers(&half).is_ok());
    }

    /// A body with the first half of a message of this many bytes.
    fn half_of(memory: &Arc<RequestMemory>, bytes: usize) -> RequestBody<Body> {
        let mut data = vec![0; 5 + bytes / 2];
        data[1..5].copy_from_slice(&u32::try_from(bytes).unwrap().to_be_bytes());
        let frames = stream::iter([Ok::<_, axum::Error>(Bytes::from(data))]);
        RequestBody::new(Body::from_stream(frames.chain(stream::pending())), memory.clone(), None)
    }

    async fn read(body: &mut RequestBody<Body>) -> Result<(), Code> {
        let frame = std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await;
        let error = match frame {
            Some(Err(error)) => error,
            _ => return Ok(()),
        };
        Err(Status::from_error(error).code())
    }

    #[tokio::test]
    async fn messages_count_until_they_are_complete_or_given_up() {
        let memory = Arc::<RequestMemory>::default();
        let mut large = half_of(&memory, PARTIAL_MESSAGE_BYTES_MAX);
        let mut next = half_of(&memory, PARTIAL_MESSAGE_BYTES_MAX);
        assert_eq!(read(&mut large).await, Ok(()));
        // Together with the overhead, it exceeds the bound.
        assert_eq!(read(&mut next).await, Err(Code::ResourceExhausted));
        drop((large, next));
        assert_eq!(memory.partial_bytes.load(Ordering::Relaxed), 0);
        assert_eq!(read(&mut half_of(&memory, PARTIAL_MESSAGE_BYTES_MAX)).await, Ok(()));
    }
}

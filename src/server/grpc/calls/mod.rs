//! Metrics of the client calls: started, handled by code, duration, messages and bytes; under the names and
//! labels of `go-grpc-prometheus`, which etcd uses.
//!
//! The cost of a call is a search in a sorted table, two reads of the clock, and some atomic additions; no
//! lock, and nothing is formatted.
//!
//! A call ends once: with the status in the trailers of its answer, or in the headers of an answer
//! without a body, or as `Canceled` when its connection ends or its client cancels it first.
//!
//! At `debug`, a call is also a span: `request`, with its method and its number on this member. The spans
//! of `node` and `raft` inside it have term and index.

mod client_versions;
mod exposition;
pub mod methods;

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::{HeaderMap, Response};
use tokio::time::Instant;
use tonic::{Code, Status};

use self::{client_versions::ClientVersions, methods::METHODS};
use super::message_scanner::{MessageScanner, ScannedMessages};
use crate::metrics::{Counter, Histogram};

/// The number of gRPC codes.
const CODES: usize = 17;

/// The default buckets of `go-grpc-prometheus`, which etcd uses.
static HANDLING_BUCKETS: [Duration; 11] = [
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2500),
    Duration::from_secs(5),
    Duration::from_secs(10),
];

/// The metrics of one member's client API. Clones share them.
#[derive(Debug, Clone)]
pub struct CallMetrics {
    counters: Arc<Counters>,
}

#[derive(Debug)]
struct Counters {
    /// In the order of [`METHODS`].
    methods: Vec<MethodCounters>,
    versions: ClientVersions,
    sent_bytes: Counter,
    received_bytes: Counter,
    /// Calls that have a span, and so a number.
    traced: AtomicU64,
}

#[derive(Debug)]
struct MethodCounters {
    started: Counter,
    /// By code.
    handled: [Counter; CODES],
    received: Counter,
    sent: Counter,
    duration: Histogram,
}

impl Default for CallMetrics {
    fn default() -> CallMetrics {
        let methods = METHODS.iter().map(|_| MethodCounters {
            started: Counter::default(),
            handled: Default::default(),
            received: Counter::default(),
            sent: Counter::default(),
            duration: Histogram::new(&HANDLING_BUCKETS),
        });
        let counters = Counters {
            methods: methods.collect(),
            versions: ClientVersions::default(),
            sent_bytes: Counter::default(),
            received_bytes: Counter::default(),
            traced: AtomicU64::new(0),
        };
        CallMetrics { counters: Arc::new(counters) }
    }
}

impl CallMetrics {
    /// A span for a call. Without a subscriber for it, nothing is computed or counted.
    pub fn span(&self, method: usize) -> tracing::Span {
        tracing::debug_span!(
            "request",
            id = self.counters.traced.fetch_add(1, Ordering::Relaxed),
            method = METHODS[method].path(),
        )
    }

    pub fn start(&self, method: usize, headers: &HeaderMap) -> Call {
        self.counters.methods[method].started.increment();
        self.counters.versions.count(METHODS[method].kind.streams(), headers);
        Call {
            counters: self.counters.clone(),
            method,
            begun: Instant::now(),
            scanner: MessageScanner::default(),
            ended: false,
        }
    }

    /// The counters of the messages that a client sends in one call.
    pub fn received(&self, method: usize) -> ReceivedCounters {
        ReceivedCounters { counters: self.counters.clone(), method }
    }
}

/// Counts the messages of one method's requests.
#[derive(Debug)]
pub struct ReceivedCounters {
    counters: Arc<Counters>,
    method: usize,
}

impl ReceivedCounters {
    pub fn count(&self, scanned: ScannedMessages) {
        self.counters.methods[self.method].received.add(scanned.messages);
        self.counters.received_bytes.add(scanned.payload_bytes);
    }
}

/// A call in progress.
pub struct Call {
    counters: Arc<Counters>,
    method: usize,
    begun: Instant,
    /// Scans the response.
    scanner: MessageScanner,
    ended: bool,
}

impl Call {
    fn counts(&self) -> &MethodCounters {
        &self.counters.methods[self.method]
    }

    fn end(&mut self, code: Code) {
        if !std::mem::replace(&mut self.ended, true) {
            self.counts().handled[code as usize].increment();
            self.counts().duration.observe(self.begun.elapsed());
        }
    }

    /// Observes a frame of the response.
    pub fn observe_frame(&mut self, frame: &Result<Frame<Bytes>, axum::Error>) {
        match frame {
            Ok(frame) => {
                if let Some(bytes) = frame.data_ref() {
                    let scanned = self.scanner.scan(bytes);
                    self.counts().sent.add(scanned.messages);
                    self.counters.sent_bytes.add(scanned.payload_bytes);
                } else if let Some(trailers) = frame.trailers_ref() {
                    self.end(code(trailers).unwrap_or(Code::Unknown));
                }
            }
            Err(_) => self.end(Code::Internal),
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.end(Code::Cancelled);
    }
}

fn code(headers: &HeaderMap) -> Option<Code> {
    headers.get(Status::GRPC_STATUS).map(|status| Code::from_bytes(status.as_bytes()))
}

/// The body of a response, observed to its end.
pub struct MeasuredBody<B> {
    body: B,
    call: Option<Call>,
}

impl<B> MeasuredBody<B> {
    /// The body of a call that is not counted.
    pub fn uncounted(body: B) -> MeasuredBody<B> {
        MeasuredBody { body, call: None }
    }

    pub fn follow(mut call: Option<Call>, response: Response<B>) -> Response<MeasuredBody<B>> {
        if let (Some(call), Some(code)) = (&mut call, code(response.headers())) {
            call.end(code);
        }
        response.map(|body| MeasuredBody { body, call })
    }
}

impl<B> HttpBody for MeasuredBody<B>
where
    B: HttpBody<Data = Bytes, Error = axum::Error> + Unpin,
{
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let (Some(call), Some(frame)) = (&mut self.call, &frame) {
            call.observe_frame(frame);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::{EnvFilter, layer::SubscriberExt};

    use super::*;
    use crate::server::telemetry::DEFAULT_FILTER;

    /// The number of spans for three calls.
    fn traced(filter: &str) -> u64 {
        let calls = CallMetrics::default();
        let lines = tracing_subscriber::fmt::layer().with_writer(std::io::sink);
        let subscriber = tracing_subscriber::registry().with(lines).with(EnvFilter::new(filter));
        tracing::subscriber::with_default(subscriber, || {
            (0..3).for_each(|method| drop(calls.span(method)));
        });
        calls.counters.traced.load(Ordering::Relaxed)
    }

    #[test]
    fn a_disabled_span_computes_nothing() {
        assert_eq!(traced(DEFAULT_FILTER), 0);
        assert_eq!(traced("ordinal=debug"), 3);
    }
}

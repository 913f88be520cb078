//! What is known of each client call: begun, ended and how, how long it took, and what went over the
//! wire. Under the names and labels of `go-grpc-prometheus`, which etcd uses.
//!
//! A layer around the whole client API. A call costs it a search in a sorted table, two looks at the
//! clock, and some atomic additions; no lock, and nothing is formatted.
//!
//! A call ends once: with the status in the trailers of its answer, or in the headers of an answer
//! without a body, or as `Canceled` when its connection or its client gives it up first.
//!
//! At `debug`, a call is a span too: `request`, with its method and its number on this member. What
//! `node` and `raft` do for it are spans inside, with term and index.

mod client_versions;
mod messages;
mod methods;
mod show;

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    body::Body,
    extract::{Request, State},
    http::HeaderMap,
    middleware::Next,
    response::Response,
};
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::Instant;
use tonic::{Code, Status};
use tracing::Instrument;

use self::{client_versions::ClientVersions, messages::Messages, methods::METHODS};
use super::answers;
use crate::metrics::{Counter, Histogram};

/// As many as there are codes in gRPC.
const CODES: usize = 17;

/// Those that `go-grpc-prometheus` takes where nothing else is said, as etcd does.
static HANDLING: [Duration; 11] = [
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

/// The counters of one member's client API. Clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Calls {
    all: Arc<All>,
}

#[derive(Debug)]
struct All {
    /// In the order of [`METHODS`].
    methods: Vec<MethodCounts>,
    versions: ClientVersions,
    sent_bytes: Counter,
    received_bytes: Counter,
    /// Calls that were given a span, and so a number.
    traced: AtomicU64,
}

#[derive(Debug)]
struct MethodCounts {
    started: Counter,
    /// By code.
    handled: [Counter; CODES],
    received: Counter,
    sent: Counter,
    took: Histogram,
}

impl Default for Calls {
    fn default() -> Calls {
        let methods = METHODS.iter().map(|_| MethodCounts {
            started: Counter::default(),
            handled: Default::default(),
            received: Counter::default(),
            sent: Counter::default(),
            took: Histogram::new(&HANDLING),
        });
        let all = All {
            methods: methods.collect(),
            versions: ClientVersions::default(),
            sent_bytes: Counter::default(),
            received_bytes: Counter::default(),
            traced: AtomicU64::new(0),
        };
        Calls { all: Arc::new(all) }
    }
}

/// The layer: counts a call, and bounds what its connection does not read.
pub(super) async fn observe(State(calls): State<Calls>, request: Request, next: Next) -> Response {
    let Some(method) = methods::find(request.uri().path()) else {
        return answers::bound(request, next).await;
    };
    let call = calls.begin(method, &request);
    let received = Received { all: calls.all.clone(), method, messages: Messages::default() };
    let request = request.map(|body| Body::new(Observed { body, on: received }));
    let span = calls.span(method);
    let response = answers::bound(request, next).instrument(span).await;
    call.answered(response)
}

impl Calls {
    /// Costs nothing, and counts nothing, unless somebody wants to see it.
    fn span(&self, method: usize) -> tracing::Span {
        tracing::debug_span!(
            "request",
            id = self.all.traced.fetch_add(1, Ordering::Relaxed),
            method = METHODS[method].path(),
        )
    }

    fn begin(&self, method: usize, request: &Request) -> Call {
        let all = self.all.clone();
        all.methods[method].started.increment();
        all.versions.count(METHODS[method].kind.streams(), request.headers());
        Call { all, method, begun: Instant::now(), messages: Messages::default(), ended: false }
    }
}

/// A call under way.
struct Call {
    all: Arc<All>,
    method: usize,
    begun: Instant,
    /// Of the answer.
    messages: Messages,
    ended: bool,
}

impl Call {
    fn counts(&self) -> &MethodCounts {
        &self.all.methods[self.method]
    }

    fn end(&mut self, code: Code) {
        if !std::mem::replace(&mut self.ended, true) {
            self.counts().handled[code as usize].increment();
            self.counts().took.observe(self.begun.elapsed());
        }
    }

    /// Follows the answer to its end.
    fn answered(mut self, response: Response) -> Response {
        if let Some(code) = code(response.headers()) {
            self.end(code);
            return response;
        }
        response.map(|body| Body::new(Observed { body, on: self }))
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

/// What a client sends in one call.
struct Received {
    all: Arc<All>,
    method: usize,
    messages: Messages,
}

/// Sees the frames of a body go by.
trait Observer: Send + Unpin + 'static {
    fn data(&mut self, bytes: &Bytes);
    fn trailers(&mut self, _trailers: &HeaderMap) {}
    /// The body broke off.
    fn failed(&mut self) {}
}

impl Observer for Received {
    fn data(&mut self, bytes: &Bytes) {
        let seen = self.messages.see(bytes);
        self.all.methods[self.method].received.add(seen.messages);
        self.all.received_bytes.add(seen.payload_bytes);
    }
}

impl Observer for Call {
    fn data(&mut self, bytes: &Bytes) {
        let seen = self.messages.see(bytes);
        self.counts().sent.add(seen.messages);
        self.all.sent_bytes.add(seen.payload_bytes);
    }

    fn trailers(&mut self, trailers: &HeaderMap) {
        self.end(code(trailers).unwrap_or(Code::Unknown));
    }

    fn failed(&mut self) {
        self.end(Code::Internal);
    }
}

struct Observed<T> {
    body: Body,
    on: T,
}

impl<T: Observer> HttpBody for Observed<T> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(bytes) = frame.data_ref() {
                    self.on.data(bytes);
                } else if let Some(trailers) = frame.trailers_ref() {
                    self.on.trailers(trailers);
                }
            }
            Some(Err(_)) => self.on.failed(),
            None => {}
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

    /// How many of three calls were given a span.
    fn traced(filter: &str) -> u64 {
        let calls = Calls::default();
        let lines = tracing_subscriber::fmt::layer().with_writer(std::io::sink);
        let subscriber = tracing_subscriber::registry().with(lines).with(EnvFilter::new(filter));
        tracing::subscriber::with_default(subscriber, || {
            (0..3).for_each(|method| drop(calls.span(method)));
        });
        calls.all.traced.load(Ordering::Relaxed)
    }

    #[test]
    fn nothing_of_a_span_is_computed_that_nobody_sees() {
        assert_eq!(traced(DEFAULT_FILTER), 0);
        assert_eq!(traced("ordinal=debug"), 3);
    }
}

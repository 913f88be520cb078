//! Every body that wraps another ends exactly like the inner body: the same frames, and the same
//! `is_end_stream` at each step. HTTP/2 uses `is_end_stream` to decide whether HEADERS or DATA close the
//! stream, and clients refuse a stream that is closed in the wrong place.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame};
use hyper::{HeaderMap, Response, header::HeaderValue};
use tokio::time::Instant;
use tonic::Status;

use super::{
    calls::{CallMetrics, MeasuredBody},
    deadline::DeadlineBody,
    request_memory::{RequestBody, RequestMemory},
    response_memory::{self, BudgetedBody, ResponseBudget},
};

/// One result of `poll_frame`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Pending,
    Data,
    Trailers,
    End,
}
use Step::{Data, End, Pending, Trailers};

/// A body that follows a script, and has ended when no step is left.
struct Scripted(VecDeque<Step>);

impl HttpBody for Scripted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        match self.0.pop_front() {
            Some(Pending) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Some(Data) => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[0; 5]))))),
            Some(Trailers) => Poll::Ready(Some(Ok(Frame::trailers(trailers())))),
            Some(End) | None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }
}

fn trailers() -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert(Status::GRPC_STATUS, HeaderValue::from_static("0"));
    trailers
}

fn scripted(steps: &[Step]) -> Body {
    Body::new(Scripted(steps.iter().copied().collect()))
}

/// `is_end_stream` and the result of `poll_frame` at each step of a body, to its end.
fn steps(body: &mut (impl HttpBody<Data = Bytes> + Unpin)) -> Vec<(bool, Step)> {
    let mut cx = Context::from_waker(Waker::noop());
    let mut steps = Vec::new();
    while steps.last().is_none_or(|(_, step)| *step != End) {
        let ended = body.is_end_stream();
        let step = match Pin::new(&mut *body).poll_frame(&mut cx) {
            Poll::Pending => Pending,
            Poll::Ready(None) => End,
            Poll::Ready(Some(Ok(frame))) if frame.is_data() => Data,
            Poll::Ready(Some(_)) => Trailers,
        };
        steps.push((ended, step));
    }
    steps
}

/// Bodies as services make them; the last two end without an earlier `is_end_stream`.
const BODIES: &[&[Step]] = &[
    &[],
    &[Data, Trailers],
    &[Data, Pending, Data, Trailers],
    &[Pending, Data, Trailers],
    &[Trailers],
    &[Data, Trailers, End],
    &[Data, End],
];

#[tokio::test]
async fn no_layer_changes_how_a_stream_ends() {
    let far = Some(Instant::now() + Duration::from_secs(60));
    for script in BODIES {
        let expected = steps(&mut scripted(script));
        assert_eq!(steps(&mut BudgetedBody::unbudgeted(scripted(script))), expected, "{script:?}");
        let behind = &mut BudgetedBody::encoded_later(scripted(script), Arc::default());
        assert_eq!(steps(behind), expected, "{script:?}");
        assert_eq!(steps(&mut DeadlineBody::new(scripted(script), None)), expected, "{script:?}");
        assert_eq!(steps(&mut DeadlineBody::new(scripted(script), far)), expected, "{script:?}");
        let mut call = CallMetrics::default().start(0, &HeaderMap::new());
        call.observe_frame(&Ok(Frame::data(Bytes::new())));
        let answered = MeasuredBody::follow(Some(call), Response::new(scripted(script)));
        assert_eq!(steps(&mut answered.into_body()), expected, "{script:?}");
        let mut received =
            RequestBody::new(scripted(script), Arc::<RequestMemory>::default(), None);
        assert_eq!(steps(&mut received), expected, "{script:?}");
    }
}

#[test]
fn a_response_that_was_encoded_ahead_ends_as_it_would_have() {
    let unread = Arc::<ResponseBudget>::default();
    for script in BODIES {
        let expected = steps(&mut scripted(script));
        let response = response_memory::encode_now(Response::new(scripted(script)), &unread);
        let refused = response.headers().contains_key(Status::GRPC_STATUS);
        let actual = steps(&mut response.into_body());
        match expected[..] {
            // The refusal moves into the headers, and these end the stream.
            [(_, Trailers), ..] => assert_eq!((refused, &actual[..]), (true, &[(true, End)][..])),
            // The encoding has polled it once already.
            [(_, Pending), ref rest @ ..] => assert_eq!(actual, rest, "{script:?}"),
            _ => assert_eq!(actual, expected, "{script:?}"),
        }
        assert!(!refused || script[0] == Trailers);
    }
}

#[tokio::test]
async fn a_stream_ends_with_trailers_when_its_time_is_over() {
    /// Never pending, except once after its first message.
    struct Endless(bool);

    impl HttpBody for Endless {
        type Data = Bytes;
        type Error = axum::Error;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
            self.0 = !self.0;
            if self.0 {
                return Poll::Ready(Some(Ok(Frame::data(Bytes::new()))));
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    }

    let deadline = Instant::now() + Duration::from_millis(20);
    let mut body = DeadlineBody::new(Endless(false), Some(deadline));
    let mut frames = 0;
    let end = loop {
        let frame = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await;
        match frame.unwrap().unwrap() {
            frame if frame.is_data() => frames += 1,
            frame => break frame.into_trailers().unwrap(),
        }
    };
    assert!(frames > 0 && Instant::now() >= deadline);
    let status = Status::from_header_map(&end).unwrap();
    assert_eq!(status.code(), tonic::Code::DeadlineExceeded);
    assert_eq!(status.message(), "context deadline exceeded");
    assert!(body.is_end_stream());
    let next = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await;
    assert!(next.is_none());
}

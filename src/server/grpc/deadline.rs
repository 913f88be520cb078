//! The deadline that a client sets for a call (`grpc-timeout`). After it the call ends with
//! `DeadlineExceeded`, whether its service still runs or its response is a stream.
//!
//! The outcome of a write in flight is unknown then, as with any timeout.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::{HeaderMap, Response};
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};
use tonic::Status;

use super::response_memory::BudgetedBody;

/// etcd's text.
const EXCEEDED: &str = "context deadline exceeded";

/// The response of `handled`, or a refusal at the deadline.
pub async fn within(
    deadline: Option<Instant>,
    handled: impl Future<Output = Response<BudgetedBody>>,
) -> Response<BudgetedBody> {
    let Some(deadline) = deadline else { return handled.await };
    // Nothing starts for a client that has stopped waiting.
    let response = match deadline > Instant::now() {
        true => timeout_at(deadline, handled).await.ok(),
        false => None,
    };
    response.unwrap_or_else(|| {
        Status::deadline_exceeded(EXCEEDED).into_http::<Body>().map(BudgetedBody::unbudgeted)
    })
}

/// A body that ends at a deadline.
pub struct DeadlineBody<B> {
    body: B,
    deadline: Option<Instant>,
    /// Present once the body was pending; most bodies never are.
    timer: Option<Pin<Box<Sleep>>>,
    exceeded: bool,
}

impl<B> DeadlineBody<B> {
    pub fn new(body: B, deadline: Option<Instant>) -> DeadlineBody<B> {
        DeadlineBody { body, deadline, timer: None, exceeded: false }
    }

    fn poll_exceeded(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        timer.as_mut().poll(cx)
    }
}

impl<B: HttpBody<Data = Bytes> + Unpin> HttpBody for DeadlineBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        if self.exceeded {
            return Poll::Ready(None);
        }
        // A stream that is never pending must end, too.
        let late = self.timer.is_some() && self.deadline.is_some_and(|d| d <= Instant::now());
        if !late && let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame);
        }
        let Some(deadline) = self.deadline else { return Poll::Pending };
        if self.poll_exceeded(deadline, cx).is_pending() {
            return Poll::Pending;
        }
        self.exceeded = true;
        Poll::Ready(Some(Ok(Frame::trailers(exceeded()))))
    }

    fn is_end_stream(&self) -> bool {
        self.exceeded || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // With a deadline the body may be shorter.
        if self.deadline.is_some() { SizeHint::default() } else { self.body.size_hint() }
    }
}

fn exceeded() -> HeaderMap {
    let mut trailers = HeaderMap::new();
    let added = Status::deadline_exceeded(EXCEEDED).add_header(&mut trailers);
    assert!(added.is_ok(), "a status without details fits into headers");
    trailers
}

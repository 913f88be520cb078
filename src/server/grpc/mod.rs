//! The layers around every call of the client API, in the order in which a request passes them.
//!
//! ```text
//! protocol          refuses requests that are not gRPC; reads the timeout
//! request_memory    bounds the memory of one connection's headers and incomplete requests
//! calls             counts the call, and measures it to its end
//! deadline          ends the call at its deadline
//! response_memory   bounds the unread responses of one connection
//! status_text       keeps the text of a status readable on the wire
//! ```
//!
//! Behind them are the routes to the services.
//!
//! Invariant: **no layer changes how a stream ends.** A refusal is one HEADERS frame that ends the stream; a
//! response ends with trailers. So each body here ends exactly when its inner body ends, and both report it
//! at the same step (`stream_end_tests.rs` tests all of them).

pub mod calls;
mod deadline;
mod message_scanner;
mod protocol;
mod request_memory;
mod response_memory;
mod status_text;
#[cfg(test)]
mod stream_end_tests;

use std::{
    borrow::Cow,
    convert::Infallible,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use axum::{Router, body::Body};
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::{Request, Response, body::Incoming, service::Service};
use tokio::time::Instant;
use tonic::{codegen::Service as _, service::Routes};
use tracing::Instrument;

use self::{
    calls::{CallMetrics, MeasuredBody, methods},
    deadline::{DeadlineBody, within},
    request_memory::{HeaderPermit, RequestBody, RequestMemory},
    response_memory::{BudgetedBody, ResponseBound, ResponseBudgets},
};
use crate::api::{self, ClientAddress};

/// A canceled watch is logged with its client's address.
const WATCH: &str = "/etcdserverpb.Watch/Watch";

/// Serves the calls of one member's clients.
#[derive(Debug, Clone)]
pub struct GrpcServer {
    routes: Router,
    calls: CallMetrics,
}

impl GrpcServer {
    pub fn new(routes: Routes, calls: CallMetrics) -> GrpcServer {
        GrpcServer { routes: routes.prepare().into_axum_router(), calls }
    }

    /// The service for one connection of `client`.
    pub fn connection(&self, client: SocketAddr) -> GrpcConnection {
        let memory = Arc::<RequestMemory>::default();
        GrpcConnection { grpc: self.clone(), client, memory, budgets: ResponseBudgets::default() }
    }
}

/// The calls of one connection. Clones are the same connection.
#[derive(Debug, Clone)]
pub struct GrpcConnection {
    grpc: GrpcServer,
    client: SocketAddr,
    memory: Arc<RequestMemory>,
    budgets: ResponseBudgets,
}

impl Service<Request<Incoming>> for GrpcConnection {
    type Response = Response<ResponseBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<ResponseBody>, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let connection = self.clone();
        Box::pin(async move {
            let mut response = connection.answer(request).await;
            status_text::make_readable(response.headers_mut());
            Ok(response)
        })
    }
}

impl GrpcConnection {
    async fn answer(self, request: Request<Incoming>) -> Response<ResponseBody> {
        let time_limit = match protocol::check(&request) {
            Ok(time_limit) => time_limit,
            Err(not_grpc) => return not_grpc.into_response().map(ResponseBody::refusal),
        };
        let Ok(headers) = self.memory.admit_headers(request.headers()) else {
            return request_memory::limit_exceeded().into_http().map(ResponseBody::refusal);
        };
        // A deadline beyond the range of the clock is none.
        let deadline = time_limit.and_then(|limit| Instant::now().checked_add(limit));
        let path = request.uri().path();
        let bound = self.budgets.bound_of(path);
        let method = methods::find(path);
        let routed = RoutedCall { routes: self.grpc.routes, path: name(method, path) };
        let call = method.map(|method| self.grpc.calls.start(method, request.headers()));
        let counts = method.map(|method| self.grpc.calls.received(method));
        let span = method.map_or_else(tracing::Span::none, |method| self.grpc.calls.span(method));

        let mut request = request.map(|body| RequestBody::new(body, self.memory.clone(), counts));
        if request.uri().path() == WATCH {
            request.extensions_mut().insert(ClientAddress(self.client));
        }
        let handled = within(deadline, routed.handle(bound, request));
        let response = handled.instrument(span).await;
        let response = response.map(|body| DeadlineBody::new(body, deadline));
        MeasuredBody::follow(call, response)
            .map(|body| ResponseBody { body, _headers: Some(headers) })
    }
}

/// The path of a call, without a copy for known methods.
fn name(method: Option<usize>, path: &str) -> Cow<'static, str> {
    method.map_or_else(|| path.to_owned().into(), |method| methods::METHODS[method].path().into())
}

/// A call on its way to its service.
struct RoutedCall {
    routes: Router,
    path: Cow<'static, str>,
}

impl RoutedCall {
    async fn call<B>(mut self, request: Request<B>) -> Response<Body>
    where
        B: HttpBody<Data = Bytes, Error: Into<axum::BoxError>> + Send + 'static,
    {
        let Ok(response) = self.routes.call(request).await;
        api::translate_transport_error(&self.path, response)
    }

    async fn handle(
        self,
        bound: ResponseBound,
        request: Request<RequestBody<Incoming>>,
    ) -> Response<BudgetedBody> {
        let budget = match bound {
            ResponseBound::BeforeCall(budget) => budget,
            ResponseBound::BeforeEncoding(budget) => {
                let response = self.call(request).await;
                return response.map(|body| BudgetedBody::encoded_later(body, budget));
            }
            ResponseBound::ByService => {
                return self.call(request).await.map(BudgetedBody::unbudgeted);
            }
        };
        let (_permit, response) = match budget.try_start_request() {
            Some(permit) => (permit, self.call(request).await),
            None => {
                // Read the request before it waits. Unread bytes fill the window of the connection, and then
                // no request can complete, not even those that are running.
                let request = match request_memory::read_to_end(request).await {
                    Ok(request) => request,
                    Err(status) => {
                        let refusal =
                            api::translate_transport_error(&self.path, status.into_http());
                        return refusal.map(BudgetedBody::unbudgeted);
                    }
                };
                let permit = budget.start_request().await;
                budget.room().await;
                (permit, self.call(request).await)
            }
        };
        // Other responses may have been encoded meanwhile.
        budget.room().await;
        response_memory::encode_now(response, &budget)
    }
}

fn with_readable_text(mut frame: Frame<Bytes>) -> Frame<Bytes> {
    if let Some(trailers) = frame.trailers_mut() {
        status_text::make_readable(trailers);
    }
    frame
}

/// The body of a response, with all its layers.
pub struct ResponseBody {
    body: MeasuredBody<DeadlineBody<BudgetedBody>>,
    /// Counts the headers of the request until the response ends.
    _headers: Option<HeaderPermit>,
}

impl ResponseBody {
    fn refusal(empty: Body) -> ResponseBody {
        let body =
            MeasuredBody::uncounted(DeadlineBody::new(BudgetedBody::unbudgeted(empty), None));
        ResponseBody { body, _headers: None }
    }
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        Poll::Ready(frame.map(|frame| frame.map(with_readable_text)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

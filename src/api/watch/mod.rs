//! Watches: maps what a client asks to [`Watches`], and what that answers to messages.
//!
//! A stream costs no task of its own: the body of the response, while it is polled, also reads the
//! requests. The method is written out, and not generated, for the sake of that body: events are
//! encoded once for all watches, and what HTTP/2 has of them counts as theirs until it is sent.
//!
//! ```text
//! requests   what the client asks, and when the stream ends
//! body       messages, put into frames
//! ```

mod body;
mod requests;

use std::{convert::Infallible, time::Duration};

use axum::{
    body::Body,
    http::{self, HeaderMap, header::CONTENT_TYPE},
};
use tonic::{Request, Status, Streaming, metadata::GRPC_CONTENT_TYPE};

use self::{
    body::Frames,
    requests::{RequestDecoder, Requests},
};
use super::session;
use crate::{node::NodePort, proto::etcdserverpb::WatchRequest, stop::Stopping, watch::Watches};

pub(super) const PATH: &str = "/etcdserverpb.Watch/Watch";

const ENCODING: &str = "grpc-encoding";
const ACCEPTED_ENCODINGS: &str = "grpc-accept-encoding";

/// Where a request comes from, for the log. Whoever accepts connections adds it to requests.
#[derive(Debug, Clone, Copy)]
pub struct ClientAddress(pub std::net::SocketAddr);

#[derive(Clone)]
pub(super) struct WatchService<N> {
    pub(super) node: N,
    pub(super) watches: Watches,
    pub(super) stopping: Stopping,
    /// Watches that ask for it are told this often how far they have come, give or take a tenth.
    pub(super) progress_interval: Duration,
    pub(super) message_bytes_max: usize,
}

impl<N: NodePort> WatchService<N> {
    /// Serves one call.
    pub(super) async fn call(
        self,
        request: http::Request<Body>,
    ) -> Result<http::Response<Body>, Infallible> {
        Ok(self.open(request).await.unwrap_or_else(Status::into_http))
    }

    async fn open(&self, request: http::Request<Body>) -> Result<http::Response<Body>, Status> {
        check_encoding(request.headers())?;
        let request = Request::from_http(request.map(|body| self.messages(body)));
        // What the client has seen is no news to it.
        session::of(&self.node, &request)?.caught_up(&self.node).await?;
        let requests = Requests::new(self, request)?;
        let frames = Frames::new(self.node.clone(), requests);
        let mut response = http::Response::new(Body::new(frames));
        response.headers_mut().insert(CONTENT_TYPE, GRPC_CONTENT_TYPE);
        Ok(response)
    }

    fn messages(&self, body: Body) -> Streaming<WatchRequest> {
        Streaming::new_request(RequestDecoder, body, None, Some(self.message_bytes_max))
    }
}

/// Refuses compressed requests, as the other methods do.
fn check_encoding(headers: &HeaderMap) -> Result<(), Status> {
    let Some(encoding) = headers.get(ENCODING).filter(|encoding| *encoding != "identity") else {
        return Ok(());
    };
    let encoding = String::from_utf8_lossy(encoding.as_bytes());
    let mut status = Status::unimplemented(format!(
        "Content is compressed with `{encoding}` which isn't supported"
    ));
    let metadata = status.metadata_mut();
    metadata.insert(ACCEPTED_ENCODINGS, tonic::metadata::MetadataValue::from_static("identity"));
    Err(status)
}

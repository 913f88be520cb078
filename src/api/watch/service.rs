//! Opens watch streams.

use std::{convert::Infallible, time::Duration};

use axum::{
    body::Body,
    http::{self, HeaderMap, header::CONTENT_TYPE},
};
use tonic::{Request, Status, Streaming, codec::CompressionEncoding, metadata::GRPC_CONTENT_TYPE};

use super::{
    super::{errors, header, options::STREAM_MESSAGE_BYTES_MAX, session},
    body::ResponseBody,
    requests::{RequestDecoder, Requests},
};
use crate::{
    node::NodePort, proto::etcdserverpb::WatchRequest, shutdown::ShutdownSignal, watch::Watches,
};

pub const PATH: &str = "/etcdserverpb.Watch/Watch";

const ENCODING: &str = "grpc-encoding";

/// The address of the client, for the log. The server adds it to each request.
#[derive(Debug, Clone, Copy)]
pub struct ClientAddress(pub std::net::SocketAddr);

#[derive(Clone)]
pub struct WatchService<N> {
    pub node: N,
    pub watches: Watches,
    pub shutdown: ShutdownSignal,
    /// Interval between progress notifications on idle watches, plus up to a tenth.
    pub progress_interval: Duration,
    pub message_bytes_max: usize,
}

impl<N: NodePort> WatchService<N> {
    /// Serves one call.
    pub async fn call(
        self,
        request: http::Request<Body>,
    ) -> Result<http::Response<Body>, Infallible> {
        Ok(self.open(request).await.unwrap_or_else(Status::into_http))
    }

    async fn open(&self, request: http::Request<Body>) -> Result<http::Response<Body>, Status> {
        let encoding = encoding(request.headers())?;
        let request = Request::from_http(request.map(|body| self.messages(body, encoding)));
        // Otherwise the watch could deliver events that the client has seen already.
        session::of(&self.node, &request)?.wait_until_applied(&self.node).await?;
        let requests = self.requests(request)?;
        let body = ResponseBody::new(self.node.clone(), requests);
        let mut response = http::Response::new(Body::new(body));
        response.headers_mut().insert(CONTENT_TYPE, GRPC_CONTENT_TYPE);
        Ok(response)
    }

    fn messages(
        &self,
        body: Body,
        encoding: Option<CompressionEncoding>,
    ) -> Streaming<WatchRequest> {
        let bytes_max = match encoding {
            Some(_) => STREAM_MESSAGE_BYTES_MAX,
            None => self.message_bytes_max,
        };
        Streaming::new_request(RequestDecoder, body, encoding, Some(bytes_max))
    }

    fn requests(&self, request: Request<Streaming<WatchRequest>>) -> Result<Requests, Status> {
        let leader_lost = header::leader_lost(&self.node, &request)?;
        let peer = request.extensions().get::<ClientAddress>();
        let peer = peer.map_or_else(|| "unknown".to_string(), |peer| peer.0.to_string());
        let mut shutdown = self.shutdown.clone();
        let stopped = Box::pin(async move { shutdown.wait().await });
        let watches = self.watches.open(peer);
        let messages = request.into_inner();
        Ok(Requests::new(watches, messages, leader_lost, stopped, self.progress_interval))
    }
}

/// The compression of the requests, with the same choice as for the other methods.
fn encoding(headers: &HeaderMap) -> Result<Option<CompressionEncoding>, Status> {
    let Some(encoding) = headers.get(ENCODING) else { return Ok(None) };
    match encoding.as_bytes() {
        b"identity" => Ok(None),
        b"gzip" => Ok(Some(CompressionEncoding::Gzip)),
        unknown => Err(errors::unknown_encoding(&String::from_utf8_lossy(unknown))),
    }
}

//! Watches: maps what a client asks to [`Watches`], and what that answers to messages.
//!
//! A stream costs no task of its own: the response, while it is polled, also reads the requests. The
//! method is written out, and not generated, for the sake of its codec: events are encoded once for
//! all watches, and a message is put together from its own few bytes and theirs.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::{body::Body, http};
use bytes::{BufMut, Bytes};
use futures_util::{FutureExt, Stream, future::BoxFuture};
use prost::Message as _;
use tokio::time::{Instant, Sleep};
use tonic::{
    Request, Response, Status, Streaming,
    codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    server::{Grpc, StreamingService},
};

use super::{errors, header, session};
use crate::{
    node::{Header, NodeError, NodePort},
    proto::etcdserverpb::{
        WatchCreateRequest, WatchRequest, WatchResponse, watch_create_request::FilterType,
        watch_request::RequestUnion,
    },
    stop::Stopping,
    types::{KeyRange, Revision},
    watch::{self, Kind, NewWatch, Wants, WatchStream, Watches},
};

pub(super) const PATH: &str = "/etcdserverpb.Watch/Watch";

/// As long as there are events to send, the stream looks after everything else once in so many.
const EVENTS_AT_ONCE: u32 = 64;
/// So many requests of a stream are taken before others have their turn.
const REQUESTS_AT_ONCE: usize = 64;

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
    ) -> Result<http::Response<tonic::body::Body>, Infallible> {
        let mut grpc = Grpc::new(WatchCodec).max_decoding_message_size(self.message_bytes_max);
        Ok(grpc.streaming(self, request).await)
    }

    fn open(&self, request: Request<Streaming<WatchRequest>>) -> Result<Messages<N>, Status> {
        let leader_lost = header::leader_lost(&self.node, &request)?;
        let peer = request.extensions().get::<ClientAddress>();
        let peer = peer.map_or_else(|| "unknown".to_string(), |peer| peer.0.to_string());
        let mut stopping = self.stopping.clone();
        Ok(Messages {
            header: self.node.header(),
            node: self.node.clone(),
            watches: self.watches.open(peer),
            requests: Some(request.into_inner()),
            leader_lost,
            stopped: async move { stopping.wait().await }.boxed(),
            progress_interval: self.progress_interval,
            tick: None,
            events_at_once: 0,
            ended: false,
        })
    }
}

impl<N: NodePort> StreamingService<WatchRequest> for WatchService<N> {
    type Response = Outgoing;
    type ResponseStream = Messages<N>;
    type Future = BoxFuture<'static, Result<Response<Messages<N>>, Status>>;

    fn call(&mut self, request: Request<Streaming<WatchRequest>>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            // What the client has seen is no news to it.
            let session = session::of(&service.node, &request)?;
            session.caught_up(&service.node).await?;
            service.open(request).map(Response::new)
        })
    }
}

/// What one client is sent.
pub(super) struct Messages<N> {
    node: N,
    /// As of the last time that the stream ran dry: the term for what comes next.
    header: Header,
    watches: WatchStream,
    /// `None`: the client sends no more; its watches go on, as etcd's do.
    requests: Option<Streaming<WatchRequest>>,
    leader_lost: BoxFuture<'static, ()>,
    stopped: BoxFuture<'static, ()>,
    progress_interval: Duration,
    /// There once a watch wants to be told its progress.
    tick: Option<Pin<Box<Sleep>>>,
    events_at_once: u32,
    ended: bool,
}

/// Nothing in it is pinned in place.
impl<N> Unpin for Messages<N> {}

impl<N: NodePort> Stream for Messages<N> {
    type Item = Result<Outgoing, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        if this.events_at_once < EVENTS_AT_ONCE
            && let Poll::Ready(next) = this.watches.poll_next(cx)
        {
            this.events_at_once += 1;
            return Poll::Ready(this.message(next));
        }
        this.events_at_once = 0;
        this.header = this.node.header();
        if let Poll::Ready(status) = this.poll_end(cx) {
            this.ended = true;
            return Poll::Ready(Some(Err(status)));
        }
        this.poll_tick(cx);
        this.watches.poll_next(cx).map(|next| this.message(next))
    }
}

impl<N: NodePort> Messages<N> {
    /// Ready when the stream is to end. Hands on requests meanwhile.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
        if self.stopped.poll_unpin(cx).is_ready() {
            return Poll::Ready(NodeError::Stopped.into());
        }
        if self.leader_lost.poll_unpin(cx).is_ready() {
            return Poll::Ready(NodeError::NoLeader.into());
        }
        let mut asked_at_once = 0;
        while let Some(requests) = &mut self.requests {
            // Others have their turn.
            if asked_at_once == REQUESTS_AT_ONCE {
                cx.waker().wake_by_ref();
                break;
            }
            asked_at_once += 1;
            if self.watches.poll_ask(cx).is_pending() {
                break;
            }
            match Pin::new(requests).poll_next(cx) {
                Poll::Ready(Some(Ok(request))) => self.ask(request),
                Poll::Ready(Some(Err(status))) => {
                    return Poll::Ready(errors::of_transport(&status).unwrap_or(status));
                }
                Poll::Ready(None) => self.requests = None,
                Poll::Pending => break,
            }
        }
        Poll::Pending
    }

    /// What asks nothing is passed over, as etcd does.
    fn ask(&mut self, request: WatchRequest) {
        match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => {
                let watch = new_watch(create);
                if watch.progress && self.tick.is_none() {
                    self.tick = Some(Box::pin(tokio::time::sleep(self.progress_interval)));
                }
                self.watches.create(watch);
            }
            Some(RequestUnion::CancelRequest(cancel)) => self.watches.cancel(cancel.watch_id),
            Some(RequestUnion::ProgressRequest(_)) => self.watches.progress(),
            None => {}
        }
    }

    fn poll_tick(&mut self, cx: &mut Context<'_>) {
        let Some(tick) = &mut self.tick else { return };
        while tick.poll_unpin(cx).is_ready() {
            self.watches.tick();
            let interval =
                self.progress_interval + self.watches.jitter(self.progress_interval / 10);
            tick.as_mut().reset(Instant::now() + interval);
        }
    }

    fn message(&mut self, next: Option<watch::Response>) -> Option<Result<Outgoing, Status>> {
        let Some(next) = next else {
            // This member watches no more, so it is stopping.
            self.ended = true;
            return Some(Err(NodeError::Stopped.into()));
        };
        let mut message = WatchResponse {
            header: Some(header::at(self.header, next.revision)),
            watch_id: next.watch_id,
            ..WatchResponse::default()
        };
        let mut events = Bytes::new();
        match next.kind {
            Kind::Created => message.created = true,
            Kind::Refused(refusal) => {
                (message.created, message.canceled) = (true, true);
                message.cancel_reason = refusal.to_string();
            }
            Kind::Canceled => message.canceled = true,
            Kind::Compacted(revision) => {
                message.canceled = true;
                message.compact_revision = revision.0;
            }
            Kind::Progress => {}
            Kind::Events { encoded, more } => {
                message.fragment = more;
                events = encoded;
            }
        }
        Some(Ok(Outgoing { message, events }))
    }
}

fn new_watch(request: WatchCreateRequest) -> NewWatch {
    let WatchCreateRequest { key, range_end, filters, .. } = request;
    // The smallest key there is.
    let start = if key.is_empty() { Bytes::from_static(&[0]) } else { key };
    let keys = match &*range_end {
        [] => KeyRange::One(start),
        [0] => KeyRange::From(start),
        _ => KeyRange::Span { start, end: range_end },
    };
    let wants = Wants {
        no_puts: filters.contains(&(FilterType::Noput as i32)),
        no_deletions: filters.contains(&(FilterType::Nodelete as i32)),
        previous: request.prev_kv,
        fragments: request.fragment,
    };
    NewWatch {
        watch_id: request.watch_id,
        keys,
        start: Revision(request.start_revision),
        wants,
        progress: request.progress_notify,
    }
}

/// One message: all but the events, and these as they are on the wire.
pub(super) struct Outgoing {
    message: WatchResponse,
    events: Bytes,
}

/// Requests and answers of the method. Buffers are small: there may be many idle streams.
#[derive(Debug, Clone, Copy)]
struct WatchCodec;

impl Codec for WatchCodec {
    type Encode = Outgoing;
    type Decode = WatchRequest;
    type Encoder = WatchCodec;
    type Decoder = WatchCodec;

    fn encoder(&mut self) -> WatchCodec {
        WatchCodec
    }

    fn decoder(&mut self) -> WatchCodec {
        WatchCodec
    }
}

impl Encoder for WatchCodec {
    type Item = Outgoing;
    type Error = Status;

    fn encode(&mut self, item: Outgoing, buf: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buf.reserve(item.message.encoded_len() + item.events.len());
        item.message.encode(buf).map_err(|error| Status::internal(error.to_string()))?;
        // Fields of the same message, which may stand in any order.
        buf.put_slice(&item.events);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(1 << 10, 32 << 10)
    }
}

impl Decoder for WatchCodec {
    type Item = WatchRequest;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<WatchRequest>, Status> {
        let request = WatchRequest::decode(buf);
        request.map(Some).map_err(|error| Status::internal(error.to_string()))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(1 << 9, 32 << 10)
    }
}

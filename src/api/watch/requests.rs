//! What a client asks of its stream of watches, and everything that ends the stream.
//!
//! A stream wakes for each change that it tells. What is in here hardly ever changes, so it is looked
//! at only when it, and not a message, woke the stream.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt, Stream, future::BoxFuture, task::AtomicWaker};
use prost::Message as _;
use tokio::time::{Instant, Sleep};
use tonic::{
    Request, Status, Streaming,
    codec::{BufferSettings, DecodeBuf, Decoder},
};

use super::{
    super::{errors, header},
    ClientAddress, WatchService,
};
use crate::{
    node::{NodeError, NodePort},
    proto::etcdserverpb::{
        WatchCreateRequest, WatchRequest, watch_create_request::FilterType,
        watch_request::RequestUnion,
    },
    types::{KeyRange, Revision},
    watch::{NewWatch, Wants, WatchStream},
};

/// So many requests of a stream are taken before others have their turn.
const AT_ONCE: usize = 64;

/// The requests of one stream.
pub(super) struct Requests {
    pub(super) watches: WatchStream,
    /// `None`: the client sends no more; its watches go on, as etcd's do.
    requests: Option<Streaming<WatchRequest>>,
    leader_lost: BoxFuture<'static, ()>,
    stopped: BoxFuture<'static, ()>,
    progress_interval: Duration,
    /// There once a watch wants to be told its progress.
    tick: Option<Pin<Box<Sleep>>>,
    woken: Arc<Woken>,
    /// Requests wait for answers to be sent.
    held_back: bool,
}

impl Requests {
    pub(super) fn new<N: NodePort>(
        service: &WatchService<N>,
        request: Request<Streaming<WatchRequest>>,
    ) -> Result<Requests, Status> {
        let leader_lost = header::leader_lost(&service.node, &request)?;
        let peer = request.extensions().get::<ClientAddress>();
        let peer = peer.map_or_else(|| "unknown".to_string(), |peer| peer.0.to_string());
        let mut stopping = service.stopping.clone();
        Ok(Requests {
            watches: service.watches.open(peer),
            requests: Some(request.into_inner()),
            leader_lost,
            stopped: async move { stopping.wait().await }.boxed(),
            progress_interval: service.progress_interval,
            tick: None,
            woken: Arc::default(),
            held_back: false,
        })
    }

    /// Ready when the stream is to end. Hands on requests meanwhile, and ticks.
    pub(super) fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
        if !self.woken.take(cx) && !self.held_back {
            return Poll::Pending;
        }
        let waker = Waker::from(self.woken.clone());
        let mut woken = Context::from_waker(&waker);
        if self.stopped.poll_unpin(&mut woken).is_ready() {
            return Poll::Ready(NodeError::Stopped.into());
        }
        if self.leader_lost.poll_unpin(&mut woken).is_ready() {
            return Poll::Ready(NodeError::NoLeader.into());
        }
        if let Poll::Ready(status) = self.poll_requests(cx, &mut woken) {
            return Poll::Ready(status);
        }
        self.poll_tick(&mut woken);
        Poll::Pending
    }

    fn poll_requests(&mut self, cx: &mut Context<'_>, woken: &mut Context<'_>) -> Poll<Status> {
        self.held_back = false;
        let mut asked_at_once = 0;
        while let Some(requests) = &mut self.requests {
            // Others have their turn.
            if asked_at_once == AT_ONCE {
                woken.waker().wake_by_ref();
                break;
            }
            asked_at_once += 1;
            if self.watches.poll_ask(cx).is_pending() {
                self.held_back = true;
                break;
            }
            match Pin::new(requests).poll_next(woken) {
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

    fn poll_tick(&mut self, woken: &mut Context<'_>) {
        let Some(tick) = &mut self.tick else { return };
        while tick.poll_unpin(woken).is_ready() {
            self.watches.tick();
            let interval =
                self.progress_interval + self.watches.jitter(self.progress_interval / 10);
            tick.as_mut().reset(Instant::now() + interval);
        }
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

/// Wakes the stream, and remembers that it was not for a message's sake.
#[derive(Debug)]
struct Woken {
    is: AtomicBool,
    stream: AtomicWaker,
}

impl Default for Woken {
    /// The first look is at everything.
    fn default() -> Self {
        Woken { is: AtomicBool::new(true), stream: AtomicWaker::new() }
    }
}

impl Woken {
    /// Whether it has been since the last time; from now on it wakes `cx`.
    fn take(&self, cx: &Context<'_>) -> bool {
        // In this order: what comes in between is seen now.
        self.stream.register(cx.waker());
        self.is.swap(false, Ordering::AcqRel)
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is.store(true, Ordering::Release);
        self.stream.wake();
    }
}

/// The buffer is small: there may be many idle streams.
#[derive(Debug, Clone, Copy)]
pub(super) struct RequestDecoder;

impl Decoder for RequestDecoder {
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

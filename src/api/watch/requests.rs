//! Reads a client's requests on its watch stream, and decides when the stream ends.
//!
//! Each event wakes the stream's task, but requests and ends are rare. So the task polls the sources in
//! this file only if one of them, and not an event, woke it.

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
    Status, Streaming,
    codec::{BufferSettings, DecodeBuf, Decoder},
};

use super::super::errors;
use crate::{
    node::NodeError,
    proto::etcdserverpb::{
        WatchCreateRequest, WatchRequest, watch_create_request::FilterType,
        watch_request::RequestUnion,
    },
    types::{KeyRange, Revision},
    watch::{EventOptions, NewWatch, WatchStream},
};

/// Requests that a stream reads in one poll, before it yields to other tasks.
const REQUESTS_PER_POLL_MAX: usize = 64;

/// The requests of one stream.
pub struct Requests {
    pub watches: WatchStream,
    /// `None`: the client has closed its side. As in etcd, its watches continue.
    messages: Option<Streaming<WatchRequest>>,
    leader_lost: BoxFuture<'static, ()>,
    stopped: BoxFuture<'static, ()>,
    progress_interval: Duration,
    /// Set by the first watch with `progress_notify`.
    tick: Option<Pin<Box<Sleep>>>,
    wake_flag: Arc<WakeFlag>,
    /// The next request waits until responses are sent.
    held_back: bool,
}

impl Requests {
    pub fn new(
        watches: WatchStream,
        messages: Streaming<WatchRequest>,
        leader_lost: BoxFuture<'static, ()>,
        stopped: BoxFuture<'static, ()>,
        progress_interval: Duration,
    ) -> Requests {
        Requests {
            watches,
            messages: Some(messages),
            leader_lost,
            stopped,
            progress_interval,
            tick: None,
            wake_flag: Arc::default(),
            held_back: false,
        }
    }

    /// Ready when the stream must end. Until then, forwards requests and ticks to the watches.
    pub fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
        if !self.wake_flag.take(cx) && !self.held_back {
            return Poll::Pending;
        }
        let waker = Waker::from(self.wake_flag.clone());
        let mut flagged = Context::from_waker(&waker);
        if self.stopped.poll_unpin(&mut flagged).is_ready() {
            return Poll::Ready(NodeError::Stopped.into());
        }
        if self.leader_lost.poll_unpin(&mut flagged).is_ready() {
            return Poll::Ready(NodeError::NoLeader.into());
        }
        if let Poll::Ready(status) = self.poll_requests(cx, &mut flagged) {
            return Poll::Ready(status);
        }
        self.poll_tick(&mut flagged);
        Poll::Pending
    }

    fn poll_requests(&mut self, cx: &mut Context<'_>, flagged: &mut Context<'_>) -> Poll<Status> {
        self.held_back = false;
        let mut count = 0;
        while let Some(messages) = &mut self.messages {
            if count == REQUESTS_PER_POLL_MAX {
                flagged.waker().wake_by_ref();
                break;
            }
            count += 1;
            if self.watches.poll_ready(cx).is_pending() {
                self.held_back = true;
                break;
            }
            match Pin::new(messages).poll_next(flagged) {
                Poll::Ready(Some(Ok(request))) => self.handle(request),
                Poll::Ready(Some(Err(status))) => {
                    return Poll::Ready(errors::translate_stream_status(status));
                }
                Poll::Ready(None) => self.messages = None,
                Poll::Pending => break,
            }
        }
        Poll::Pending
    }

    /// As etcd, ignores an empty request.
    fn handle(&mut self, request: WatchRequest) {
        match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => {
                let watch = new_watch(create);
                if watch.progress_notify && self.tick.is_none() {
                    self.tick = Some(Box::pin(tokio::time::sleep(self.progress_interval)));
                }
                self.watches.create(watch);
            }
            Some(RequestUnion::CancelRequest(cancel)) => self.watches.cancel(cancel.watch_id),
            Some(RequestUnion::ProgressRequest(_)) => self.watches.progress(),
            None => {}
        }
    }

    fn poll_tick(&mut self, flagged: &mut Context<'_>) {
        let Some(tick) = &mut self.tick else { return };
        while tick.poll_unpin(flagged).is_ready() {
            self.watches.tick();
            let interval =
                self.progress_interval + self.watches.jitter(self.progress_interval / 10);
            tick.as_mut().reset(Instant::now() + interval);
        }
    }
}

fn new_watch(request: WatchCreateRequest) -> NewWatch {
    let WatchCreateRequest { key, range_end, filters, .. } = request;
    // As in etcd, an empty key is the smallest key.
    let start = if key.is_empty() { Bytes::from_static(&[0]) } else { key };
    let keys = match &*range_end {
        [] => KeyRange::One(start),
        [0] => KeyRange::From(start),
        _ => KeyRange::Span { start, end: range_end },
    };
    let options = EventOptions {
        no_put: filters.contains(&(FilterType::Noput as i32)),
        no_delete: filters.contains(&(FilterType::Nodelete as i32)),
        prev_kv: request.prev_kv,
        fragment: request.fragment,
    };
    NewWatch {
        watch_id: request.watch_id,
        keys,
        start_revision: Revision(request.start_revision),
        options,
        progress_notify: request.progress_notify,
    }
}

/// Wakes the stream's task, and records that a source other than an event woke it.
#[derive(Debug)]
struct WakeFlag {
    set: AtomicBool,
    task: AtomicWaker,
}

impl Default for WakeFlag {
    /// Set, so that the first poll polls all sources.
    fn default() -> Self {
        WakeFlag { set: AtomicBool::new(true), task: AtomicWaker::new() }
    }
}

impl WakeFlag {
    /// Returns and clears the flag. From now on, it wakes the task of `cx`.
    fn take(&self, cx: &Context<'_>) -> bool {
        // In this order: a wake-up in between sets the flag before it is read.
        self.task.register(cx.waker());
        self.set.swap(false, Ordering::AcqRel)
    }
}

impl Wake for WakeFlag {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.set.store(true, Ordering::Release);
        self.task.wake();
    }
}

/// Decodes requests, with a small buffer: there may be many idle streams.
#[derive(Debug, Clone, Copy)]
pub struct RequestDecoder;

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

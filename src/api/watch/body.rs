//! The body of a watch stream's response: gRPC messages in HTTP/2 frames.
//!
//! Small messages share a frame. Large events are sent without a copy, because watches of many streams
//! share their bytes. All bytes count as in flight until HTTP/2 has dropped them, and the body hands over
//! few at a time. So a client that does not read occupies no more memory than its stream's share. Between
//! frames, the body keeps no buffer.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll, ready},
};

use axum::http::HeaderMap;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame};
use prost::Message as _;
use tonic::Status;

use super::{super::header, requests::Requests};
use crate::{
    node::{Header, NodeError, NodePort},
    proto::etcdserverpb::WatchResponse,
    types::Revision,
    watch::{Response, ResponseKind},
};

/// The prefix of a gRPC message: the compression flag (0) and the length.
const PREFIX_BYTES: usize = 5;
/// A longer message is split into frames of this size.
const FRAME_BYTES_MAX: usize = 64 << 10;
/// The initial capacity of a frame.
const FRAME_CAPACITY_BYTES: usize = 512;

pub struct ResponseBody<N> {
    node: N,
    requests: Requests,
    /// The rest of the events of a large message.
    rest: Bytes,
    ended: bool,
}

/// No field is structurally pinned.
impl<N> Unpin for ResponseBody<N> {}

impl<N: NodePort> ResponseBody<N> {
    pub fn new(node: N, requests: Requests) -> ResponseBody<N> {
        ResponseBody { node, requests, rest: Bytes::new(), ended: false }
    }

    /// The data of the next frame.
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, Status>> {
        if !self.rest.is_empty() {
            let part = self.rest.len().min(FRAME_BYTES_MAX);
            return Poll::Ready(Ok(self.rest.split_to(part)));
        }
        if let Poll::Ready(status) = self.requests.poll_end(cx) {
            return Poll::Ready(Err(status));
        }
        let watches = &mut self.requests.watches;
        let bytes_max = ready!(watches.poll_capacity(cx));
        let Some(messages) = ready!(watches.poll_next(bytes_max, cx)) else {
            // The watch lane stops only when the member does.
            return Poll::Ready(Err(NodeError::Stopped.into()));
        };
        let mut frame = FrameBuilder::new(self.node.header(), bytes_max);
        for message in messages {
            frame.add(message)?;
        }
        let FrameBuilder { bytes, uncopied, .. } = frame;
        let (memory_bytes, uncopied_bytes) = (bytes.capacity(), uncopied.len());
        if uncopied_bytes > 0 {
            self.rest = watches.track_inflight(uncopied, uncopied_bytes);
        }
        Poll::Ready(Ok(watches.track_inflight(bytes, memory_bytes)))
    }
}

impl<N: NodePort> HttpBody for ResponseBody<N> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        Poll::Ready(Some(Ok(match ready!(this.poll_data(cx)) {
            Ok(bytes) => Frame::data(bytes),
            Err(status) => {
                this.ended = true;
                Frame::trailers(trailers(status))
            }
        })))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

fn trailers(status: Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    if let Err(error) = status.add_header(&mut trailers) {
        // The status does not fit into headers; the error about that does.
        let _ = error.add_header(&mut trailers);
    }
    trailers
}

/// Assembles messages for one frame.
struct FrameBuilder {
    now: Header,
    /// The last encoded header, and its revision. The next message mostly has the same.
    header: (Option<Revision>, Vec<u8>),
    bytes_max: usize,
    bytes: Vec<u8>,
    /// The events of the last message, if they do not fit into the frame.
    uncopied: Bytes,
}

impl FrameBuilder {
    fn new(now: Header, bytes_max: usize) -> FrameBuilder {
        let bytes = Vec::with_capacity(FRAME_CAPACITY_BYTES);
        FrameBuilder { now, header: (None, Vec::new()), bytes_max, bytes, uncopied: Bytes::new() }
    }

    fn add(&mut self, response: Response) -> Result<(), Status> {
        // Another message follows, so the events of the previous one must be copied.
        self.bytes.extend_from_slice(&std::mem::take(&mut self.uncopied));
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; PREFIX_BYTES]);
        self.add_header(response.revision);
        let (fields, events) = fields(response);
        let fields = fields.encode(&mut self.bytes);
        fields.map_err(|error| Status::internal(error.to_string()))?;
        // In protobuf, the fields of a message may be in any order.
        let written = self.bytes.len() - start - PREFIX_BYTES;
        let length = u32::try_from(written + events.len());
        let length = length.map_err(|_| Status::out_of_range("a message of more than 4 GiB"))?;
        self.bytes[start + 1..start + PREFIX_BYTES].copy_from_slice(&length.to_be_bytes());
        if self.bytes.len() + events.len() <= self.bytes_max {
            self.bytes.extend_from_slice(&events);
        } else {
            self.uncopied = events;
        }
        Ok(())
    }

    fn add_header(&mut self, revision: Revision) {
        let (known, encoded) = &mut self.header;
        if known.replace(revision) != Some(revision) {
            let header = Some(header::at(self.now, revision));
            *encoded = WatchResponse { header, ..WatchResponse::default() }.encode_to_vec();
        }
        self.bytes.extend_from_slice(encoded);
    }
}

/// The message without header and events, and the encoded events.
fn fields(response: Response) -> (WatchResponse, Bytes) {
    let mut message = WatchResponse { watch_id: response.watch_id, ..WatchResponse::default() };
    match response.kind {
        ResponseKind::Created => message.created = true,
        ResponseKind::CreateFailed(error) => {
            (message.created, message.canceled) = (true, true);
            message.cancel_reason = error.to_string();
        }
        ResponseKind::Canceled => message.canceled = true,
        ResponseKind::Compacted(revision) => {
            message.canceled = true;
            message.compact_revision = revision.0;
        }
        ResponseKind::Progress => {}
        ResponseKind::Events { encoded, fragment } => {
            message.fragment = fragment;
            return (message, encoded);
        }
    }
    (message, Bytes::new())
}

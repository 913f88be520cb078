//! The body of a stream's response: messages, put into frames.
//!
//! Small messages go into one frame together. Events that are large go as they are, uncopied: watches
//! of many streams share them. All that was handed on counts as the stream's until HTTP/2 has dropped
//! it, and it is little at a time: a client that does not read holds no more of our memory than its
//! stream's share. Between frames nothing is kept.

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
    watch::{Kind, Response},
};

/// Before each message: that it is not compressed, and its length.
const PREFIX_BYTES: usize = 5;
/// A frame is no longer than this, where a message is.
const FRAME_BYTES_MAX: usize = 64 << 10;
/// A frame begins with so much room.
const FRAME_BYTES: usize = 512;

/// What one client is sent.
pub(super) struct Frames<N> {
    node: N,
    requests: Requests,
    /// Large events, whose message was begun.
    rest: Bytes,
    ended: bool,
}

/// Nothing in it is pinned in place.
impl<N> Unpin for Frames<N> {}

impl<N: NodePort> Frames<N> {
    pub(super) fn new(node: N, requests: Requests) -> Frames<N> {
        Frames { node, requests, rest: Bytes::new(), ended: false }
    }

    /// The next frame of messages.
    fn poll_messages(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, Status>> {
        if !self.rest.is_empty() {
            let part = self.rest.len().min(FRAME_BYTES_MAX);
            return Poll::Ready(Ok(self.rest.split_to(part)));
        }
        if let Poll::Ready(status) = self.requests.poll_end(cx) {
            return Poll::Ready(Err(status));
        }
        let watches = &mut self.requests.watches;
        let bytes_max = ready!(watches.poll_hand_out(cx));
        let Some(messages) = ready!(watches.poll_next(bytes_max, cx)) else {
            // This member watches no more, so it is stopping.
            return Poll::Ready(Err(NodeError::Stopped.into()));
        };
        let mut frame = MessageFrame::new(self.node.header(), bytes_max);
        for message in messages {
            frame.add(message)?;
        }
        let MessageFrame { bytes, uncopied, .. } = frame;
        let (counts, uncopied_counts) = (bytes.capacity(), uncopied.len());
        if uncopied_counts > 0 {
            self.rest = watches.hand_out(uncopied, uncopied_counts);
        }
        Poll::Ready(Ok(watches.hand_out(bytes, counts)))
    }
}

impl<N: NodePort> HttpBody for Frames<N> {
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
        Poll::Ready(Some(Ok(match ready!(this.poll_messages(cx)) {
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
    if let Err(unfit) = status.add_header(&mut trailers) {
        // Its details are no header; what is said of that is.
        let _ = unfit.add_header(&mut trailers);
    }
    trailers
}

/// Messages as they are on the wire.
struct MessageFrame {
    now: Header,
    /// The header as it was written last, and of which revision: mostly it is the next one's too.
    header: (Option<Revision>, Vec<u8>),
    bytes_max: usize,
    bytes: Vec<u8>,
    /// What is left of the last message: events for which there is no room.
    uncopied: Bytes,
}

impl MessageFrame {
    fn new(now: Header, bytes_max: usize) -> MessageFrame {
        let bytes = Vec::with_capacity(FRAME_BYTES);
        MessageFrame { now, header: (None, Vec::new()), bytes_max, bytes, uncopied: Bytes::new() }
    }

    fn add(&mut self, response: Response) -> Result<(), Status> {
        // What was left of the last one turns out not to be the end.
        self.bytes.extend_from_slice(&std::mem::take(&mut self.uncopied));
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; PREFIX_BYTES]);
        self.add_header(response.revision);
        let (fields, events) = fields(response);
        let fields = fields.encode(&mut self.bytes);
        fields.map_err(|error| Status::internal(error.to_string()))?;
        // Fields of the same message may stand in any order.
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

/// All of a message but its header and its events; and these, as they are on the wire.
fn fields(response: Response) -> (WatchResponse, Bytes) {
    let mut message = WatchResponse { watch_id: response.watch_id, ..WatchResponse::default() };
    match response.kind {
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
            return (message, encoded);
        }
    }
    (message, Bytes::new())
}

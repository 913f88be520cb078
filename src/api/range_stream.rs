//! A range in chunks, each read when the client has room for it: never more than one is in memory.
//!
//! All chunks are of one revision: the first read's, if the client named none. Only keys and values
//! are in the chunks; header, count and `more` come with the last, so that merging all of them gives
//! what `Range` would have answered. A compaction past that revision ends the stream with an error.

use std::pin::Pin;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{Stream, stream};
use tonic::Status;

use super::header;
use crate::{
    node::{NodePort, RangeAt},
    proto::{
        convert::response,
        etcdserverpb::{RangeResponse, RangeStreamResponse, ResponseHeader},
    },
    types::{KeyRange, KeyValue, Range, RangeReply, Revision},
};

pub(super) type Chunks =
    Pin<Box<dyn Stream<Item = Result<RangeStreamResponse, Status>> + Send + 'static>>;

/// Keys in the first chunk; the sizes of its values tell how many the next may have.
const FIRST_CHUNK_KEYS: i64 = 10;

/// `chunk_bytes` is what a chunk should come to, give or take a factor of two.
pub(super) fn open<N: NodePort>(
    node: N,
    range: Range,
    serializable: bool,
    chunk_bytes: usize,
) -> Chunks {
    let limit = if range.limit > 0 { range.limit } else { i64::MAX };
    let reader = Reader {
        node,
        range,
        serializable,
        chunk_bytes,
        chunk_keys: FIRST_CHUNK_KEYS,
        keys_left: limit,
        first: None,
    };
    Box::pin(stream::try_unfold(Some(reader), async |reader| match reader {
        Some(reader) => reader.next().await.map(Some),
        None => Ok(None),
    }))
}

struct Reader<N> {
    node: N,
    /// What is still to be read.
    range: Range,
    serializable: bool,
    chunk_bytes: usize,
    chunk_keys: i64,
    /// What the client's limit leaves.
    keys_left: i64,
    first: Option<FirstRead>,
}

/// What the first read found out.
#[derive(Clone, Copy)]
struct FirstRead {
    /// Of the store, when it was read.
    revision: Revision,
    /// Keys in the whole range.
    count: i64,
}

impl<N: NodePort> Reader<N> {
    /// The next chunk, and the reader of those after it.
    async fn next(mut self) -> Result<(RangeStreamResponse, Option<Reader<N>>), Status> {
        self.range.limit = self.chunk_keys.min(self.keys_left);
        let RangeAt { revision, reply } =
            self.node.range(self.range.clone(), self.serializable).await?;
        let first = self.pin(revision, &reply);

        self.keys_left -= reply.kvs.len() as i64;
        let next_key = reply.kvs.last().map(|last| successor(&last.key));
        match next_key {
            Some(next_key) if reply.more && self.keys_left > 0 => {
                self.adapt(&reply.kvs);
                self.range.keys = starting_at(next_key, self.range.keys);
                let chunk = RangeResponse {
                    header: None,
                    more: false,
                    count: 0,
                    ..response::range(ResponseHeader::default(), reply)
                };
                Ok((RangeStreamResponse { range_response: Some(chunk) }, Some(self)))
            }
            _ => {
                let header = header::at(self.node.header(), first.revision);
                let last = response::range(header, RangeReply { count: first.count, ..reply });
                Ok((RangeStreamResponse { range_response: Some(last) }, None))
            }
        }
    }

    /// Makes every later read one of the same store as the first: this member has applied it, so it
    /// need not ask the others again.
    fn pin(&mut self, revision: Revision, reply: &RangeReply) -> FirstRead {
        if self.range.revision <= Revision::ZERO {
            self.range.revision = revision;
        }
        self.serializable = true;
        *self.first.get_or_insert(FirstRead { revision, count: reply.count })
    }

    /// Lets the next chunk have more keys or fewer. Only beyond a factor of two, lest it waver.
    fn adapt(&mut self, kvs: &[KeyValue]) {
        let bytes: usize = kvs.iter().map(|kv| kv.key.len() + kv.value.len()).sum();
        if bytes < self.chunk_bytes / 2 {
            self.chunk_keys = self.chunk_keys.saturating_mul(2);
        } else if bytes / 2 > self.chunk_bytes {
            self.chunk_keys = (self.chunk_keys / 2).max(1);
        }
    }
}

/// The first key after this one.
fn successor(key: &[u8]) -> Bytes {
    let mut next = BytesMut::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.put_u8(0);
    next.freeze()
}

fn starting_at(start: Bytes, keys: KeyRange) -> KeyRange {
    match keys {
        KeyRange::Span { end, .. } => KeyRange::Span { start, end },
        // One key is one chunk, so this is never asked of it; nothing comes after it.
        KeyRange::One(_) => KeyRange::Span { end: start.clone(), start },
        KeyRange::From(_) => KeyRange::From(start),
    }
}

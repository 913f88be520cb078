//! `RangeStream`: a range in chunks. Each chunk is read when the client has room for it, so at most one
//! chunk is in memory.
//!
//! All chunks have one revision: the requested one, or that of the first read. Chunks carry keys and
//! values only; the last one adds header, count and `more`. So merging all chunks gives the response of
//! `Range`. A compaction past the revision ends the stream with an error.

use std::pin::Pin;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{Stream, StreamExt, stream};
use tonic::Status;

use super::header;
use crate::{
    node::{NodePort, RangeResult},
    proto::{
        convert::response,
        etcdserverpb::{RangeResponse, RangeStreamResponse, ResponseHeader},
    },
    types::{KeyRange, KeyValue, Range, RangeReply, Revision},
};

pub type Chunks = Pin<Box<dyn Stream<Item = Result<RangeStreamResponse, Status>> + Send + 'static>>;

/// Keys in the first chunk. The next chunks adapt to the sizes of the values.
const FIRST_CHUNK_KEYS: i64 = 10;

/// Chunks have about `chunk_bytes`, give or take a factor of two.
///
/// # Errors
/// If the first read fails. It precedes the stream, so that a refusal opens no stream.
pub async fn open<N: NodePort>(
    node: N,
    range: Range,
    serializable: bool,
    chunk_bytes: usize,
) -> Result<Chunks, Status> {
    let limit = if range.limit > 0 { range.limit } else { i64::MAX };
    let reader = ChunkReader {
        node,
        range,
        serializable,
        chunk_bytes,
        chunk_keys: FIRST_CHUNK_KEYS,
        keys_left: limit,
        first: None,
    };
    let (first, reader) = reader.next().await?;
    let rest = stream::try_unfold(reader, async |reader| match reader {
        Some(reader) => reader.next().await.map(Some),
        None => Ok(None),
    });
    Ok(Box::pin(stream::iter([Ok(first)]).chain(rest)))
}

struct ChunkReader<N> {
    node: N,
    /// The part that is not read yet.
    range: Range,
    serializable: bool,
    chunk_bytes: usize,
    chunk_keys: i64,
    /// The rest of the request's limit.
    keys_left: i64,
    first: Option<FirstRead>,
}

/// The result of the first read, for the header of the last chunk.
#[derive(Clone, Copy)]
struct FirstRead {
    /// The store's revision at the first read.
    revision: Revision,
    /// Keys in the whole range.
    count: i64,
}

impl<N: NodePort> ChunkReader<N> {
    /// The next chunk, and the reader of those after it.
    async fn next(mut self) -> Result<(RangeStreamResponse, Option<ChunkReader<N>>), Status> {
        self.range.limit = self.chunk_keys.min(self.keys_left);
        let RangeResult { revision, reply } =
            self.node.range(self.range.clone(), self.serializable).await?;
        let first = self.pin_revision(revision, &reply);

        self.keys_left -= reply.kvs.len() as i64;
        let next_key = reply.kvs.last().map(|last| successor(&last.key));
        match next_key {
            Some(next_key) if reply.more && self.keys_left > 0 => {
                self.adapt_chunk_keys(&reply.kvs);
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

    /// Fixes the revision for all later reads. This member has applied that revision, so those reads are
    /// serializable.
    fn pin_revision(&mut self, revision: Revision, reply: &RangeReply) -> FirstRead {
        if self.range.revision <= Revision::ZERO {
            self.range.revision = revision;
        }
        self.serializable = true;
        *self.first.get_or_insert(FirstRead { revision, count: reply.count })
    }

    /// Adapts the number of keys for the next chunk. A factor of two is tolerated, to avoid oscillation.
    fn adapt_chunk_keys(&mut self, kvs: &[KeyValue]) {
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
        // Never reached: a single key is one chunk.
        KeyRange::One(_) => KeyRange::Span { end: start.clone(), start },
        KeyRange::From(_) => KeyRange::From(start),
    }
}

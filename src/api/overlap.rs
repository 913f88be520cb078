//! No key may be written twice in one transaction: all its writes have one revision.
//!
//! What counts as twice is etcd's, order and gaps included: operations of one list are checked against
//! each other, a nested transaction against the deletions of its own list and against the ones before
//! it; its two branches may write the same key, since only one is taken. Deletions may overlap. A
//! deletion without an end (`range_end` of one zero byte) is taken literally, as the empty range that
//! ends at `\0`, so nothing overlaps it.

use std::collections::{BTreeMap, HashSet};

use super::errors::Refusal;
use crate::proto::etcdserverpb::{DeleteRangeRequest, RequestOp, TxnRequest, request_op::Request};

pub(super) fn check(txn: &TxnRequest) -> Result<(), Refusal> {
    for branch in [&txn.success, &txn.failure] {
        // By far the most transactions: nothing to overlap with.
        let lone = branch.len() < 2 && !branch.iter().any(is_txn);
        if !lone {
            Writes::of(branch)?;
        }
    }
    Ok(())
}

fn is_txn(op: &RequestOp) -> bool {
    matches!(op.request, Some(Request::RequestTxn(_)))
}

/// What a list of operations writes.
#[derive(Default)]
struct Writes<'a> {
    puts: HashSet<&'a [u8]>,
    deletes: Deletes<'a>,
}

impl<'a> Writes<'a> {
    fn of(ops: &'a [RequestOp]) -> Result<Writes<'a>, Refusal> {
        let mut writes = Writes::default();
        // Deletions first: they are checked against wherever they stand in the list.
        for op in ops {
            if let Some(Request::RequestDeleteRange(delete)) = &op.request {
                writes.deletes.insert(delete);
            }
        }
        for op in ops {
            if let Some(Request::RequestTxn(txn)) = &op.request {
                writes.nest(Writes::of(&txn.success)?, Writes::of(&txn.failure)?)?;
            }
        }
        for op in ops {
            if let Some(Request::RequestPut(put)) = &op.request {
                writes.put(&put.key)?;
            }
        }
        Ok(writes)
    }

    fn put(&mut self, key: &'a [u8]) -> Result<(), Refusal> {
        if self.deletes.hold(key) || !self.puts.insert(key) {
            return Err(Refusal::DuplicateKey);
        }
        Ok(())
    }

    /// Adds what the branches of a nested transaction write.
    fn nest(&mut self, success: Writes<'a>, failure: Writes<'a>) -> Result<(), Refusal> {
        for key in &success.puts {
            self.put(key)?;
        }
        for key in failure.puts.difference(&success.puts) {
            self.put(key)?;
        }
        self.deletes.extend(success.deletes);
        self.deletes.extend(failure.deletes);
        Ok(())
    }
}

/// A set of deleted keys.
#[derive(Default)]
struct Deletes<'a> {
    keys: HashSet<&'a [u8]>,
    /// Start → end; neither empty nor touching one another.
    spans: BTreeMap<&'a [u8], &'a [u8]>,
}

impl<'a> Deletes<'a> {
    fn hold(&self, key: &[u8]) -> bool {
        let before = self.spans.range::<&[u8], _>(..=key).next_back();
        before.is_some_and(|(_, end)| key < *end) || self.keys.contains(key)
    }

    fn insert(&mut self, delete: &'a DeleteRangeRequest) {
        if delete.range_end.is_empty() {
            self.keys.insert(&delete.key);
        } else {
            self.insert_span(&delete.key, &delete.range_end);
        }
    }

    /// Merges the span with those it touches.
    fn insert_span(&mut self, mut start: &'a [u8], mut end: &'a [u8]) {
        if end <= start {
            return;
        }
        // Of the spans that start no later than this one ends, those that end no earlier than it
        // starts; they are the last ones, since spans do not overlap.
        while let Some((&other_start, &other_end)) =
            self.spans.range::<&[u8], _>(..=end).next_back()
        {
            if other_end < start {
                break;
            }
            self.spans.remove(other_start);
            start = start.min(other_start);
            end = end.max(other_end);
        }
        self.spans.insert(start, end);
    }

    fn extend(&mut self, other: Deletes<'a>) {
        self.keys.extend(other.keys);
        for (start, end) in other.spans {
            self.insert_span(start, end);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn merged_spans_hold_the_keys_of_each(
            deletes in prop::collection::vec(("[a-e]{1,2}", "[a-e\0]{0,2}"), 0..8),
            key in "[a-e]{1,2}",
        ) {
            let requests: Vec<_> = deletes
                .into_iter()
                .map(|(key, range_end)| DeleteRangeRequest {
                    key: Bytes::from(key),
                    range_end: Bytes::from(range_end),
                    prev_kv: false,
                })
                .collect();
            let mut merged = Deletes::default();
            requests.iter().for_each(|request| merged.insert(request));

            let holds = requests.iter().any(|request| {
                if request.range_end.is_empty() {
                    request.key == key
                } else {
                    request.key <= key && key.as_bytes() < &request.range_end[..]
                }
            });
            prop_assert_eq!(merged.hold(key.as_bytes()), holds);
        }
    }
}

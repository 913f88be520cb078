//! Refuses transactions that write a key twice: all writes of a transaction have one revision.
//!
//! The rules are etcd's, with its order and its gaps. The operations of a list are checked against each
//! other. A nested transaction is checked against the deletions of its list and against the nested
//! transactions before it; its two branches may write the same key, since only one of them runs.
//! Deletions may overlap. An open-ended deletion (`range_end` of one zero byte) is taken literally, as the
//! empty range that ends at `\0`, so it overlaps nothing.

use std::collections::{BTreeMap, HashSet};

use super::errors::ValidationError;
use crate::proto::etcdserverpb::{DeleteRangeRequest, RequestOp, TxnRequest, request_op::Request};

pub fn check(txn: &TxnRequest) -> Result<(), ValidationError> {
    for branch in [&txn.success, &txn.failure] {
        // Most transactions by far: a single operation overlaps with nothing.
        let single = branch.len() < 2 && !branch.iter().any(is_txn);
        if !single {
            Writes::of(branch)?;
        }
    }
    Ok(())
}

fn is_txn(op: &RequestOp) -> bool {
    matches!(op.request, Some(Request::RequestTxn(_)))
}

/// The keys that a list of operations writes.
#[derive(Default)]
struct Writes<'a> {
    puts: HashSet<&'a [u8]>,
    deletes: Deletes<'a>,
}

impl<'a> Writes<'a> {
    fn of(ops: &'a [RequestOp]) -> Result<Writes<'a>, ValidationError> {
        let mut writes = Writes::default();
        // Deletions first: their position in the list does not matter.
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

    fn put(&mut self, key: &'a [u8]) -> Result<(), ValidationError> {
        if self.deletes.contains(key) || !self.puts.insert(key) {
            return Err(ValidationError::DuplicateKey);
        }
        Ok(())
    }

    /// Adds what the branches of a nested transaction write.
    fn nest(&mut self, success: Writes<'a>, failure: Writes<'a>) -> Result<(), ValidationError> {
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
    /// From start to end. No span is empty, and no two spans touch.
    spans: BTreeMap<&'a [u8], &'a [u8]>,
}

impl<'a> Deletes<'a> {
    fn contains(&self, key: &[u8]) -> bool {
        let last = self.spans.range::<&[u8], _>(..=key).next_back();
        last.is_some_and(|(_, end)| key < *end) || self.keys.contains(key)
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
        // Walks back over the spans that start at or before `end`. Since spans do not overlap, those that
        // touch this one are the last of them.
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
        fn merged_spans_contain_the_keys_of_each(
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

            let contains = requests.iter().any(|request| {
                if request.range_end.is_empty() {
                    request.key == key
                } else {
                    request.key <= key && key.as_bytes() < &request.range_end[..]
                }
            });
            prop_assert_eq!(merged.contains(key.as_bytes()), contains);
        }
    }
}

//! Readers on other threads while the apply lane works.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
};

use crate::{
    state::{MemoryStorage, StateMachine, View},
    types::*,
};

const KEYS: i64 = 10;
const TRANSACTIONS: i64 = 3000;

/// Revision `r` of the store: ten keys with the value `r`, and `r % KEYS` keys under `n`.
fn transaction(revision: i64) -> Command {
    let put = |key: String| {
        TxnOp::Put(Put { key: key.into(), value: revision.to_string().into(), ..Put::default() })
    };
    let mut success: Vec<TxnOp> = (0..KEYS).map(|key| put(format!("k{key}"))).collect();
    success.push(match revision % KEYS {
        0 => TxnOp::DeleteRange(DeleteRange { keys: under("n", "o"), prev_kv: false }),
        count => put(format!("n{count}")),
    });
    Command::Txn(Txn { success, ..Txn::default() })
}

fn under(start: &'static str, end: &'static str) -> KeyRange {
    KeyRange::Span { start: start.into(), end: end.into() }
}

/// Reads once, `back` revisions ago. True if that revision was not compacted.
fn check_one_read(view: &View, keys: KeyRange, back: i64) -> bool {
    let now = view.revision();
    let wanted = Revision((now.0 - back).max(11));
    let range = Range { revision: wanted, ..Range::of(keys.clone()) };
    let read = match view.range(range) {
        Ok(read) => read,
        Err(error) => {
            assert_eq!(error, CommandError::Compacted);
            return false;
        }
    };
    assert!(read.revision() >= now, "the store went back");
    let (_, reply) = read.finish().unwrap();
    assert_eq!(reply.count, reply.kvs.len() as i64);
    if keys == under("k", "l") {
        let torn = reply.kvs.iter().any(|kv| kv.mod_revision != wanted);
        assert!(!torn, "half of a transaction at {wanted}: {:?}", reply.kvs);
        assert_eq!(reply.count, KEYS);
    } else {
        assert_eq!(reply.count, wanted.0 % KEYS, "at {wanted}");
    }
    true
}

#[test]
fn a_reader_never_sees_half_a_transaction_nor_loses_its_revision_to_compaction() {
    let storage = Arc::new(MemoryStorage::default());
    let mut machine = StateMachine::recover(storage, None, [], []).unwrap();
    let mut position = LogPosition::default();
    // Revision 10 deletes the keys under `n`: from 11 on, the content of a revision is known.
    machine.apply(position, (2..=11).map(transaction)).unwrap();
    machine.publish();
    let (view, done) = (machine.view(), AtomicBool::new(false));

    thread::scope(|scope| {
        let readers = [0, 1].map(|reader| {
            let (view, done) = (view.clone(), &done);
            scope.spawn(move || {
                let mut reads = 0;
                while !done.load(SeqCst) {
                    let keys = if reads % 2 == 0 { under("k", "l") } else { under("n", "o") };
                    reads += i64::from(check_one_read(&view, keys, reader * (reads % 7)));
                }
                reads
            })
        });
        for revision in 12..TRANSACTIONS {
            position.index += 1;
            machine.apply(position, [transaction(revision)]).unwrap();
            if revision % 5 == 0 {
                position.index += 1;
                let compact = Command::Compact(Revision(revision - 4));
                machine.apply(position, [compact]).unwrap()[0].as_ref().unwrap();
            }
            if revision % 3 == 0 {
                machine.publish();
            }
            machine.compact_step(8);
        }
        done.store(true, SeqCst);
        for reader in readers {
            assert!(reader.join().unwrap() > 0, "a reader that never read shows nothing");
        }
    });
}

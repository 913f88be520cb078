//! Work that exceeds one step continues in the next.

use std::sync::Arc;

use crate::{
    state::{MemoryStorage, Pruning, ReadProgress, StateMachine},
    types::*,
};

const KEYS: i64 = 20_000;

fn key(number: i64) -> String {
    format!("key {number:06}")
}

/// Every key put twice, each time in one transaction.
fn machine() -> (Arc<MemoryStorage>, StateMachine) {
    let storage = Arc::new(MemoryStorage::default());
    let mut machine = StateMachine::recover(storage.clone(), None, [], []).unwrap();
    let put = |number: i64| {
        TxnOp::Put(Put { key: key(number).into(), value: "v".into(), ..Put::default() })
    };
    let txn = Txn { success: (0..KEYS).map(put).collect(), ..Txn::default() };
    let commands = [Command::Txn(txn.clone()), Command::Txn(txn)];
    machine.apply(LogPosition::default(), commands).unwrap();
    machine.publish();
    (storage, machine)
}

#[test]
fn a_long_range_leaves_the_callers_thread_and_is_finished_elsewhere() {
    let (_, machine) = machine();
    let all = Range::of(KeyRange::From("".into()));
    let ReadProgress::Unfinished(read) = machine.view().range(all).unwrap().in_memory().unwrap()
    else {
        panic!("{KEYS} keys are too many for a thread that must not block");
    };
    let (_, reply) = read.finish().unwrap();
    assert_eq!((reply.count, reply.more), (KEYS, false));
    assert!(reply.kvs.iter().zip(0..).all(|(kv, number)| *kv.key == *key(number).as_bytes()));
}

#[test]
fn a_range_of_a_thousand_keys_is_answered_from_memory() {
    let (_, machine) = machine();
    let keys = KeyRange::Span { start: key(500).into(), end: key(1500).into() };
    let read = machine.view().range(Range::of(keys)).unwrap();
    assert!(
        matches!(read.in_memory().unwrap(), ReadProgress::Done(_, reply) if reply.count == 1000)
    );
}

#[test]
fn pruning_goes_in_bounded_steps_and_ends() {
    let (storage, mut machine) = machine();
    let position = LogPosition { term: Term(0), index: 1 };
    machine.apply(position, [Command::Compact(Revision(3))]).unwrap();
    machine.publish();
    let mut steps = 0;
    while machine.compact_step(1000) == Pruning::More {
        steps += 1;
        machine.publish();
        assert!(storage.discarded_count() <= steps * 1064, "{steps} steps");
    }
    machine.publish();
    assert_eq!(storage.discarded_count(), KEYS as usize);
    assert_eq!(machine.view().pruned(), Revision(3));
}

#[test]
fn the_end_of_a_lease_with_many_keys_is_one_revision() {
    let storage = Arc::new(MemoryStorage::default());
    let mut machine = StateMachine::recover(storage, None, [], []).unwrap();
    let lease = LeaseId(7);
    let put = |number: i64| TxnOp::Put(Put { key: key(number).into(), lease, ..Put::default() });
    let commands = [
        Command::LeaseGrant { id: lease, ttl: 60 },
        Command::Txn(Txn { success: (0..KEYS).map(put).collect(), ..Txn::default() }),
        Command::LeaseRevoke(lease),
    ];
    let replies = machine.apply(LogPosition::default(), commands).unwrap();
    assert_eq!(replies[2], Ok(Reply::LeaseRevoke { revision: Revision(3) }));
    machine.publish();
    let all = Range { count_only: true, ..Range::of(KeyRange::From("".into())) };
    let count = |revision| {
        let range = Range { revision: Revision(revision), ..all.clone() };
        machine.view().range(range).unwrap().finish().unwrap().1.count
    };
    assert_eq!((count(2), count(3)), (KEYS, 0));
    assert_eq!(machine.view().lease_count(), 0);
}

/// Each lease costs a small part of a table entry.
#[test]
fn leases_that_are_granted_one_after_the_other_share_entries_of_the_tables() {
    const LEASES: i64 = 6400;
    let storage = Arc::new(MemoryStorage::default());
    let mut machine = StateMachine::recover(storage.clone(), None, [], []).unwrap();
    let scattered = |number: i64| LeaseId(number.wrapping_mul(0x9E37_79B9_7F4A_7C15_u64 as i64));
    let grants = (1..=LEASES).map(|n| Command::LeaseGrant { id: scattered(n), ttl: 60 });
    machine.apply(LogPosition::default(), grants).unwrap();
    machine.publish();
    let tables = storage.contents().tables;
    assert!(tables.len() < 105, "{} entries", tables.len());

    let position = LogPosition { term: Term(0), index: 1 };
    machine.apply(position, (1..=LEASES).map(|n| Command::LeaseRevoke(scattered(n)))).unwrap();
    machine.publish();
    assert_eq!(storage.contents().tables.len(), 1, "only the counters are left");
}

#[test]
fn deleting_everything_is_one_revision() {
    let (_, mut machine) = machine();
    let position = LogPosition { term: Term(0), index: 1 };
    let all = DeleteRange { keys: KeyRange::From("".into()), prev_kv: true };
    let replies = machine.apply(position, [Command::DeleteRange(all)]).unwrap();
    let Ok(Reply::DeleteRange { revision, reply }) = &replies[0] else { panic!("{replies:?}") };
    assert_eq!((*revision, reply.deleted), (Revision(4), KEYS));
    assert_eq!(reply.prev_kvs.len() as i64, KEYS);
}
